"""Where the time of a request and of a token goes: by stage, by thread, by function, by system call.

    python benchmarks/budget.py [--system dds] [--shape "one client"] [--seconds 3] [--without strace] [--out FOLDER]

A system is ``anywire up`` with two agents, over a transport, whose engine answers at once (`stamped_engine.py`) or is
``openai`` before a server that does (`stamped_server.py`). Each shape of load is asked for four times: alone, which
gives latency, stages, processor time and how often each thread slept; under perf, which tells threads, kernel and
libraries apart; under py-spy, which tells Python functions; under strace, which counts system calls and slows
everything. The shares of the profilers are of the processor time that was measured without them. A tool that is not
there is left out with a word.

The tables are printed as Markdown, and written with what they were made of into ``--out``. Linux only; profiling other
processes may take root. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

import budget_profiles as profiles
from budget_processes import Parts, read_uses, spent
from budget_tables import Measured, overview, tables
from stamped_load import SHAPES, Shape, ask_for
from transport_stack import IN_FLIGHT, LEASE, PATIENCE, anywire_process, new_event_loop, options_of

HERE = Path(__file__).resolve().parent
SYSTEMS = {
    "memory": ("memory", "stamped"),
    "dds": ("dds", "stamped"),
    "memory and engine openai": ("memory", "openai"),
    "dds and engine openai": ("dds", "openai"),
}
"""Transport and engine by name."""
AGENTS = 2
WARM_UP, CALLS_SECONDS = 1.0, 1.5


class System:
    """A running system: where it is asked, and its processes."""

    def __init__(self, url: str, parts: Parts) -> None:
        self.url, self.parts = url, parts

    def pids(self, *parts: str) -> list[int]:
        return [pid for part in parts for pid in self.parts.get(part, ())]


@asynccontextmanager
async def stamped_server() -> AsyncIterator[tuple[str, int]]:
    """The URL of an OpenAI server of its own process, and its pid."""
    command = (sys.executable, str(HERE / "stamped_server.py"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def system(transport: str, engine: str) -> AsyncIterator[System]:
    """``anywire up`` with agents, once all are ready."""
    async with AsyncExitStack() as stack:
        parts = {"client": [os.getpid()]}
        section: dict[str, Any] = {"name": engine}
        if engine == "openai":
            section["base_url"], pid = await stack.enter_async_context(stamped_server())
            parts["server"] = [pid]
        settings = {
            "server": {"port": 0},
            "transports": {transport: stack.enter_context(options_of(transport))},
            "engine": section,
            "plugins": [str(HERE / "stamped_engine.py")],
            "agent": {"slots": IN_FLIGHT},
            "lease": {"timeout": LEASE},
            "log_level": "warning",
        }
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anywire-"))) / "anywire.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        process = await stack.enter_async_context(anywire_process("up", "--agents", str(AGENTS), "--config", str(path)))
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
        address = re.search(r"http://[^\s/]+", line)
        assert address, f"anywire up over {transport} said: {line!r}"
        parts["orchestrator"] = [process.pid]
        agents = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
        if agents:
            parts["agents"] = agents
        yield System(address[0], parts)


async def measure(running: System, name: str, shape: Shape, seconds: float, tools: dict[str, str]) -> Measured:
    """All four passes of one shape of load."""
    await ask_for(shape, running.url, WARM_UP)
    before = read_uses(running.parts)
    found = await ask_for(shape, running.url, seconds)
    uses = spent(before, read_uses(running.parts))
    measured = Measured(name, shape, found, uses)
    with tempfile.TemporaryDirectory(prefix="anywire-") as made:
        folder = Path(made)
        if "perf" in tools:
            await _perf(measured, running, tools["perf"], folder / "perf", seconds)
        if "py-spy" in tools:
            await _python(measured, running, tools["py-spy"], folder, seconds)
        if "strace" in tools:
            await _calls(measured, running, tools["strace"], folder)
    return measured


async def _perf(measured: Measured, running: System, program: str, path: Path, seconds: float) -> None:
    pids = running.pids(*running.parts)
    async with profiles.running(*profiles.perf_command(program, pids, path)):
        await ask_for(measured.shape, running.url, seconds)
    part_of = {pid: part for part, pids in running.parts.items() for pid in pids}
    for sample in await profiles.perf_samples(program, path):
        if sample.pid in part_of:
            measured.native[part_of[sample.pid], sample.thread, sample.library, sample.symbol] += 1


async def _python(measured: Measured, running: System, program: str, folder: Path, seconds: float) -> None:
    """The orchestrator and one agent: each is read by a process of its own, which takes its share of the cores."""
    parts = [part for part in ("orchestrator", "agents") if part in running.parts]
    async with AsyncExitStack() as stack:
        for part in parts:
            command = profiles.python_command(program, running.parts[part][-1], folder / part)
            await stack.enter_async_context(profiles.running(*command))
        await ask_for(measured.shape, running.url, seconds + 1.0)
    for part in parts:
        if (folder / part).exists():
            measured.python[part] = profiles.read_stacks((folder / part).read_text().splitlines())


async def _calls(measured: Measured, running: System, program: str, folder: Path) -> None:
    """One part after the other: strace makes each call ten times as dear."""
    for part in ("orchestrator", "agents"):
        if part not in running.parts:
            continue
        async with profiles.running(*profiles.calls_command(program, running.parts[part], folder / part)):
            found = await ask_for(measured.shape, running.url, CALLS_SECONDS)
        if (folder / part).exists():
            calls = profiles.read_calls((folder / part).read_text())
            units = found.units(measured.shape)
            measured.calls[part] = {call: count / units for call, count in calls.most_common()}


async def run(systems: Sequence[str], shapes: Sequence[Shape], seconds: float, tools: dict[str, str]) -> list[Measured]:
    """Everything, one system after the other; what is ready is printed at once."""
    found = []
    for name in systems:
        async with system(*SYSTEMS[name]) as running:
            for shape in shapes:
                measured = await measure(running, name, shape, seconds, tools)
                print(tables(measured), flush=True)
                print(f"{name}, {shape.name}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                found.append(measured)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", action="append", choices=tuple(SYSTEMS), help="default: all")
    parser.add_argument("--shape", action="append", choices=[each.name for each in SHAPES], help="default: all")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pass; default: 3")
    parser.add_argument("--without", action="append", default=[], choices=profiles.TOOLS, help="a tool to leave out")
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
    shapes = [each for each in SHAPES if not args.shape or each.name in args.shape]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(run(args.system or tuple(SYSTEMS), shapes, args.seconds, tools))
    print(overview(found))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "budget.md").write_text("\n".join([overview(found), *map(tables, found)]), encoding="utf-8")
        (args.out / "budget.json").write_text(json.dumps([each.raw() for each in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
