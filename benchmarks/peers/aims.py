"""What Anywire is to reach beside the fastest router of its kind, and beside an earlier commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from peers.figures import BY_NAME, Ratio, Rounds, ratio

REFERENCE = "vllm-router"


class Aim(NamedTuple):
    """``system``'s figure is to be at most ``bound`` times the other's; at least, where more is better."""

    system: str
    figure: str
    bound: float

    @property
    def at_least(self) -> bool:
        return BY_NAME[self.figure].more_is_better


BESIDE_ROUTER = (
    Aim("anywire-dds", "many_rate", 1.0),
    Aim("anywire-dds", "one_p50", 1.3),
    Aim("anywire-dds", "many_cpu", 1.2),
    Aim("anywire-dds", "burst_rate", 2.0),
    Aim("anywire-dds", "paced_way", 1.5),
    Aim("anywire-dds", "paced_cpu", 1.5),
    Aim("anywire-dds-busy", "one_p50", 1.0),
    Aim("anywire-dds-openai", "many_rate", 0.6),
    Aim("anywire-dds-openai", "one_p50", 2.0),
    Aim("anywire-dds-openai", "burst_rate", 1.0),
)
"""Against `REFERENCE`."""
BESIDE_BEFORE = (
    Aim("anywire-dds", "many_rate", 1.5),
    Aim("anywire-dds", "many_cpu", 1 / 1.5),
    Aim("anywire-dds-openai", "many_rate", 1.5),
    Aim("anywire-dds-openai", "many_cpu", 1 / 1.5),
)
"""Against the same system of the earlier commit."""


class Outcome(NamedTuple):
    """How an aim stands. ``missed_by`` is the factor that is lacking; 1 or less where the median reaches it."""

    aim: Aim
    beside: str
    ratio: Ratio

    @property
    def missed_by(self) -> float:
        return self.aim.bound / self.ratio.median if self.aim.at_least else self.ratio.median / self.aim.bound

    @property
    def reached(self) -> bool:
        return self.missed_by <= 1


def outcomes(systems: Mapping[str, Rounds], revision: str = "") -> Sequence[Outcome]:
    """Every aim whose systems were measured in the same rounds; ``revision`` is what the earlier commit's names end
    with."""
    asked = [(aim, REFERENCE) for aim in BESIDE_ROUTER]
    if revision:
        asked += [(aim, aim.system + revision) for aim in BESIDE_BEFORE]
    found = []
    for aim, beside in asked:
        if aim.system in systems and beside in systems:
            reached = ratio(systems[aim.system], systems[beside], aim.figure)
            if reached is not None:
                found.append(Outcome(aim, beside, reached))
    return found
