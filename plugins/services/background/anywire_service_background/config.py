"""The settings of the service ``background``."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.service import ServiceConfig


class BackgroundConfig(ServiceConfig):
    folder: Path | None = pydantic.Field(
        None,
        description="Folder of the tasks and answers, for this user alone. Default: `background` in the fleet's state "
        "folder.",
    )
    keep_hours: float = pydantic.Field(
        24.0,
        gt=0,
        le=8760,
        allow_inf_nan=False,
        description="Hours for which an answer is kept, and a task that nobody can take.",
    )
    max_tasks: int = pydantic.Field(
        10_000,
        ge=1,
        description="Tasks and answers that are kept. Of more, the oldest answers of the tenant that has the most go.",
    )
    max_bytes: int = pydantic.Field(2**30, ge=1024, description="Bytes of all tasks and answers that are kept.")
    tenant_share: float = pydantic.Field(
        0.5,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of `max_tasks` and of `max_bytes` that tasks of one tenant may take before they end; "
        "further ones are refused (429).",
    )
    max_starts: int = pydantic.Field(
        5,
        ge=1,
        description="Times a task is started whose orchestrator was killed or crashed; then it ends with an error.",
    )
