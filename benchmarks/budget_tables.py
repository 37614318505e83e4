"""What `budget.py` has measured, as tables in microseconds of a request or of a token."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from budget_processes import LOOP, Uses
from budget_profiles import KERNEL, PythonProfile
from peers.workload import Phase
from staged_load import PHASES, Found

PARTS = ("orchestrator", "agents", "server", "client")
REST = "before, after: HTTP and the client"
MOST = 25
"""Lines of a table of functions."""
LIBRARIES, SYMBOLS, CALLS = 12, 8, 10
_Key = TypeVar("_Key")
Native = Counter[tuple[str, str, str, str]]
"""Samples by part, thread, library and symbol."""


def unit_of(phase: Phase) -> str:
    return "token" if phase.tokens else "request"


class Measured:
    """One system under one phase's load."""

    def __init__(self, system: str, phase: Phase, found: Found, uses: Uses) -> None:
        self.system, self.phase, self.found, self.uses = system, phase, found, uses
        self.native: Native = Counter()
        self.python: dict[str, PythonProfile] = {}
        self.calls: dict[str, dict[str, float]] = {}
        """System calls of a request or token, by part and name."""

    @property
    def units(self) -> int:
        return self.found.units(self.phase)

    def microseconds(self, part: str, thread: str | None = None) -> float:
        """Processor time of one request or token: of a part, or of one of its threads."""
        seconds = sum(use.seconds for (p, t), use in self.uses.items() if p == part and thread in (None, t))
        return seconds / self.units * 1e6

    def native_microseconds(self, part: str) -> dict[tuple[str, str, str], float]:
        """The same by thread, library and symbol: perf's shares of each thread's own time."""
        of_thread = Counter[str]()
        for (p, thread, _, _), count in self.native.items():
            if p == part:
                of_thread[thread] += count
        return {
            (thread, library, symbol): count / of_thread[thread] * self.microseconds(part, thread)
            for (p, thread, library, symbol), count in self.native.items()
            if p == part
        }

    def function_microseconds(self, part: str) -> dict[str, tuple[float, float]]:
        """Of the event loop's thread by Python function: its own, C code that it calls included, and with all that it
        calls."""
        profile = self.python.get(part)
        if profile is None or not profile.samples:
            return {}
        share = self.microseconds(part, LOOP) / profile.samples
        return {name: (profile.own[name] * share, count * share) for name, count in profile.total.items()}

    def raw(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        found = self.found
        return {
            "system": self.system,
            "phase": self.phase.name,
            "unit": unit_of(self.phase),
            "units": self.units,
            "seconds": found.seconds,
            "times_us": quantiles(found.times),
            "ways_us": quantiles(found.ways),
            "stages_us": found.median_stages(),
            "threads": [
                {"part": part, "thread": thread, "us": use.seconds / self.units * 1e6,
                 "slept": use.slept / self.units, "displaced": use.displaced / self.units}
                for (part, thread), use in self.uses.items()
            ],
            "native": [[*key, count] for key, count in self.native.most_common()],
            "lines": {part: profile.lines.most_common() for part, profile in self.python.items()},
            "functions": {part: self.function_microseconds(part) for part in self.python},
            "calls": self.calls,
        }  # fmt: skip


def quantiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def overview(found: Sequence[Measured]) -> str:
    """Two tables of all that was measured: time and processor time, and the stages of a lone client's request."""
    rows = []
    for each in found:
        of_tokens, times = quantiles(each.found.ways), quantiles(each.found.times)
        used = [each.microseconds(part) for part in PARTS]
        rows.append(
            (f"`{each.system}`, {each.phase.name}", f"{(of_tokens or times).get('p50', 0):,.0f}",
             f"{each.units / each.found.seconds:,.0f}", *(f"{us:.1f}" if us else "–" for us in used))
        )  # fmt: skip
    sections = [table(("system and load", "p50, us", "per second", *PARTS), rows)]
    alone = [each for each in found if each.phase == PHASES[0] and each.found.stages]
    if alone:
        stages = [each.found.median_stages() for each in alone]
        lines: list[tuple[str, ...]] = [(name, *(f"{each.get(name, 0):.0f}" for each in stages)) for name in stages[0]]
        rest = [quantiles(each.found.times)["p50"] - sum(each.found.median_stages().values()) for each in alone]
        lines.append((REST, *(f"{each:.0f}" for each in rest)))
        sections.append(table(("stage of a request, us", *(f"`{each.system}`" for each in alone)), lines))
    return "\n\n".join(sections) + "\n"


def tables(measured: Measured) -> str:
    """All tables of one system in one phase."""
    sections = [_summary(measured), _stages(measured), _threads(measured), _calls(measured)]
    for part in ("orchestrator", "agents"):
        sections += [_libraries(measured, part), _areas(measured, part), _functions(measured, part)]
    sections += [_libraries(measured, "client"), _libraries(measured, "server")]
    return "\n\n".join(filter(None, sections)) + "\n"


def _summary(measured: Measured) -> str:
    found, phase, unit = measured.found, measured.phase, unit_of(measured.phase)
    times, ways = quantiles(found.times), quantiles(found.ways)
    parts = sorted({part for part, _ in measured.uses} - {"client", "server"}, reverse=True)
    own = sum(map(measured.microseconds, parts))
    what = "to the first token" if phase.tokens else "of a request"
    lines = [f"## {measured.system}: {phase.name}", ""]
    if times:
        lines.append(f"Time {what}: p50 {times['p50']:.0f}, p95 {times['p95']:.0f}, p99 {times['p99']:.0f} us.")
    if ways:
        lines.append(f"A token's way: p50 {ways['p50']:.0f}, p95 {ways['p95']:.0f}, p99 {ways['p99']:.0f} us.")
    lines.append(
        f"{measured.units / found.seconds:,.0f} {unit}s/s; processor time of a {unit} {own:.1f} us "
        f"({', '.join(f'{part} {measured.microseconds(part):.1f}' for part in parts)})."
    )
    return "\n".join(lines)


def _stages(measured: Measured) -> str:
    stages = measured.found.median_stages()
    if not stages:
        return ""
    rows: list[tuple[object, ...]] = [(name, f"{value:.1f}") for name, value in stages.items()]
    if not measured.phase.tokens:
        rest = quantiles(measured.found.times).get("p50", 0.0) - sum(stages.values())
        rows.append((REST, f"{rest:.1f}"))
    return table(("stage", "us, median"), rows)


def _threads(measured: Measured) -> str:
    kernel = defaultdict[tuple[str, str], float](float)
    for part in {part for part, _ in measured.uses}:
        for (thread, library, _), value in measured.native_microseconds(part).items():
            if library == KERNEL:
                kernel[part, thread] += value
    rows = [
        (part, thread, f"{use.seconds / measured.units * 1e6:.1f}", f"{kernel[part, thread]:.1f}",
         f"{use.slept / measured.units:.2f}", f"{use.displaced / measured.units:.2f}")
        for (part, thread), use in sorted(measured.uses.items(), key=lambda item: (item[0][0], -item[1].seconds))
        if use.seconds / measured.units >= 0.05e-6
    ]  # fmt: skip
    return table(("process", "thread", f"us per {unit_of(measured.phase)}", "of it kernel", "slept", "displaced"), rows)


def _calls(measured: Measured) -> str:
    if not measured.calls:
        return ""
    rows = []
    for part, calls in measured.calls.items():
        which = [f"{call} {count:.2f}" for call, count in calls.items()]
        rows.append((part, f"{sum(calls.values()):.1f}", ", ".join(which[:CALLS])))
    return table(("process", f"system calls per {unit_of(measured.phase)}", "which"), rows)


def _libraries(measured: Measured, part: str) -> str:
    found = defaultdict[tuple[str, str], float](float)
    symbols: dict[tuple[str, str], dict[str, float]] = {}
    for (thread, library, symbol), value in measured.native_microseconds(part).items():
        found[thread, library] += value
        symbols.setdefault((thread, library), defaultdict(float))[symbol] += value
    rows = [
        (thread, library, f"{value:.1f}",
         ", ".join(f"{symbol} {us:.1f}" for symbol, us in _most(symbols[thread, library], SYMBOLS)))
        for (thread, library), value in _most(found, LIBRARIES)
        if value >= 0.1
    ]  # fmt: skip
    return table((f"{part}: thread", "library", "us", "most in"), rows) if rows else ""


def _most(found: Mapping[_Key, float], count: int) -> list[tuple[_Key, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:count]


def area(function: str) -> str:
    """The package of a function (``name (file)``), with the first folder below ``anywire``."""
    file = function.rpartition(" (")[2].rstrip(")")
    folders = file.split("/")
    if folders[0] == "anywire" and len(folders) > 2:
        return "/".join(folders[: 3 if folders[1] == "pipeline" and len(folders) > 3 else 2])
    return folders[0]


def _areas(measured: Measured, part: str) -> str:
    found = defaultdict[str, float](float)
    for name, (own, _) in measured.function_microseconds(part).items():
        found[area(name)] += own
    rows = [(name, f"{value:.1f}") for name, value in _most(found, MOST) if value >= 0.05]
    return table((f"{part}: package", "us"), rows) if rows else ""


def _functions(measured: Measured, part: str) -> str:
    found = measured.function_microseconds(part)
    most = sorted(found.items(), key=lambda item: -item[1][0])[:MOST]
    rows = [(f"`{name}`", f"{own:.2f}", f"{total:.2f}") for name, (own, total) in most if own > 0]
    return table((f"{part}: function", "own us", "with what it calls"), rows) if rows else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, numbers to the right."""
    body = [list(map(str, row)) for row in rows]
    right = [bool(body) and all(_is_number(row[at]) for row in body) for at in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if each else "---" for each in right) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def _is_number(text: str) -> bool:
    return text == "–" or text.replace(".", "", 1).replace("-", "", 1).replace(",", "").isdigit()
