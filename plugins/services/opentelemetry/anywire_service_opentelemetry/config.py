"""The settings of the service ``opentelemetry``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import pydantic

from anywire.service import ServiceConfig

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_OWN_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"}
)
LogLevel = Literal["off", "debug", "info", "warning", "error"]


class OpenTelemetryConfig(ServiceConfig):
    """Times in seconds."""

    endpoint: str = pydantic.Field(
        "http://127.0.0.1:4318",
        description="Address of the receiver that speaks OTLP over HTTP. `/v1/traces`, `/v1/metrics` and `/v1/logs` "
        "are added.",
    )
    headers: dict[str, pydantic.SecretStr] = pydantic.Field(
        default_factory=dict, description="Headers of each request to the receiver, such as `authorization`."
    )
    ca: Path | None = pydantic.Field(
        None, description="Certificate (PEM) of the authority of the receiver. Default: those of the system."
    )
    timeout: float = pydantic.Field(10.0, gt=0, le=600, description="Seconds that the receiver may take to answer.")
    traces: bool = pydantic.Field(True, description="Send traces.")
    ratio: float = pydantic.Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the requests that are traced, of those whose client does not say so itself.",
    )
    follow_clients: bool = pydantic.Field(
        True,
        description="Trace a request if its `traceparent` says that it is sampled, and only then. `false`: `ratio` "
        "decides for every request.",
    )
    content: bool = pydantic.Field(
        False, description="Put the texts of requests into spans. They may hold what nobody else should read."
    )
    content_chars: int = pydantic.Field(
        8192, ge=1, le=1_000_000, description="Characters of the texts of one request that a span has at most."
    )
    metrics: bool = pydantic.Field(True, description="Send the numbers that `/metrics` shows.")
    metrics_interval: float = pydantic.Field(
        15.0, ge=0.1, le=3600, description="Seconds between two times that the numbers are sent."
    )
    tenant_metrics: bool = pydantic.Field(False, description="Name tenants in the numbers that are sent, 200 at most.")
    logs: LogLevel = pydantic.Field("info", description="Send lines of the log of this level and above; `off`: none.")
    interval: float = pydantic.Field(
        1.0, ge=0.01, le=600, description="Seconds that spans and lines wait for further ones before they are sent."
    )
    buffer: int = pydantic.Field(
        20_000,
        ge=100,
        le=10_000_000,
        description="Spans, and lines of the log, that are kept while the receiver is away. Further ones are dropped "
        "and counted.",
    )
    service_name: str = pydantic.Field(
        "anywire", min_length=1, max_length=256, description="`service.name` of the orchestrator in traces."
    )
    attributes: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Further attributes of the resource, such as `deployment.environment.name`."
    )

    @pydantic.field_validator("endpoint")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an address such as http://127.0.0.1:4318 (OTLP over HTTP, not gRPC)")
        if parts.username or parts.password:
            raise ValueError("has a user or a password: use headers")
        if not text.isprintable() or " " in text or _port(parts) == 0:
            raise ValueError("must be an address such as http://127.0.0.1:4318, with a port from 1 to 65535")
        return text.rstrip("/")

    @pydantic.field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, pydantic.SecretStr]) -> dict[str, pydantic.SecretStr]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError("has a name that no header can have, or that is set by the service itself")
            text = value.get_secret_value()
            if not (text.isascii() and text.isprintable()):
                raise ValueError(f"the value of {name} must be printable characters of ASCII, without a line break")
        return headers


def _port(parts: SplitResult) -> int | None:
    """0 for one that cannot be."""
    try:
        return parts.port
    except ValueError:
        return 0
