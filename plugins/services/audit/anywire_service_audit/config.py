"""The settings of the service ``audit``."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.service import ServiceConfig


class AuditConfig(ServiceConfig):
    folder: Path | None = pydantic.Field(
        None,
        description="Folder of the log, for this user alone. Default: `audit` in the state folder of the fleet.",
    )
    tasks: bool = pydantic.Field(
        False, description="Write each task too: caller, tenant, model, sizes and outcome, and never its text."
    )
    required: bool = pydantic.Field(
        False, description="Refuse commands while the log cannot be written. Tasks go on in any case."
    )
    key_file: Path | None = pydantic.Field(
        None,
        description="File with a key, readable by this user alone, made when it is missing: who has the folder alone "
        "cannot write the chain anew. Default: no key.",
    )
    max_bytes: int = pydantic.Field(16 * 2**20, ge=1024, description="Bytes after which a new file begins.")
    max_hours: float = pydantic.Field(24.0, gt=0, description="Hours after which a new file begins.")
    keep: int = pydantic.Field(100, ge=2, description="Files that are kept; the oldest are removed.")
