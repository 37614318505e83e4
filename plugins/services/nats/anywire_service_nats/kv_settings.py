"""The settings of the store ``nats``."""

from __future__ import annotations

from typing import ClassVar

import pydantic

from anywire_nats.config import ServerConfig


class NatsStoreConfig(ServerConfig):
    """The connection has the settings of the transport ``nats``; both may use the same servers."""

    option: ClassVar[str] = "services.deliberation.store"

    bucket: str = pydantic.Field(
        "anywire-deliberations",
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=100,
        description="Key-value bucket, which is made if it is missing. Orchestrators with the same bucket take over "
        "from each other; others need another one.",
    )
    replicas: int = pydantic.Field(
        1, ge=1, le=5, description="Servers of a cluster that each keep the bucket, when it is made."
    )
    max_bytes: int = pydantic.Field(
        1024**3,
        ge=1024**2,
        description="Bytes that the bucket may hold, when it is made. When it is full, new deliberations are refused.",
    )
    lease: float = pydantic.Field(
        10.0,
        ge=1,
        le=300,
        allow_inf_nan=False,
        description="Seconds without a sign of life of its orchestrator after which another one takes over. Not "
        "counted while the servers are away.",
    )
    patience: float = pydantic.Field(
        10.0,
        gt=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds that a write or a read waits for servers that are away, before it fails.",
    )
