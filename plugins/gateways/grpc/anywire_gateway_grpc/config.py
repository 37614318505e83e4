"""What can be set of the gateway ``grpc``."""

from __future__ import annotations

from typing import Annotated

import pydantic

from anywire.access_settings import TlsConfig
from anywire.core_settings import FromCore

MIB = 1024 * 1024


class GrpcGatewayConfig(pydantic.BaseModel):
    """Times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    host: Annotated[str, FromCore("server.host")] = pydantic.Field(
        default="127.0.0.1", min_length=1, description="Address to listen on."
    )
    port: int | None = pydantic.Field(
        default=None,
        ge=0,
        le=65535,
        description="Port to listen on, 0 for any that is free. Default: 50055, or another one when that is taken.",
    )
    tls: Annotated[TlsConfig | None, FromCore("server.tls")] = pydantic.Field(
        default=None, description="Certificate of the port. Default: none, the port speaks HTTP/2 without TLS."
    )
    models: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="Model names that clients use, with the served models they stand for. The name `*` is every one"
        " that is not served. A name that stands for an empty one leaves the choice to the service `deliberation`.",
    )
    wait: float | None = pydantic.Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after which `Deliberate` answers with the id of what has not ended. 0: at once. Default: "
        "as the deadline of the call allows.",
    )
    max_message_bytes: int = pydantic.Field(
        default=4 * MIB, ge=1024, le=1024 * MIB, description="Bytes of the largest request; larger ones are refused."
    )
    max_calls: int = pydantic.Field(
        default=1000,
        ge=2,
        description="Calls at once, half of them of one key; further ones are refused (RESOURCE_EXHAUSTED).",
    )
    shutdown_grace: Annotated[float, FromCore("shutdown_grace")] = pydantic.Field(
        default=10.0, ge=0, description="Seconds that running calls get at close."
    )
    reader_timeout: float = pydantic.Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for which a client may take nothing of an answer. Its call ends then (ABORTED).",
    )
    log_requests: Annotated[bool, FromCore("log_requests")] = pydantic.Field(
        default=True, description="Log a line for each call that asks a question, or fails."
    )
