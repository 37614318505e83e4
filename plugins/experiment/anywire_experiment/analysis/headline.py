"""The main findings of an experiment in one sentence, which names arms and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from anywire_experiment.analysis.results import ComparisonFigures
from anywire_experiment.analysis.wording import MANY, MINUS, meaning_of
from anywire_experiment.statistics import Outcome

MOST_CLAUSES = 5
"""Of the sentence; the findings below it have the rest."""
MOST_PLACES = 3
"""Workloads that a clause names one by one; of more, it names the two with the least and the largest effect."""
MOST_NAMES, NAME_LETTERS = 5, 70
"""Arms that a clause names, and letters of their names together; of more, how many they are."""
PLACE_LETTERS = 120
"""Letters of the workloads and levels that a clause names; of more, how many they are."""
MOST_LETTERS = 700
"""Of the sentence, as long as it has two clauses or more."""
_NARROW = 0.03
"""Width of an interval below which a tenth of a percent says something."""
_UNDECIDED = 2
"""Rank of clauses that show nothing."""
_SHOWN = (Outcome.BETTER, Outcome.WORSE)


class _Clause(NamedTuple):
    """What was found alike of ``names``. Of a difference that is shown it is one name; ``words`` are those of the
    verdict, empty where there is none."""

    names: list[str]
    words: str
    found: list[ComparisonFigures]

    @property
    def outcome(self) -> Outcome | None:
        verdict = self.found[0].verdict
        return verdict.outcome if verdict is not None else None

    @property
    def rank(self) -> int:
        """Differences come first, then what is alike, then what is not told."""
        if self.outcome in _SHOWN:
            return 0
        return 1 if self.outcome is Outcome.EQUIVALENT else _UNDECIDED if self.outcome is not None else 3

    @property
    def weight(self) -> tuple[int, float]:
        """How much it says: clauses of less are left out first."""
        return (3, 1, 0, 2)[self.rank], max(map(_apart, self.found))


def headline(
    comparisons: Sequence[ComparisonFigures],
    arms: Sequence[str],
    compared: str,
    baseline: str,
    levels: Mapping[str, Mapping[str, str]],
) -> str:
    """What was found of each level of the factor ``compared`` beside ``baseline``, by the first metric of each workload
    that can be judged; of other metrics what that one does not say. ``levels`` are those of each arm."""
    if len(arms) < 2:
        return f"One arm was measured ({', '.join(arms)}), so nothing is compared."
    given = [each for each in comparisons if _is_comparable(each)]
    names = list(dict.fromkeys(levels[each.candidate][compared] for each in comparisons))
    if not given:
        return f"Nothing could be judged of {few(names)} beside {baseline}{_why_nothing(comparisons)}."
    clauses = _clauses(_told(given), compared, levels)
    by_weight = sorted(clauses, key=lambda each: each.weight, reverse=True)[:MOST_CLAUSES]
    while len(sentence := _sentence(clauses, by_weight, baseline)) > MOST_LETTERS and len(by_weight) > 1:
        by_weight.pop()
    more = "; the findings tell more" if len(by_weight) < len(clauses) else ""
    # A name stays as it is.
    first = sentence[0] if sentence.startswith(tuple(names)) else sentence[0].upper()
    return f"{first}{sentence[1:]}{more}."


def _sentence(clauses: Sequence[_Clause], chosen: Sequence[_Clause], baseline: str) -> str:
    """Of the clauses that were chosen, without its end."""
    kept = sorted((each for each in clauses if each in chosen), key=lambda each: each.rank)
    told = [_said(each, baseline, with_level=at == 0) for at, each in enumerate(kept) if each.rank != _UNDECIDED]
    if undecided := [each for each in kept if each.rank == _UNDECIDED]:
        told.append(_not_told_apart(undecided, baseline))
    return "; ".join(told)


def _why_nothing(comparisons: Sequence[ComparisonFigures]) -> str:
    """Which arms failed more requests or fewer than the baseline; where none did, the reason that all comparisons have,
    or where a reader finds out."""
    found = [each for each in comparisons if each.metric == "failures" and each.difference is not None]
    apart = [each for each in found if each.difference and not each.difference.low <= 0.0 <= each.difference.high]
    told = "; ".join(f"{each.sentence} (under {each.workload})" for each in apart[:MOST_PLACES])
    if told:
        return f", but {told}"
    reasons = {each.reason for each in comparisons}
    return f": {reasons.pop()}" if len(reasons) == 1 and "" not in reasons else "; the list says why"


def main_metrics(comparisons: Iterable[ComparisonFigures]) -> dict[str, str]:
    """The first metric of each workload, in the plan's order, of which there is a comparison."""
    found: dict[str, str] = {}
    for each in comparisons:
        if _is_comparable(each):
            found.setdefault(each.workload, each.metric)
    return found


def _is_comparable(each: ComparisonFigures) -> bool:
    return each.comparison is not None or each.shares is not None


def _told(given: Sequence[ComparisonFigures]) -> list[ComparisonFigures]:
    """The comparisons that the sentence is of."""
    main = main_metrics(given)
    by_main = {
        (each.workload, each.candidate): each.verdict.outcome
        for each in given
        if main[each.workload] == each.metric and each.verdict is not None
    }

    told: set[tuple[str, str, Outcome]] = set()

    def adds(each: ComparisonFigures) -> bool:
        """Whether it shows a difference that the first metric does not, nor one before it."""
        if each.verdict is None or each.verdict.outcome not in _SHOWN:
            return False
        key = (each.workload, each.candidate, each.verdict.outcome)
        if key in told or by_main.get(key[:2]) is each.verdict.outcome:
            return False
        told.add(key)
        return True

    return [each for each in given if each.metric == main[each.workload] or adds(each)]


def _clauses(
    told: Sequence[ComparisonFigures], compared: str, levels: Mapping[str, Mapping[str, str]]
) -> list[_Clause]:
    by_name: dict[tuple[str, str], list[ComparisonFigures]] = {}
    for each in told:
        words = each.verdict.words if each.verdict is not None else ""
        by_name.setdefault((levels[each.candidate][compared], words), []).append(each)
    made: dict[tuple[str, ...], _Clause] = {}
    for (name, words), found in by_name.items():
        clause = _Clause([name], words, found)
        # Sizes are each arm's own; what has none is told of several at once.
        key = (name, words) if clause.rank == 0 else ("", words, *map(_place, found))
        if key in made:
            made[key].names.append(name)
        else:
            made[key] = clause
    return list(made.values())


def _said(clause: _Clause, baseline: str, *, with_level: bool) -> str:
    names, found = few(clause.names), clause.found
    several = len(clause.names) > 1
    if clause.rank == 0:
        return f"{names} is {clause.words} than {baseline} {_sizes(found, with_level=with_level)}"
    where = _places(found)
    if clause.rank == 1:
        within = clause.words.replace("equivalent", f"equivalent to {baseline}", 1)
        return f"{names} {'are each' if several else 'is'} {within} in {where}"
    return f"{names} {'are' if several else 'is'} not judged beside {baseline} in {where}: the findings say why"


def _not_told_apart(clauses: Sequence[_Clause], baseline: str) -> str:
    if len(clauses) == 1:
        (only,) = clauses
        seen = f" ({_seen(only.found[0])})" if len(only.found) == len(only.names) == 1 else ""
        return f"there is not enough data to tell {few(only.names)} from {baseline} in {_places(only.found)}{seen}"
    parts = [f"{few(each.names)} in {_places(each.found)}" for each in clauses]
    return f"there is not enough data to tell from {baseline}: {', '.join(parts)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return _first(names, MOST_NAMES, NAME_LETTERS)


def _first(given: Sequence[str], most: int, letters: int) -> str:
    """As many as there is room for, one at least, and how many more there are."""
    if len(given) <= most and sum(map(len, given)) <= letters:
        return _listed(given)
    lengths = accumulate(map(len, given[: most - 1]))
    kept = given[: max(sum(length <= letters for length in lengths), 1)]
    more = len(given) - len(kept)
    return _listed([*kept, f"{more} more"]) if more else _listed(kept)


def _place(each: ComparisonFigures) -> str:
    others = "".join(f", {factor} {label}" for factor, label in each.levels.items())
    return f"{meaning_of(each.metric).title} under {each.workload}{others}"


def _places(found: Sequence[ComparisonFigures]) -> str:
    """Where it was found, the metric said once where it is the same."""
    told = [_place(found[0])]
    for before, each in pairwise(found):
        title = f"{meaning_of(each.metric).title} under "
        told.append(_place(each).removeprefix(title) if before.metric == each.metric else _place(each))
    return _first(told, MOST_PLACES, PLACE_LETTERS)


def _sizes(found: Sequence[ComparisonFigures], *, with_level: bool) -> str:
    """By how much, and where: of each, or of the two that are least and most."""
    if len(found) <= MOST_PLACES and (len(found) < 3 or sum(len(_place(each)) for each in found) <= PLACE_LETTERS):
        return _listed([f"by {_size(each, with_level and at == 0)} in {_place(each)}" for at, each in enumerate(found)])
    ordered = sorted(found, key=_apart)
    least, most = (f"{_size(ordered[at], with_level and at == 0)} in {_place(ordered[at])}" for at in (0, -1))
    return f"in {len(found)} cases, by {least} to {most}"


def _apart(each: ComparisonFigures) -> float:
    """How far two arms are apart, for an order."""
    if each.comparison is not None:
        ratio = each.comparison.ratio.value
        return max(ratio, 1.0 / ratio) - 1.0
    return abs(each.shares.difference.value) if each.shares is not None else 0.0


def _limits(each: ComparisonFigures) -> tuple[tuple[float, float, float], float, str]:
    """Effect, its limits, their level and the unit."""
    if each.comparison is not None:
        ratio = each.comparison.ratio
        return (ratio.value - 1.0, ratio.low - 1.0, ratio.high - 1.0), ratio.level, "%"
    assert each.shares is not None
    apart = each.shares.difference
    return (apart.value, apart.low, apart.high), apart.level, "percentage points"


def _size(each: ComparisonFigures, with_level: bool) -> str:
    """Of a difference that is shown: ``18 % (95 % interval 9 to 28 %)``, or a factor."""
    (value, *ends), level, unit = _limits(each)
    name = f"{100 * level:g} % interval " if with_level else ""
    if each.comparison is not None and not 1.0 / MANY < 1.0 + value < MANY:
        times, *limits = (1.0 + at if value > 0.0 else 1.0 / (1.0 + at) for at in (value, *ends))
        low, high = sorted(limits)
        return f"a factor of {_times(times)} ({name}{_times(low)} to {_times(high)})"
    low, high = sorted(end if value >= 0.0 else -end for end in ends)
    told = [_fixed(at, high - low) for at in (abs(value), low, high)]
    return f"{told[0]} {unit} ({name}{told[1]} to {told[2]}{' %' if unit == '%' else ''})"


def _times(factor: float) -> str:
    return f"{factor:.2g}" if factor < 100 else f"{factor:.0f}"


def _seen(each: ComparisonFigures) -> str:
    """``+3 %, 95 % interval −4 to +11 %``."""
    (value, low, high), level, unit = _limits(each)
    told = [_fixed(at, high - low, "+") for at in (value, low, high)]
    return f"{told[0]} {unit}, {100 * level:g} % interval {told[1]} to {told[2]}{' %' if unit == '%' else ''}"


def _fixed(share: float, width: float, sign: str = "") -> str:
    text = f"{100 * share:{sign}.{0 if width >= _NARROW else 1}f}"
    return text.lstrip("+-") if not text.strip("+-0.") else text.replace("-", MINUS)
