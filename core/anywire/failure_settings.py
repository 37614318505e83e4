"""Settings ``pipeline.retries``, ``pipeline.breaker``, ``pipeline.hedging`` and ``pipeline.preemption``: what is done
when agents fail or are slow. Times are seconds."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

import pydantic

from anywire.messages import Kind

PROFILES: dict[str, dict[str, Any]] = {
    "patient": {"errors": 3, "recovery": 60.0, "longest": 60.0, "call_timeout": 30.0, "probes": 1},
}
"""Thresholds under a name: ``patient`` opens after 3 failures in a row, tries again after 60 s, and counts a call of
more than 30 s as a failure."""


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class RetryConfig(_Section):
    """Sending a task again after its attempt has failed. How often one task is sent is ``pipeline.max_attempts``; this
    is what all tasks together may cost, as in Finagle's retry budget."""

    share: float = pydantic.Field(
        default=0.2,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Tasks that may be sent again for each task that was under way within `window`, counted by model "
        "and tenant. Streams that go on where they were are not counted.",
    )
    floor: int = pydantic.Field(
        default=20,
        ge=0,
        le=1_000_000,
        description="Tasks that may be sent again within `window` however few there are.",
    )
    window: float = pydantic.Field(
        default=10.0, gt=0, allow_inf_nan=False, description="Seconds over which that is counted."
    )
    base: float = pydantic.Field(
        default=0.05,
        ge=0,
        allow_inf_nan=False,
        description="Seconds: a task waits a random time up to this after its first failure, up to twice as long after "
        "each further one. Nothing waits where a link or an agent was lost and another agent that is well serves the "
        "model.",
    )
    longest: float = pydantic.Field(
        default=2.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds of the longest such pause, and of the longest `Retry-After` after which an engine is "
        "asked again; a longer one is told to the client.",
    )
    repeat: tuple[Kind, ...] = pydantic.Field(
        default=get_args(Kind),
        description="Kinds of tasks that are sent again although the lost agent may have run them.",
    )


class BreakerConfig(_Section):
    """When an agent, or one of its links, gets no task for a while. Names and states are those of Envoy's outlier
    detection and of the circuit breaker in Nygard's "Release It!"."""

    profile: Literal["", "patient"] = pydantic.Field(
        default="", description="Thresholds under a name, instead of the defaults below; what is set beside it counts."
    )
    errors: int = pydantic.Field(default=3, ge=0, description="Failures in a row that open it. 0: it never opens.")
    error_rate: float = pydantic.Field(
        default=0.5, gt=0, le=1, description="Share of failures among the last `requests` attempts that opens it."
    )
    requests: int = pydantic.Field(
        default=20, ge=2, le=1000, description="Attempts over which `error_rate` is taken, once there are so many."
    )
    recovery: float = pydantic.Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from opening until it is tried with `probes` tasks.",
    )
    longest: float = pydantic.Field(
        default=30.0, gt=0, allow_inf_nan=False, description="`recovery` doubles up to this while its probes fail."
    )
    probes: int = pydantic.Field(
        default=1, ge=1, le=100, description="Tasks that may be under way at once while it is half-open."
    )
    quarantine_trips: int = pydantic.Field(
        default=5,
        ge=0,
        description="Openings after which an agent is quarantined: it gets no client's task until it has passed a "
        "probe that the pipeline makes up. They are forgotten once it was closed for `longest`. 0: never.",
    )
    quarantine_probe: float = pydantic.Field(
        default=5.0, ge=0.01, allow_inf_nan=False, description="Seconds between two such probes; doubled up to 60."
    )
    slow_start: float = pydantic.Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds in which an agent that is new, or back from a failure, is given its slots one after the "
        "other. 0: all at once.",
    )
    call_timeout: float = pydantic.Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds from sending in which an attempt must be answered, or a stream bring its first token; "
        "else it has failed. 0: no limit.",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_profile(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        named = PROFILES.get(given.get("profile", ""), {}) if isinstance(given.get("profile", ""), str) else {}
        return {**named, **given}


class HedgingConfig(_Section):
    """A second attempt for a stream whose first token is late (Dean and Barroso, "The Tail at Scale", 2013)."""

    share: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of streams that may be sent a second time for it. To send all that are late, (100 - "
        "`percentile`) / 100. 0: none.",
    )
    percentile: float = pydantic.Field(
        default=95.0,
        ge=50,
        lt=100,
        description="A first token is late after this percentile of the model's times to first token.",
    )
    least: float = pydantic.Field(
        default=0.05, ge=0, allow_inf_nan=False, description="Seconds before which none is late."
    )


class PreemptionConfig(_Section):
    """A running stream of low priority gives its slot to an urgent task and goes on later."""

    urgent: int | None = pydantic.Field(
        default=None, description="Least priority of tasks that may take a slot. Unset: nobody gives one."
    )
    below: int = pydantic.Field(default=0, description="Highest priority of streams that give theirs.")
    most: int = pydantic.Field(default=2, ge=1, le=100, description="Times that one stream gives its slot.")

    @pydantic.model_validator(mode="after")
    def _urgent_is_higher(self) -> Self:
        if self.urgent is not None and self.below >= self.urgent:
            raise ValueError(
                f"below is {self.below} and urgent {self.urgent}: below must be lower, or urgent tasks would take "
                "each other's slots"
            )
        return self
