"""The settings of what this service hears: answers to count, requests to agents, submissions."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.service import ServiceConfig

NAME = r"^[A-Za-z0-9_-]+$"
"""What a durable consumer can be called."""


class HeardConfig(ServiceConfig):
    """What consumers have in common."""

    redelivery: float = pydantic.Field(
        default=10.0,
        ge=0.5,
        le=600,
        allow_inf_nan=False,
        description="Seconds after which a message is delivered again whose orchestrator says nothing of it: it was "
        "killed, or the connection was. Counts where the consumer is made.",
    )


class CollectorConfig(HeardConfig):
    """Answers that agents of others publish."""

    durable: str = pydantic.Field(
        default="anywire-collector",
        pattern=NAME,
        max_length=100,
        description="Name of the consumer of answers. Two orchestrators that both count need two names.",
    )
    subject: str = pydantic.Field(
        default="agent.response.>",
        pattern=r"^[A-Za-z0-9_.*>-]+$",
        max_length=200,
        description="Subject of answers. Its last part is `completed` or `failed`.",
    )
    time_limit: float = pydantic.Field(
        default=300.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds from the first answer to a task until the task ends without those that are missing.",
    )
    keep: float = pydantic.Field(
        default=3600.0,
        gt=0,
        le=2_592_000,
        allow_inf_nan=False,
        description="Seconds for which a task that has ended can be asked for.",
    )
    max_tasks: int = pydantic.Field(default=10_000, ge=1, description="Tasks that are kept.")
    max_bytes: int = pydantic.Field(
        default=256 * 1024 * 1024, ge=1024 * 1024, description="Bytes of all answers that are kept."
    )
    tenant: str = pydantic.Field(
        default="", max_length=256, description="Tenant whose callers see what is collected, beside who observes."
    )


class InboundConfig(HeardConfig):
    """What requests of each kind have in common."""

    tenant: str = pydantic.Field(
        default="", max_length=256, description="Tenant of requests that name none and show no key."
    )
    keyless: bool = pydantic.Field(
        default=False,
        description="Let whoever may publish to the subject in with the role use, where clients need keys.",
    )
    at_once: int = pydantic.Field(
        default=16, ge=1, le=1000, description="Requests that are worked on at once. The others stay in their stream."
    )
    keep_trying: float = pydantic.Field(
        default=3600.0,
        ge=0,
        le=2_592_000,
        allow_inf_nan=False,
        description="Seconds for which a request that no agent can take is tried again; then it fails.",
    )
    max_starts: int = pydantic.Field(
        default=5,
        ge=1,
        description="Times a request is begun whose orchestrator was killed meanwhile; then it fails.",
    )


class WorkerConfig(InboundConfig):
    """Requests to agents."""

    durable: str = pydantic.Field(
        default="anywire-agent-requests",
        pattern=NAME,
        max_length=100,
        description="Name of the consumer of requests. Orchestrators with the same one share the work.",
    )
    model: str = pydantic.Field(
        default="", max_length=256, description="Model that answers. Default: the first that is served, by name."
    )
    max_tokens: int = pydantic.Field(
        default=2048, ge=1, description="Tokens of an answer at most; a request's `token_budget` may be less."
    )
    roles: Path | None = pydantic.Field(
        default=None, description="Folder with a YAML file for each further role, as the service deliberation has it."
    )
    timeout: float = pydantic.Field(
        default=300.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds for an answer; `constraints.timeout_seconds` of a request may be less.",
    )


class SubmissionsConfig(InboundConfig):
    """Tasks and deliberations that are submitted by message."""

    durable: str = pydantic.Field(
        default="anywire-submissions",
        pattern=NAME,
        max_length=100,
        description="Name of the consumer of submissions. Orchestrators with the same one share them.",
    )
    max_open: int = pydantic.Field(
        default=10_000,
        ge=1,
        description="Submissions that have not ended; further ones stay in their stream.",
    )
    reply_prefix: str = pydantic.Field(
        default="_INBOX.",
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.$-]+$",
        description="Beginning of subjects to which replies are sent; others are passed over.",
    )
