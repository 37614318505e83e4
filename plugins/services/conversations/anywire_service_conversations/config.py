"""The settings of the service ``conversations``."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.service import ServiceConfig


class ConversationsConfig(ServiceConfig):
    folder: Path | None = pydantic.Field(
        None,
        description="Folder of the conversations and responses, for this user alone. Default: `conversations` in the "
        "fleet's state folder.",
    )
    keep_days: float = pydantic.Field(
        30.0,
        gt=0,
        le=3650,
        allow_inf_nan=False,
        description="Days since its last use for which a conversation or a response is kept.",
    )
    max_kept: int = pydantic.Field(
        50_000,
        ge=1,
        description="Conversations and responses that are kept. Of more, those of the tenant that has the most go, the "
        "longest unused one first.",
    )
    max_bytes: int = pydantic.Field(2**30, ge=1024, description="Bytes of all of them.")
    max_history_bytes: int = pydantic.Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Bytes of the items of one conversation, and of the history of one response; what makes it longer "
        "is refused (413).",
    )
