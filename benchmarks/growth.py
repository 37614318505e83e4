"""Whether what the pipeline takes grows with what there is, and what starting and waiting take.

    python benchmarks/growth.py [--before COMMIT] [--only tasks ...] [--blocks 3] [--out FILE]

- ``tasks``: processor time of a unary task with 1, 10, 100 and 1,000 agents; of one while 1, 100, 1,000 and 10,000
  streams are open; and of a chunk of one of so many streams. The pipeline is the real one, over a transport that does
  nothing. Each size has a process of its own, and they take turns of some milliseconds, so that a drift of the
  machine's speed hits all alike; a block is fresh processes of all sizes.
- ``memory``: resident bytes of a task that waits, beside its body; of an open stream, with its reader; of an agent. And
  of an open stream over HTTP, in the orchestrator of ``anywire up`` over ``dds``.
- ``start``: milliseconds until ``anywire --help`` has ended and until ``anywire up`` says that it is ready.
- ``idle``: of a core, what an orchestrator takes that has 100 agents over ``dds`` and nothing to do.

``--before`` measures an earlier commit, or the folder of another checkout, in turns with this tree. The command fails
when an aim is missed: on a machine that does other things too only the memory can be trusted for that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cost import HERE, ROOT, WARM_UP, Probe, checked_out, environment_of, median_ratio
from growth_fleet import idle_fleet, stream_over_http
from growth_start import STARTS, Took, installed, started
from transport_stack import new_event_loop

T = TypeVar("T")
FLAT = 1.10
"""Times the base that an operation may take at the largest size."""
SEED = 1


class Growth(NamedTuple):
    """An operation at some sizes. ``base`` is the size that the others are held against."""

    probe: str
    title: str
    sizes: tuple[int, ...]
    base: int


GROWTHS = (
    Growth("task", "a task, agents", (1, 10, 100, 1000), 1),
    Growth("beside", "a task, open streams beside it", (1, 100, 1000, 10_000), 1),
    # One stream alone has a turn of the event loop for each of its chunks, many share one.
    Growth("chunk", "a chunk, open streams", (1, 100, 1000, 10_000), 100),
)
MEMORY = {
    "wait": ("a task that waits, beside its body", 10_000, 4096.0),
    "stream": ("an open stream with its reader", 10_000, 12_288.0),
    "agent": ("an agent that has joined", 1000, None),
}
"""What, how many of it, and the most bytes that one may take."""
IDLE_AGENTS, IDLE_MOST = 100, 10.0
"""Agents, and the percentage of a core that their orchestrator may take."""


class Figure(NamedTuple):
    """What was measured of one tree. ``aim`` is the most that it may be, None where nothing was promised."""

    what: str
    value: float
    unit: str
    aim: float | None = None
    beside: str = ""
    """Further words: an interval, the number of runs."""

    @property
    def is_missed(self) -> bool:
        return self.aim is not None and self.value > self.aim

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return ""
        if self.is_missed:
            return f"missed by {100 * (self.value / self.aim - 1):.0f} % (≤ {self.aim:g})"
        return f"reached (≤ {self.aim:g})"


Trees = dict[str, Path]
"""Trees by name: ``after`` is this one."""
Figures = dict[str, list[Figure]]
"""By the name of the tree."""


def growth_block(growth: Growth, trees: Trees, rounds: int, order: random.Random) -> dict[tuple[str, int], float]:
    """Median seconds of processor time by tree and size, of fresh processes that take turns."""
    pairs = [(name, size) for name in trees for size in growth.sizes]
    probes: dict[tuple[str, int], Probe] = {}
    found: dict[tuple[str, int], list[float]] = {pair: [] for pair in pairs}
    try:
        for name, size in pairs:
            probes[name, size] = Probe(trees[name], [f"{growth.probe} {size}"], "growth_probe.py")
        for number in range(WARM_UP + rounds):
            order.shuffle(pairs)
            for pair in pairs:
                cpu, _ = probes[pair].round()
                if number >= WARM_UP:
                    found[pair].append(cpu)
    finally:
        for probe in probes.values():
            probe.close()
    return {pair: statistics.median(took) for pair, took in found.items()}


def growth_figures(growth: Growth, blocks: Sequence[dict[tuple[str, int], float]], tree: str) -> list[Figure]:
    """Microseconds at each size, and the ratio to the base, paired by block."""
    figures = []
    base = [block[tree, growth.base] for block in blocks]
    for size in growth.sizes:
        took = [block[tree, size] for block in blocks]
        what = f"{growth.title}: {size:,}"
        figures.append(Figure(what, statistics.median(took) * 1e6, "µs"))
        if size != growth.base:
            ratio, low, high = median_ratio(base, took)
            aim = FLAT if size > growth.base else None
            figures.append(Figure(f"{what}, of {growth.base:,}", ratio, "×", aim, f"{low:.2f} to {high:.2f}"))
    return figures


def measure_tasks(trees: Trees, given: argparse.Namespace) -> Figures:
    order, figures = random.Random(SEED), _none(trees)
    for growth in GROWTHS:
        blocks = []
        for number in range(given.blocks):
            blocks.append(growth_block(growth, trees, given.rounds, order))
            _tell(f"{growth.title}: block {number + 1} of {given.blocks}")
        for name in trees:
            figures[name] += growth_figures(growth, blocks, name)
    return figures


def measure_memory(trees: Trees, given: argparse.Namespace) -> Figures:
    figures = _none(trees)
    for name, tree in trees.items():
        for what, (title, count, aim) in MEMORY.items():
            found = [_memory_of(tree, what, count) for _ in range(given.blocks)]
            figures[name].append(_of_runs(title, found, "bytes", aim))
        with environment_of(tree) as environment:
            each = _run(stream_over_http("dds", environment))
        figures[name].append(Figure("an open stream over HTTP and dds, at the orchestrator", each, "bytes"))
        _tell(f"memory of {name}")
    return figures


def _memory_of(tree: Path, what: str, count: int) -> float:
    command = [sys.executable, "-P", str(HERE / "growth_probe.py"), str(tree), "memory", f"{what} {count}"]
    with environment_of(tree) as environment:
        done = subprocess.run(command, env=environment, cwd=tree, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout))


def measure_start(trees: Trees, given: argparse.Namespace) -> Figures:
    found: dict[tuple[str, str], list[Took]] = {(name, start.title): [] for name in trees for start in STARTS}
    order, pairs = random.Random(SEED), [(name, start) for name in trees for start in STARTS]
    with contextlib.ExitStack() as stack:
        environments = {name: stack.enter_context(installed(tree)) for name, tree in trees.items()}
        for number in range(given.starts + 1):
            order.shuffle(pairs)
            for name, start in pairs:
                took = _run(started(start, environments[name]))
                if number:  # the first writes compiled files
                    found[name, start.title].append(took)
            _tell(f"starts, {number + 1} of {given.starts + 1}")
    figures = _none(trees)
    for (name, title), runs in found.items():
        most = next(start.most for start in STARTS if start.title == title)
        figures[name].append(_of_runs(title, [1e3 * each.wall for each in runs], "ms", most))
        figures[name].append(_of_runs(f"{title}: processor time", [1e3 * each.cpu for each in runs], "ms", None))
    return figures


def measure_idle(trees: Trees, given: argparse.Namespace) -> Figures:
    figures = _none(trees)
    for name, tree in trees.items():
        with environment_of(tree) as environment:
            cores, each = _run(idle_fleet("dds", IDLE_AGENTS, environment))
        figures[name] += [
            Figure(f"orchestrator of {IDLE_AGENTS} idle agents over dds", 100 * cores, "% of a core", IDLE_MOST),
            Figure("memory of each of them there", each, "bytes"),
        ]
        _tell(f"idle agents of {name}")
    return figures


MEASURED: dict[str, Callable[[Trees, argparse.Namespace], Figures]] = {
    "tasks": measure_tasks,
    "memory": measure_memory,
    "start": measure_start,
    "idle": measure_idle,
}


def table(figures: Figures) -> str:
    """All figures as Markdown, a column for each tree, and what became of the aims of this one."""
    before = {each.what: each for each in figures.get("before", ())}
    lines = [
        "| | " + ("before | " if before else "") + "now | | aim |",
        "|---|" + "--:|" * (2 if before else 1) + "---|---|",
    ]
    for each in figures["after"]:
        cells = [each.what]
        if before:
            cells.append(shown(before[each.what]) if each.what in before else "")
        lines.append("| " + " | ".join([*cells, shown(each), each.beside, each.verdict]) + " |")
    return "\n".join(lines)


def shown(figure: Figure) -> str:
    if figure.unit == "×":
        return f"{figure.value:.2f} ×"
    digits = 0 if figure.value >= 100 else 1
    return f"{figure.value:,.{digits}f} {figure.unit}"


def _of_runs(title: str, found: Sequence[float], unit: str, aim: float | None) -> Figure:
    return Figure(title, statistics.median(found), unit, aim, f"{min(found):,.0f} to {max(found):,.0f}")


def _none(trees: Iterable[str]) -> Figures:
    return {name: [] for name in trees}


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def _tell(what: str) -> None:
    print(f"{what}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a commit, or the folder of a checkout, to measure beside this tree")
    parser.add_argument("--only", action="append", choices=MEASURED, help="may be repeated; default: everything")
    parser.add_argument("--blocks", type=int, default=3, help="of fresh processes, and runs for memory; default: 3")
    parser.add_argument("--rounds", type=int, default=20, help="turns in a block; default: 20")
    parser.add_argument("--starts", type=int, default=7, help="of each command; default: 7")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    given = parser.parse_args()
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} before"
    )
    found: Figures = {}
    with contextlib.ExitStack() as stack:
        trees = {"after": ROOT}
        if given.before:
            trees = {"before": stack.enter_context(checked_out(given.before)), **trees}
        for name in given.only or MEASURED:
            for tree, figures in MEASURED[name](trees, given).items():
                found.setdefault(tree, []).extend(figures)
    print(f"{machine}, {os.getloadavg()[0]:.1f} after\n\n{table(found)}")
    if given.out is not None:
        given.out.write_text(
            json.dumps({name: [each._asdict() for each in of] for name, of in found.items()}, indent=1)
        )
    sys.exit(any(each.is_missed for each in found["after"]))


if __name__ == "__main__":
    main()
