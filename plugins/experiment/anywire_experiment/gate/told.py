"""The conditions of ``anywire experiment compare --fail-if``, checked and told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from anywire.errors import ConfigError
from anywire_experiment import outcome
from anywire_experiment.analysis.cautions import sessions_of
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.gate.condition import Condition, condition
from anywire_experiment.gate.evidence import of_one, of_two
from anywire_experiment.gate.judged import Found, judged
from anywire_experiment.outcome.checked_record import checked, read
from anywire_experiment.record.environment import differences

_TIMES = (
    "The records are of different times, so their blocks are no pairs: what has changed on the machine in between is "
    "in the difference. To compare versions without that, make them arms of one plan."
)
_SHOWN = 6


class Checked(NamedTuple):
    text: str
    breached: bool


def check_compared(
    first: Path, second: Path | None, out: Path | None, baseline: str, conditions: Sequence[str]
) -> Checked:
    """What ``anywire experiment compare`` says: two records side by side, and what comes of ``conditions``. Raises
    `typer.BadParameter` for what is wrong in the command."""
    try:
        asked = [condition(each) for each in conditions]
        if second is None and not asked:
            raise ConfigError("give a second record, or conditions for this one with --fail-if")
        if second is None and out is not None:
            raise ConfigError("--out is of two records side by side: give a second one")
        if baseline not in ("A", "B"):
            raise ConfigError(f"--baseline {baseline}: expected A or B")
        parts = [outcome.compared(first, second, out)] if second is not None else []
        found = None
        if asked:
            one, other = (first, second) if second is None or baseline == "A" else (second, first)
            found = judge(asked, one, other)
            parts.append(found.text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    return Checked("\n\n".join(parts), found is not None and found.breached)


def judge(conditions: Sequence[Condition], baseline: Path, candidate: Path | None) -> Checked:
    """The conditions on ``candidate`` beside ``baseline``, both of which have been checked; of one record, which is
    checked here, on the comparisons of its own plan. Raises `RecordError` for a record that is not what was sealed,
    `ConfigError` for conditions about nothing in them."""
    notes: list[str] = []
    with checked(baseline) if candidate is None else read(baseline) as (first, results):
        if candidate is None:
            evidence = list(of_one(first, results))
        else:
            with read(candidate) as (second, others):
                for what in ("statistic", "confidence"):
                    before, after = getattr(results, what), getattr(others, what)
                    if before != after:
                        raise ConfigError(
                            f"{what} of {baseline} is {before}, of {candidate} {after}: they cannot be compared"
                        )
                evidence = list(of_two(first, second))
                notes = [_TIMES, *_environments(first, second)]
    if not evidence:
        raise ConfigError("--fail-if: the records have no arm, workload and metric in common that could be compared")
    found = judged(conditions, evidence, results.confidence)
    lines = ["Conditions", *notes, *(line for each in found for line in _lines(each))]
    return Checked("\n".join(lines), any(each.breached for each in found))


def _lines(found: Found) -> Iterator[str]:
    yield f"{'FAILED' if found.breached else 'passed'}: {found.condition.text}"
    yield from (f"  {each}" for each in found.breaches)
    if found.rest:
        yield f"  {found.rest}"


def _environments(baseline: RawData, candidate: RawData) -> Iterator[str]:
    """What is not the same of machine and software, for it is in the difference too."""
    before, after = (sessions_of(each.folder) for each in (baseline, candidate))
    if before is None or after is None or not before.sessions or not after.sessions:
        return
    said = differences(before.sessions[0].environment, after.sessions[0].environment)
    if said:
        more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        yield f"Not the same: {'; '.join(said[:_SHOWN])}{more}."
