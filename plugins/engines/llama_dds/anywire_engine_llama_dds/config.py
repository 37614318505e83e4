"""What can be set of the engine ``llama_dds``."""

from __future__ import annotations

import pydantic

from anywire_dds.llama_ends import LlamaDdsOptions


class LlamaDdsEngineConfig(LlamaDdsOptions):
    """Times in seconds."""

    server_id: str = pydantic.Field(
        default="", description="the one server to use, by the id in its ServerStatus; empty: whichever is there"
    )
    model: str = pydantic.Field(
        default="", description="public name of the model the server has loaded; empty: what the server calls it"
    )
    temperature: float = pydantic.Field(default=0.8, ge=0, le=2, description="of a request that names none")
    max_tokens: int = pydantic.Field(
        default=512, ge=1, le=2**31 - 1, description="length of an answer whose request names none"
    )
    reader_pause: float = pydantic.Field(
        default=0.05, ge=0, le=10, description="the server may be away from its reader so long without losing a request"
    )
    startup_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="the server may take so long to appear before the engine counts as failed"
    )
