"""What can be set of the gateway ``predecessor``."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from anywire.access_settings import TlsConfig
from anywire.core_settings import FromCore
from anywire_gateway_openai.origins import checked_origin
from anywire_gateway_openai.proxies import checked_proxy


class PredecessorGatewayConfig(pydantic.BaseModel):
    """Times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    host: Annotated[str, FromCore("server.host")] = pydantic.Field(
        default="127.0.0.1", min_length=1, description="Address to listen on."
    )
    port: int | None = pydantic.Field(
        default=None,
        ge=0,
        le=65535,
        description="Port to listen on, 0 for any that is free. Default: 8090, or another one when that is taken.",
    )
    tls: Annotated[TlsConfig | None, FromCore("server.tls")] = pydantic.Field(
        default=None, description="Certificate of the port. Default: none, the port speaks HTTP without TLS."
    )
    model: str = pydantic.Field(
        default="",
        description="Model of a request that names none. Default: the one that is served, where there is only one.",
    )
    max_body_bytes: Annotated[int, FromCore("pipeline.max_body_bytes")] = pydantic.Field(
        default=8 * 1024 * 1024, ge=1024, description="Bytes of the largest request; larger ones are refused (413)."
    )
    allowed_origins: list[str] = pydantic.Field(
        default_factory=list, description="Origins of web pages elsewhere that may use the gateway. `*`: every page."
    )
    trusted_proxies: Annotated[list[str], FromCore("access.trusted_proxies")] = pydantic.Field(
        default_factory=list,
        description="Addresses and networks of proxies whose word counts on whom they pass on (`X-Forwarded-For`, "
        "`Forwarded`); `unix`: whoever is at the Unix socket.",
    )
    body_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds in which a request's body must arrive, else 408."
    )
    write_timeout: float = pydantic.Field(
        default=60.0, gt=0, description="Seconds that a client may take nothing of its answer before it is cut off."
    )
    keep_alive: float = pydantic.Field(
        default=15.0,
        ge=0,
        description="Seconds of silence after which a streamed answer gets a comment, also before its first token. "
        "0: never.",
    )
    dds: dict[str, Any] | None = pydantic.Field(
        default=None,
        description="Serve the topics `client/request` and `client/response` too: `domain`, `interface`, `multicast`, "
        "`peers` and `lease` as in the gateway `llama_dds`. Needs anywire-dds. Default: no DDS.",
    )
    keyless: bool = pydantic.Field(
        default=False,
        description="Let DDS clients in where others need a key: this wire carries none. They have the role `use`.",
    )
    max_in_flight: int = pydantic.Field(
        default=256, ge=1, description="Requests of DDS clients at once; further ones are answered with an error."
    )
    shutdown_grace: Annotated[float, FromCore("shutdown_grace")] = pydantic.Field(
        default=10.0, ge=0, description="Seconds that running requests get at close."
    )

    @pydantic.field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        return [checked_origin(each) for each in origins]

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _are_proxies(cls, names: list[str]) -> list[str]:
        return [checked_proxy(each) for each in names]
