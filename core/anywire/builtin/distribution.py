"""Distributions that times and lengths are drawn from."""

from __future__ import annotations

import random
from math import log, sqrt
from typing import Annotated, Any, Literal

import pydantic


class Distribution(pydantic.BaseModel):
    """``constant``: always ``mean``. ``uniform``: mean ± spread. ``normal``: spread is the standard deviation, cut at
    0. ``exponential``: mean. ``lognormal``: with that mean and standard deviation ``spread``."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["constant", "uniform", "normal", "exponential", "lognormal"] = "constant"
    mean: float = pydantic.Field(ge=0, allow_inf_nan=False)
    spread: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)

    def draw(self, rng: random.Random) -> float:
        match self.kind:
            case "constant":
                return self.mean
            case "uniform":
                return max(0.0, rng.uniform(self.mean - self.spread, self.mean + self.spread))
            case "normal":
                return max(0.0, rng.gauss(self.mean, self.spread))
            case "exponential":
                return rng.expovariate(1 / self.mean) if self.mean else 0.0
            case "lognormal":
                return self._lognormal(rng)

    def _lognormal(self, rng: random.Random) -> float:
        if not self.mean:
            return 0.0
        variance = log(1 + (self.spread / self.mean) ** 2)
        return rng.lognormvariate(log(self.mean) - variance / 2, sqrt(variance))


def _constant(value: Any) -> Any:
    return {"mean": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Drawn = Annotated[Distribution, pydantic.BeforeValidator(_constant)]
"""A setting; a bare number stands for a constant."""
