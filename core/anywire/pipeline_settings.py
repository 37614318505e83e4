"""The pipeline's own settings."""

from __future__ import annotations

from typing import Any

import pydantic

from anywire.demand import MAX_MODELS
from anywire.failure_settings import BreakerConfig, HedgingConfig, PreemptionConfig, RetryConfig
from anywire.submission import MAX_NAME_CHARS
from anywire.transport import MAX_MESSAGE_BYTES

LIVE = (
    "accept_timeout",
    "agent_wait",
    "deadline",
    "early_refusal",
    "fallbacks",
    "first_token_timeout",
    "max_attempts",
    "max_hops",
    "max_tokens",
    "next_token_timeout",
    "reader_timeout",
    "retries.base",
    "retries.floor",
    "retries.longest",
    "retries.share",
    "tenant_queue_share",
)
"""What may change while the pipeline runs: who uses it looks it up each time. Tasks under way have what they began
with, where that was decided when they came."""


class PipelineConfig(pydantic.BaseModel):
    """Settings ``pipeline.*``; times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    deadline: float = pydantic.Field(
        default=600.0, gt=0, allow_inf_nan=False, description="Seconds for a task whose client names no deadline."
    )
    max_attempts: int = pydantic.Field(default=3, ge=1, description="Times a task is sent to an agent before it fails.")
    accept_timeout: float | None = pydantic.Field(
        default=None,
        gt=0,
        description="Seconds in which an agent must say that it has a task sent to it. Default: two of its leases.",
    )
    first_token_timeout: float = pydantic.Field(
        default=0.0, ge=0, description="Seconds from acceptance to a stream's first token. 0: no limit."
    )
    next_token_timeout: float = pydantic.Field(
        default=60.0, ge=0, description="Seconds between two chunks of a stream whose reader takes them. 0: no limit."
    )
    reader_timeout: float = pydantic.Field(
        default=60.0,
        gt=0,
        description="Seconds a stream's reader may take nothing before its stream ends with `reader_stalled`.",
    )
    window: int = pydantic.Field(
        default=64, ge=2, le=65536, description="Chunks an agent may send before the reader has taken them."
    )
    agent_wait: float = pydantic.Field(
        default=5.0, ge=0, description="Seconds a task waits while no agent serves its model."
    )
    retries: RetryConfig = pydantic.Field(
        default=RetryConfig(), description="Sending a task again whose attempt has failed."
    )
    breaker: BreakerConfig = pydantic.Field(
        default=BreakerConfig(), description="When an agent or a link that fails gets no task for a while."
    )
    hedging: HedgingConfig = pydantic.Field(
        default=HedgingConfig(), description="A second attempt for a stream whose first token is late."
    )
    preemption: PreemptionConfig = pydantic.Field(
        default=PreemptionConfig(), description="Streams of low priority that give their slot to urgent tasks."
    )
    fallbacks: dict[str, tuple[str, ...]] = pydantic.Field(
        default_factory=dict,
        description="For a model, others that answer in its place, in order: where nobody serves it, or its attempts "
        "have failed. Not because it is busy.",
    )
    tenant_queue_share: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of `scheduler.max_queue_size` that waiting tasks of one tenant may take; further ones are "
        "refused (429).",
    )
    max_tokens: int = pydantic.Field(
        default=0,
        ge=0,
        description="Tokens of the longest answer that a request may ask for; longer ones are refused (400). A request "
        "that names no length is taken. 0: no limit.",
    )
    early_refusal: bool = pydantic.Field(
        default=True,
        description="Refuse a task (429) that by the measured pace would not be answered by its deadline: at once, or "
        "when its turn comes too late.",
    )
    resume: bool = pydantic.Field(
        default=True, description="Resume a stream on another agent when its agent is lost, if the engine can."
    )
    resume_bytes: int = pydantic.Field(
        default=1024 * 1024,
        ge=0,
        description="Bytes of a stream's text that are kept for resuming it; a longer one is not resumed any more.",
    )
    max_body_bytes: int = pydantic.Field(
        default=MAX_MESSAGE_BYTES, ge=1024, description="Bytes of the largest request; larger ones are refused (413)."
    )
    max_hops: int = pydantic.Field(default=8, ge=0, description="Orchestrators that may pass a task on to another one.")
    explained_tasks: int = pydantic.Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Tasks that have ended and are kept with how their agents were chosen (`anywire explain`).",
    )

    @pydantic.field_validator("fallbacks", mode="before")
    @classmethod
    def _are_lists(cls, fallbacks: Any) -> Any:
        for model, others in fallbacks.items() if isinstance(fallbacks, dict) else ():
            if isinstance(others, str):
                raise ValueError(f"the fallbacks of {model!r} are a list of models: [{others[:MAX_NAME_CHARS]}]")
        return fallbacks

    @pydantic.field_validator("fallbacks")
    @classmethod
    def _are_others(cls, fallbacks: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for model, others in fallbacks.items():
            if model in others:
                raise ValueError(f"{model!r} cannot be a fallback of itself")
            if len(others) > MAX_MODELS:
                raise ValueError(f"{model!r} has {len(others)} fallbacks, at most {MAX_MODELS} are possible")
            if any(not 0 < len(each) <= MAX_NAME_CHARS for each in (model, *others)):
                raise ValueError(f"the names of models have 1 to {MAX_NAME_CHARS} characters (of {model[:40]!r})")
        return fallbacks

    def take(self, newer: PipelineConfig) -> None:
        """Have the values of ``newer`` from now on, of the settings in `LIVE`."""
        for name in LIVE:
            *above, last = name.split(".")
            own: pydantic.BaseModel = self
            theirs: pydantic.BaseModel = newer
            for part in above:
                own, theirs = getattr(own, part), getattr(theirs, part)
            setattr(own, last, getattr(theirs, last))
