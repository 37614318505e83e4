"""Settings ``on_demand``: agents that `anywire up` starts while tasks wait, beyond those that always run."""

from __future__ import annotations

from typing import Self

import pydantic

MAX_ON_DEMAND = 1000
"""Agents on demand at most."""


class OnDemandConfig(pydantic.BaseModel):
    """Times in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid")

    most: int = pydantic.Field(
        default=0,
        ge=0,
        le=MAX_ON_DEMAND,
        description="Agents that `anywire up` may start beyond those that always run, while tasks wait. 0: none.",
    )
    after: float = pydantic.Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that a task waits for an agent before one more is started for it.",
    )
    idle: float = pydantic.Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds in which an agent on demand was not needed, before it ends: the others had slots enough "
        "for all tasks of this time. Longer than `after`.",
    )

    @pydantic.model_validator(mode="after")
    def _idle_is_longer(self) -> Self:
        if self.idle <= self.after:
            raise ValueError(
                f"idle ({self.idle:g} s) must be longer than after ({self.after:g} s), else agents come and go with "
                "every task"
            )
        return self
