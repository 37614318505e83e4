"""The settings of the service ``nats``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pydantic

from anywire_nats.config import ServerConfig
from anywire_service_nats.config_inbound import CollectorConfig, SubmissionsConfig, WorkerConfig


class NatsServiceConfig(ServerConfig):
    """The connection has the settings of the transport ``nats``; both may use the same servers."""

    option: ClassVar[str] = "services.nats"

    collector: CollectorConfig | None = pydantic.Field(
        default=None,
        description="Count the answers that agents of other orchestrators publish (agent.response.completed and "
        "failed), and publish when a task is complete. Default: off; `{}` turns it on.",
    )
    worker: WorkerConfig | None = pydantic.Field(
        default=None,
        description="Answer requests to agents (agent.requests). Default: off; `{}` turns it on.",
    )
    submissions: SubmissionsConfig | None = pydantic.Field(
        default=None,
        description="Take tasks and deliberations that are published to anywire.submit.chat, completion, embedding and "
        "deliberation. Default: off; `{}` turns it on.",
    )
    envelope: Literal["payload", "flat"] = pydantic.Field(
        default="payload",
        description="Form of published messages. `payload`: event_type, idempotency_key, correlation_id, timestamp, "
        "producer, and the fields in `payload`; `flat`: event_id, case_id, ts, producer, trace_id, with the fields "
        "beside them.",
    )
    producer: str = pydantic.Field(
        default="anywire",
        min_length=1,
        max_length=100,
        pattern=r"^[ -~]+$",
        description="Name that published messages give as their producer.",
    )
    publish: list[Literal["answers", "deliberations", "tasks"]] = pydantic.Field(
        default=["answers", "deliberations"],
        description="What is published. `answers`: agent.response.completed and failed, one for each member of a "
        "deliberation; `deliberations`: orchestration.task.dispatched, orchestration.deliberation.completed and "
        "failed, deliberation.completed and failed; `tasks`: task.completed and failed, for each task.",
    )
    folder: Path | None = pydantic.Field(
        default=None,
        description="Folder of the outbox, for this user alone. Default: `nats` in the fleet's state folder.",
    )
    outbox_messages: int = pydantic.Field(
        default=500_000, ge=1, le=100_000_000, description="Messages that may wait in the outbox."
    )
    outbox_bytes: int = pydantic.Field(
        default=512 * 1024 * 1024, ge=1024, le=2**40, description="Bytes of the messages that may wait in the outbox."
    )
    make_streams: bool = pydantic.Field(
        default=True,
        description="Make a stream for subjects that no stream of the server keeps. A stream that is there is never "
        "changed.",
    )
    stream_bytes: int = pydantic.Field(
        default=256 * 1024 * 1024,
        ge=1024,
        le=2**50,
        description="Bytes of each stream that is made; the oldest messages make room.",
    )
    stream_age: float = pydantic.Field(
        default=7 * 86400.0,
        ge=1,
        le=10 * 365 * 86400,
        allow_inf_nan=False,
        description="Seconds that a stream which is made keeps a message.",
    )
    stream_replicas: int = pydantic.Field(
        default=1, ge=1, le=5, description="Servers of the cluster that keep each stream which is made."
    )
    duplicate_window: float = pydantic.Field(
        default=120.0,
        ge=0.1,
        le=86400,
        allow_inf_nan=False,
        description="Seconds in which a stream that is made knows a message again by its id.",
    )
