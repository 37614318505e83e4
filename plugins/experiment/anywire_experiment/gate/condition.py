"""What must not be shown: ``slower > 5 %``, ``fails more > 1 point``, ``not equivalent within 10 % in latency``.

    CONDITION  = FINDING [">" NUMBER UNIT] ["in" METRICS] ["of" WORKLOADS] ["over" ARMS]
               | "not equivalent within" NUMBER UNIT ["in" METRICS] ["of" WORKLOADS] ["over" ARMS]
    FINDING    = the word of a metric for a better or worse arm, or "worse", "better", "fails more", "fails less"
    UNIT       = "%", or "points" (percentage points) for shares
    METRICS    = names as in a plan, with commas between; so WORKLOADS, and ARMS

A finding without a metric is of all metrics that have its word: ``slower`` of latency, ttft and itl, ``lower`` of
rates, ``worse`` of everything that is judged. ``slower > 5 %`` is read as in the report: a ratio of more than 1.05.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from anywire.errors import ConfigError
from anywire.near import nearest
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.plan.metric import Metric

SHARES: frozenset[Metric] = frozenset({"failures", "quality"})
"""Metrics that have no ratio, and are judged by their difference in percentage points."""
_NAMES = r"-?[A-Za-z0-9][\w.+-]*(?:\s*,\s*-?[A-Za-z0-9][\w.+-]*)*"
_SHAPE = re.compile(
    r"(?P<what>not equivalent within|[a-z][a-z' ]*?)"
    r"(?:\s*(?P<more>>)\s*|\s+(?=[\d.]))?(?P<number>\d+(?:\.\d+)?)?\s*(?P<unit>%|percent|points?|percentage points?)?"
    rf"(?:\s+in\s+(?P<metrics>{_NAMES}))?(?:\s+of\s+(?P<workloads>{_NAMES}))?(?:\s+over\s+(?P<arms>{_NAMES}))?",
    re.IGNORECASE,
)
_EQUIVALENT = "not equivalent within"
_FAILS = {"fails more": "more", "fails less": "fewer"}
EXAMPLES = (
    "`slower > 5 %`, `lower > 10 % in throughput`, `fails more > 1 point`, `not equivalent within 5 % in latency`"
)


@dataclass(frozen=True)
class Condition:
    """``larger``: whether it is shown by a larger value of the metric, None for one of not being equivalent.
    ``threshold`` is a ratio less 1, or a difference of shares, zero or more. Empty selections are all."""

    text: str
    larger: dict[Metric, bool | None]
    threshold: float
    workloads: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()

    def is_of(self, metric: str, workload: str, arm: str) -> bool:
        """Whether it is about these."""
        chosen = (not self.workloads or workload in self.workloads) and (not self.arms or arm in self.arms)
        return chosen and metric in self.larger


def condition(text: str) -> Condition:
    """Raises `ConfigError`, which says what is wrong and what would do."""
    said = " ".join(text.split())
    found = _SHAPE.fullmatch(said)
    if found is None:
        _wrong(text, f"that is no condition; examples: {EXAMPLES}")
    what = found["what"].lower().strip()
    if (found["more"] is not None or what == _EQUIVALENT) and found["number"] is None:
        _wrong(text, "a number must follow, such as 5 %")
    if found["more"] is None and found["number"] is not None and what != _EQUIVALENT:
        _wrong(text, f"write `>` before the number: {what} > {found['number']} {found['unit'] or '%'}")
    if found["number"] is not None and found["unit"] is None:
        _wrong(text, f"say in which unit {found['number']} is: % for ratios, points for shares")
    larger = _metrics(text, what, _split(found["metrics"]))
    in_points = (found["unit"] or "").lower().startswith(("point", "percentage"))
    if found["number"] is not None:
        other = [name for name in larger if (name in SHARES) != in_points]
        if found["metrics"] is None and len(other) < len(larger):
            # `worse > 5 %` is of those that have a ratio.
            larger = {name: each for name, each in larger.items() if name not in other}
        elif other:
            _wrong(text, f"{other[0]} is judged in {'%' if in_points else 'points'}, and not in {found['unit']}")
    threshold = float(found["number"] or 0) / 100
    if threshold >= 1 and any(each is False for each in larger.values()):
        _wrong(text, "nothing gets smaller by 100 % or more")
    if what == _EQUIVALENT and threshold <= 0:
        _wrong(text, "a margin is more than 0")
    return Condition(said, larger, threshold, _split(found["workloads"]), _split(found["arms"]))


def _metrics(text: str, what: str, named: Sequence[str]) -> dict[Metric, bool | None]:
    """The metrics that it is about, and which way."""
    if unknown := [each for each in named if each not in MEANINGS]:
        near = nearest(unknown[0], MEANINGS)
        _wrong(
            text, f"there is no metric {unknown[0]!r}; {f'did you mean {near!r}? ' if near else ''}metrics: {_all()}"
        )
    chosen: list[Metric] = [each for each in MEANINGS if not named or each in named]
    if what == _EQUIVALENT:
        return dict.fromkeys((each for each in chosen if named or each not in SHARES), None)
    if what in ("worse", "better"):
        return {each: MEANINGS[each].larger_is_better == (what == "better") for each in chosen}
    word = _FAILS.get(what, what)
    found: dict[Metric, bool | None] = {}
    for each in chosen:
        better, worse = MEANINGS[each].words
        if word in (better, worse) and (what not in _FAILS or each == "failures"):
            found[each] = MEANINGS[each].larger_is_better == (word == better)
    if not found:
        _no_finding(text, what, named, chosen)
    return found


def _no_finding(text: str, what: str, named: Sequence[str], chosen: Sequence[Metric]) -> NoReturn:
    words = dict.fromkeys([*_FAILS, "worse", "better", *(word for each in chosen for word in MEANINGS[each].words)])
    if named and any(what in each.words for each in MEANINGS.values()):
        _wrong(text, f"{', '.join(named)} gets {' or '.join(MEANINGS[chosen[0]].words)}, and not {what}")
    near = nearest(what, words)
    _wrong(text, f"{what!r} is no finding; {f'did you mean {near!r}? ' if near else ''}findings: {', '.join(words)}")


def _all() -> str:
    return ", ".join(MEANINGS)


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in names.split(",")) if names else ()


def _wrong(text: str, why: str) -> NoReturn:
    raise ConfigError(f"--fail-if {text!r}: {why}")
