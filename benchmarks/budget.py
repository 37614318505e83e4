"""Where the time of a request and of a token goes: by stage, by thread, by function, by system call.

    python benchmarks/budget.py [--system dds] [--phase "one client"] [--seconds 3] [--without strace] [--out FOLDER]
                                [--revision COMMIT]

A system is ``anywire up`` over a transport with two agents, which answer at once by themselves (`peers.agents`) or pass
on to servers that do (`peers.engine`). It is asked four times in each phase: alone, which gives latency, stages,
processor time and how often each thread slept; under perf, which tells threads, kernel and libraries apart; under
py-spy, which tells Python functions; under strace, which counts system calls and slows everything. What the profilers
give are shares of the processor time that was measured without them; py-spy takes a thread that waits for a core for
one that runs. A tool that is not there is left out with a word.

With ``--revision`` the same system of that commit runs beside it, and both are asked in turn.

The tables are printed as Markdown, and written with what they were made of into ``--out``. Linux only; profiling other
processes may take root. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import psutil

import budget_profiles as profiles
from budget_processes import Parts, Uses, read_uses, spent, together
from budget_tables import Measured, overview, tables
from cost import ROOT, checked_out
from peers.ours import Anywire
from peers.systems import engines_running, running
from peers.workload import Phase
from staged_load import PHASES, Found, ask_for
from transport_stack import new_event_loop

SYSTEMS = {
    "memory": ("memory", False),
    "dds": ("dds", False),
    "memory and engine openai": ("memory", True),
    "dds and engine openai": ("dds", True),
}
"""Transport, and whether the agents pass on, by name."""
ENGINES = 2
WARM_UP, CALLS_SECONDS = 1.0, 1.5
TURNS = 2
"""Times that each of two systems is asked for the figures that are compared."""


class System:
    """A running system: where it is asked, and its processes."""

    def __init__(self, name: str, url: str, parts: Parts) -> None:
        self.name, self.url, self.parts = name, url, parts

    @property
    def pids(self) -> list[int]:
        return [pid for pids in self.parts.values() for pid in pids]


@asynccontextmanager
async def systems(name: str, trees: Sequence[tuple[str, Path]], folder: Path) -> AsyncGenerator[list[System], None]:
    """The same system of each tree, which has a suffix for its name, once all of them answer."""
    transport, passes_on = SYSTEMS[name]
    async with AsyncExitStack() as stack:
        urls, engines = await stack.enter_async_context(engines_running(ENGINES, folder / "engines"))
        found: list[System] = []
        for suffix, tree in trees:
            system = Anywire(f"{name}{suffix}", transport, tree=tree, passes_on=passes_on)
            started = await stack.enter_async_context(running(system, urls, folder / f"tree{len(found)}"))
            (first,) = started.processes
            agents = [each.pid for each in psutil.Process(first).children(recursive=True)]
            parts = {"orchestrator": [first], "client": [os.getpid()]}
            parts |= {"agents": agents} if agents else {}
            parts |= {"server": engines} if passes_on else {}
            found.append(System(system.name, started.urls[0], parts))
        yield found


async def measure(found: Sequence[System], phase: Phase, seconds: float, tools: dict[str, str]) -> list[Measured]:
    """All passes of one phase; those that are compared in turn."""
    for system in found:
        await ask_for(phase, system.url, WARM_UP)
    answers: dict[str, Found] = {}
    uses: dict[str, Uses] = {}
    for turn in range(TURNS if len(found) > 1 else 1):
        for system in found if turn % 2 == 0 else reversed(found):
            before = read_uses(system.parts)
            came = await ask_for(phase, system.url, seconds)
            used = spent(before, read_uses(system.parts))
            uses[system.name] = together(uses.get(system.name, {}), used)
            answers[system.name] = answers[system.name].plus(came) if system.name in answers else came
    measured = [Measured(each.name, phase, answers[each.name], uses[each.name]) for each in found]
    for system, each in zip(found, measured, strict=True):
        with tempfile.TemporaryDirectory(prefix="anywire-") as made:
            folder = Path(made)
            if "perf" in tools:
                await _perf(each, system, tools["perf"], folder / "perf", seconds)
            if "py-spy" in tools:
                await _python(each, system, tools["py-spy"], folder, seconds)
            if "strace" in tools:
                await _calls(each, system, tools["strace"], folder)
    return measured


async def _perf(measured: Measured, system: System, program: str, path: Path, seconds: float) -> None:
    async with profiles.running(*profiles.perf_command(program, system.pids, path)):
        await ask_for(measured.phase, system.url, seconds)
    part_of = {pid: part for part, pids in system.parts.items() for pid in pids}
    for sample in await profiles.perf_samples(program, path):
        if sample.pid in part_of:
            measured.native[part_of[sample.pid], sample.thread, sample.library, sample.symbol] += 1


async def _python(measured: Measured, system: System, program: str, folder: Path, seconds: float) -> None:
    """The orchestrator and one agent: each is read by a process of its own, which takes its share of the cores."""
    parts = [part for part in ("orchestrator", "agents") if part in system.parts]
    async with AsyncExitStack() as stack:
        for part in parts:
            command = profiles.python_command(program, system.parts[part][-1], folder / part)
            await stack.enter_async_context(profiles.running(*command))
        await ask_for(measured.phase, system.url, seconds + 1.0)
    for part in parts:
        if (folder / part).exists():
            measured.python[part] = profiles.read_stacks((folder / part).read_text().splitlines())


async def _calls(measured: Measured, system: System, program: str, folder: Path) -> None:
    """One part after the other: strace makes each call ten times as dear."""
    for part in ("orchestrator", "agents"):
        if part not in system.parts:
            continue
        async with profiles.running(*profiles.calls_command(program, system.parts[part], folder / part)):
            found = await ask_for(measured.phase, system.url, CALLS_SECONDS)
        if (folder / part).exists():
            calls = profiles.read_calls((folder / part).read_text())
            units = found.units(measured.phase)
            measured.calls[part] = {call: count / units for call, count in calls.most_common()}


async def run(
    names: Sequence[str],
    phases: Sequence[Phase],
    seconds: float,
    tools: dict[str, str],
    trees: Sequence[tuple[str, Path]],
) -> list[Measured]:
    """Everything, one system after the other; what is ready is printed at once."""
    found: list[Measured] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
            async with systems(name, trees, Path(folder)) as ready:
                for phase in phases:
                    for measured in await measure(ready, phase, seconds, tools):
                        print(tables(measured), flush=True)
                        found.append(measured)
                    print(f"{name}, {phase.name}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", action="append", choices=tuple(SYSTEMS), help="default: all")
    parser.add_argument("--phase", action="append", choices=[each.name for each in PHASES], help="default: all")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pass; default: 3")
    parser.add_argument("--without", action="append", default=[], choices=profiles.TOOLS, help="a tool to leave out")
    parser.add_argument("--revision", metavar="COMMIT", help="a commit, or the folder of a checkout, to compare with")
    parser.add_argument("--out", type=Path, help="folder for the tables and what they were made of")
    args = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("budget.py reads /proc, which only Linux has")
    tools = {}
    for name in profiles.TOOLS:
        program = profiles.tool(name)
        if program is None:
            print(f"{name} is not installed: what it tells is left out", file=sys.stderr)
        elif name not in args.without:
            tools[name] = program
    phases = [each for each in PHASES if not args.phase or each.name in args.phase]
    with ExitStack() as stack, asyncio.Runner(loop_factory=new_event_loop) as runner:
        trees = [("", ROOT)]
        if args.revision:
            tree = stack.enter_context(checked_out(args.revision))
            trees.insert(0, (f", {Path(args.revision).name[:8]}", tree))
        found = runner.run(run(args.system or tuple(SYSTEMS), phases, args.seconds, tools, trees))
    print(overview(found))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "budget.md").write_text("\n".join([overview(found), *map(tables, found)]), encoding="utf-8")
        (args.out / "budget.json").write_text(json.dumps([each.raw() for each in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
