"""What an answer has to hold to be of use: the objective of a plan, by which goodput counts.

objective: {ttft: 500 ms, itl: 50 ms, latency: 2 s}
"""

from __future__ import annotations

import re
from typing import Annotated

import pydantic

from anywire_experiment.plan.section import Section

_SHORT = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s)")
LONGEST_MS = 86_400_000.0


def _milliseconds(value: object) -> object:
    if isinstance(value, str):
        if (found := _TIME.fullmatch(value.strip())) is None:
            raise ValueError(f"a time is a number with its unit, such as 500 ms or 2 s, not {value!r}")
        return float(found[1]) * _SHORT[found[2]]
    raise ValueError(f"a time has a unit: {value} ms or {value} s")


def as_time(milliseconds: float) -> str:
    """``500 ms``, ``2 s``."""
    return f"{milliseconds / 1e3:g} s" if milliseconds >= 1e3 else f"{milliseconds:g} ms"


def _exactly(milliseconds: float) -> str:
    return f"{milliseconds:f} ms"


Time = Annotated[
    float,
    pydantic.Field(gt=0, le=LONGEST_MS, allow_inf_nan=False),
    pydantic.BeforeValidator(_milliseconds),
    pydantic.PlainSerializer(_exactly),
    pydantic.WithJsonSchema({"type": "string", "pattern": f"^{_TIME.pattern}$"}),
]
"""Milliseconds, in a plan with their unit."""


class Objective(Section):
    """What a request must hold: all that is named, and its deadline where it has one. Times count from when it was
    meant to be sent. A request that failed holds nothing."""

    ttft: Time | None = pydantic.Field(None, description="longest time to the first token of a stream, such as 500 ms")
    itl: Time | None = pydantic.Field(
        None, description="longest mean time between the tokens of a stream after its first, such as 50 ms"
    )
    latency: Time | None = pydantic.Field(None, description="longest time to the end of the answer, such as 2 s")

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Objective:
        if self.ttft is None and self.itl is None and self.latency is None:
            raise ValueError("say what an answer must hold: ttft, itl or latency, such as `ttft: 500 ms`")
        return self

    def told(self) -> str:
        """``first token within 500 ms, 50 ms per token, answer within 2 s``."""
        parts = [
            f"first token within {as_time(self.ttft)}" if self.ttft else "",
            f"{as_time(self.itl)} per token" if self.itl else "",
            f"answer within {as_time(self.latency)}" if self.latency else "",
        ]
        return ", ".join(each for each in parts if each)
