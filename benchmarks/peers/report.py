"""A run as tables, for a terminal and in Markdown."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from peers.aims import REFERENCE, outcomes
from peers.figures import BY_NAME, Figure, Figures, Ratio, medians, ratio
from peers.rounds import Measured

MAIN = ("one_p50", "many_rate", "many_cpu", "burst_rate", "paced_way", "paced_cpu")
FURTHER = (
    "one_p99", "many_p99", "paced_way_p99", "burst_first", "one_cpu", "burst_cpu",
    "one_wakeups", "many_wakeups", "burst_wakeups", "paced_wakeups", "ready", "memory",
)  # fmt: skip
NOTHING = "–"
QUIET = 0.3
"""Cores that others may use before a run says that it was disturbed."""
TITLE_WIDTH = 14
"""Letters of a line of a column's title, in a terminal."""


class Run(msgspec.Struct):
    """Everything that a run found and was asked for, as it is kept in a file."""

    when: str
    machine: str
    commit: str
    rounds: int
    seconds: float
    seed: int
    load: tuple[float, float]
    """The machine's load average before and after."""
    order: list[str]
    """The systems as they stand in tables."""
    versions: dict[str, str] = {}
    left_out: dict[str, str] = {}
    """Why systems were not measured."""
    suffix: str = ""
    """What the names of an earlier commit's systems end with."""
    measured: list[Measured] = []

    def failures(self) -> dict[str, str]:
        """How often each system gave a wrong answer or none, with the first one."""
        counts: dict[str, int] = defaultdict(int)
        first: dict[str, str] = {}
        for each in self.measured:
            if each.errors:
                counts[each.system] += each.errors
                first.setdefault(each.system, each.error)
        return {name: f"{count} errors, the first: {first[name]}" for name, count in counts.items()}

    def sound(self) -> dict[str, dict[int, Figures]]:
        """The rounds of each system that never failed."""
        failed, found = self.failures(), defaultdict[str, dict[int, Figures]](dict)
        for each in self.measured:
            if each.system not in failed:
                found[each.system][each.round] = each.figures
        return {name: found[name] for name in self.order if name in found}


class Table(NamedTuple):
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        titles = [textwrap.wrap(each, TITLE_WIDTH) or [""] for each in self.head]
        height = max(map(len, titles))
        lines = [*zip(*([""] * (height - len(each)) + each for each in titles), strict=True), *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        shown = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        return "\n".join([self.title, *(line.rstrip() for line in shown)])

    def as_markdown(self) -> str:
        def row(cells: Iterable[str]) -> str:
            return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"

        rule = row(["---", *["---:"] * (len(self.head) - 1)])
        return "\n".join([f"{self.title}\n", row(self.head), rule, *map(row, self.rows)])


def tables(run: Run) -> list[Table]:
    """All tables of a run that have a row."""
    systems = run.sound()
    middle = {name: medians(rounds) for name, rounds in systems.items()}
    made = [
        _figures("Medians of all rounds; times in microseconds", run, middle, MAIN),
        _figures("Further figures", run, middle, FURTHER),
    ]
    if REFERENCE in systems:
        beside = {name: REFERENCE for name in systems if name != REFERENCE}
        made.append(_ratios(f"Times the figure of {REFERENCE}, by round: median (95 % interval)", systems, beside))
    if run.suffix:
        beside = {name: name + run.suffix for name in systems if name + run.suffix in systems}
        made.append(_ratios(f"Times the figure of the same system{run.suffix}", systems, beside))
    made.append(_aims(run, systems))
    return [each for each in made if each.rows]


def notes(run: Run) -> list[str]:
    """What is to be known beside the tables."""
    loud = max((each.others for each in run.measured), default=0.0)
    count = len({each.round for each in run.measured})
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    found = [
        f"{run.when}, {run.machine}, commit {run.commit}; {count} rounds, {run.seconds:g} s a phase, seed {run.seed}; "
        f"load {run.load[0]:.1f} before, {run.load[1]:.1f} after; others used up to {loud:.2f} cores in a phase",
        "the machine was not quiet: only ratios of processor time can be trusted" if loud > QUIET else "",
        f"versions: {versions}" if versions else "",
        *(f"failed: {name}: {what}" for name, what in run.failures().items()),
        *(f"left out: {name}: {why}" for name, why in run.left_out.items()),
    ]
    return [each for each in found if each]


def shown(value: float | None, figure: Figure) -> str:
    if value is None:
        return NOTHING
    if figure.more_is_better and value >= 10_000:
        return f"{value / 1000:.1f} k"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shown_ratio(found: Ratio | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def _figures(title: str, run: Run, middle: Mapping[str, Figures], names: Sequence[str]) -> Table:
    rows = []
    failed = run.failures()
    for name in run.order:
        if name in failed:
            rows.append([f"{name} (failed)", *[NOTHING] * len(names)])
        elif name in middle:
            rows.append([name, *(shown(middle[name].get(each), BY_NAME[each]) for each in names)])
    return Table(title, ["", *(BY_NAME[each].title for each in names)], rows)


def _ratios(title: str, systems: Mapping[str, Mapping[int, Figures]], beside: Mapping[str, str]) -> Table:
    rows = [
        [name, *(shown_ratio(ratio(systems[name], systems[other], each)) for each in MAIN)]
        for name, other in beside.items()
    ]
    return Table(title, ["", *(BY_NAME[each].title for each in MAIN)], rows)


def _aims(run: Run, systems: Mapping[str, Mapping[int, Figures]]) -> Table:
    rows = []
    for each in outcomes(systems, run.suffix):
        bound = f"{'≥' if each.aim.at_least else '≤'} {each.aim.bound:.2g}"
        verdict = "reached" if each.reached else f"missed by a factor of {each.missed_by:.2f}"
        what = f"{each.aim.system}: {BY_NAME[each.aim.figure].title}"
        rows.append([what, f"{bound} × {each.beside}", shown_ratio(each.ratio), verdict])
    return Table("Aims", ["what", "aim", "found", "outcome"], rows)
