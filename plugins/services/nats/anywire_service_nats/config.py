"""The settings of the service ``nats``."""

from __future__ import annotations

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
