"""What can be set of the gateway ``llama_dds``."""

from __future__ import annotations

from typing import Annotated

import pydantic

from anywire.core_settings import FromCore
from anywire_dds.llama_ends import LlamaDdsOptions
from anywire_dds.llama_types import DEADLINE


class LlamaDdsGatewayConfig(LlamaDdsOptions):
    """Times in seconds."""

    server_id: str = pydantic.Field(
        default="", description="Name told in ServerStatus. Default: `anywire-` and the orchestrator's hub id."
    )
    model: str = pydantic.Field(
        default="", description="Model told in ServerStatus, and used where a request names none. Default: the first."
    )
    models: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="Model names that clients use, with the served models they stand for. The name `*` is every one"
        " that is not served; an empty model is `model`.",
    )
    keyless: bool = pydantic.Field(
        default=False,
        description="Let clients in where others need a key: this wire carries none. They have the role `use`.",
    )
    max_in_flight: int = pydantic.Field(
        default=256, ge=1, description="Requests at once; further ones are answered with an error."
    )
    max_age: float = pydantic.Field(
        default=30.0, gt=0, description="Seconds after which a request in a client's history is not answered any more."
    )
    reader_pause: float = pydantic.Field(
        default=0.05, ge=0, le=10, description="Seconds a client may be away from its reader and lose no response."
    )
    chunk_interval: float = pydantic.Field(
        default=0.02, ge=0, le=10, description="Seconds at least between two chunks of a stream; what comes is joined."
    )
    ack_wait: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds that a client which acknowledges nothing holds up others.",
    )
    status_interval: float = pydantic.Field(
        default=0.5, gt=0, lt=DEADLINE, description="Seconds between two ServerStatus samples while nothing changes."
    )
    shutdown_grace: Annotated[float, FromCore("shutdown_grace")] = pydantic.Field(
        default=10.0, ge=0, description="Seconds that running requests get at close."
    )
