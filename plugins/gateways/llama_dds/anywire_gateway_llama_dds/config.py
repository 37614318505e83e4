"""What can be set of the gateway ``llama_dds``."""

from __future__ import annotations

import pydantic

from anywire_dds.llama_ends import LlamaDdsOptions
from anywire_dds.llama_types import DEADLINE


class LlamaDdsGatewayConfig(LlamaDdsOptions):
    """Times in seconds."""

    server_id: str = pydantic.Field(
        default="", description="who it is in ServerStatus; empty: the orchestrator's hub id, with anywire- before it"
    )
    model: str = pydantic.Field(
        default="", description="told in ServerStatus, and meant by requests that name none; empty: the first served"
    )
    models: dict[str, str] = pydantic.Field(
        default_factory=dict, description="model names that clients use, and the served models they stand for"
    )
    max_in_flight: int = pydantic.Field(default=256, ge=1, description="requests at a time; beyond: an error")
    max_age: float = pydantic.Field(
        default=30.0, gt=0, description="a request found in a client's history is too old to be answered then"
    )
    reader_pause: float = pydantic.Field(
        default=0.05, ge=0, le=10, description="a client may be away from its reader so long without losing a response"
    )
    chunk_interval: float = pydantic.Field(
        default=0.02, ge=0, le=10, description="least time between two chunks of a stream; what comes between is joined"
    )
    ack_wait: float = pydantic.Field(
        default=1.0, gt=0, le=60, description="a client's process that acknowledges nothing holds up others so long"
    )
    status_interval: float = pydantic.Field(
        default=0.5, gt=0, lt=DEADLINE, description="between two ServerStatus samples while nothing changes"
    )
    shutdown_grace: float = pydantic.Field(default=10.0, ge=0, description="running requests get this at close")
