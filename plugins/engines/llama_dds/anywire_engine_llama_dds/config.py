"""What can be set of the engine ``llama_dds``."""

from __future__ import annotations

import pydantic

from anywire_dds.llama_ends import LlamaDdsOptions


class LlamaDdsEngineConfig(LlamaDdsOptions):
    """Times in seconds."""

    server_id: str = pydantic.Field(
        default="", description="Id of the one server to use, as in its ServerStatus. Default: whichever is there."
    )
    model: str = pydantic.Field(
        default="",
        description="Public name of the model that the server has loaded. Default: what the server calls it.",
    )
    temperature: float = pydantic.Field(
        default=0.8, ge=0, le=2, description="Temperature of a request that names none."
    )
    max_tokens: int = pydantic.Field(
        default=512, ge=1, le=2**31 - 1, description="Tokens of the longest answer where the request names no limit."
    )
    reader_pause: float = pydantic.Field(
        default=5.0,
        ge=0,
        le=60,
        description="Seconds that the server may be away from its reader and lose no request. A request counts as read "
        "when the server answers it or a later one, or tells that it works on all of them, and at the latest after so "
        "long.",
    )
    startup_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds that the server may take to appear before the engine counts as failed."
    )
