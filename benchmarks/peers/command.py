"""Measure other routers and Anywire on the same work, in one interleaved run.

    make bench-peers
    python -m benchmarks.peers [--only vllm-router,anywire-dds] [--rounds 5] [--out FOLDER] [--revision COMMIT]

Two engines that answer at once stand behind every system. A client asks each system in four phases: one client; 64
clients; 32 streams of 64 tokens that come as fast as they can; 16 streams of 32 tokens, one each 5 ms. A round measures
every system once, started afresh and alone, in an order drawn anew. Processor time and wake-ups are those of all the
system's processes, without the engines behind it; where Anywire's agents answer by themselves, they are in it.

A system that is not here is left out, with a word. ``--install`` first installs into $PEERS_HOME what the registry has:
vllm-router, smg and sglang-router with some 150 MB each, LiteLLM and Dynamo with some 750 MB each. A wrong answer, or
one that breaks off, fails the row of its system, and the command.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from cost import ROOT, checked_out
from peers.figures import BY_NAME
from peers.install import install
from peers.ours import PREFIX, TRANSPORTS, anywire, earlier
from peers.report import MAIN, Run, notes, shown, tables
from peers.rounds import Measured, measure_all
from peers.routers import routers
from peers.systems import Direct, System, engines_running
from transport_stack import new_event_loop

ENGINES = 2


def known_systems(named: Sequence[str]) -> list[System]:
    """All systems of this tree; Anywire over a transport that is not measured by itself, if it is named."""
    transports = list(dict.fromkeys([*TRANSPORTS, *transports_of(named)]))
    return [Direct("direct"), *routers(), *anywire(transports=transports)]


def transports_of(names: Iterable[str]) -> list[str]:
    """The transports of those of these names that are Anywire's."""
    ours = [each.removeprefix(PREFIX) for each in names if each.startswith(PREFIX)]
    return list(dict.fromkeys(each.partition("-")[0] for each in ours))


def chosen(systems: Sequence[System], only: Sequence[str]) -> list[System]:
    """Those that are named, or all. Exits at a name that is none of them."""
    unknown = set(only) - {each.name for each in systems}
    if unknown:
        known = ", ".join(each.name for each in systems)
        sys.exit(f"no such system: {', '.join(sorted(unknown))}; there are {known}")
    return [each for each in systems if not only or each.name in only]


def commit() -> str:
    """The commit of this tree; with a plus sign where the tree differs from it."""
    try:
        git = ("git", "-C", str(ROOT))
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if changed else "")


def tell(one: Measured) -> None:
    """A line for each measurement as it comes."""
    figures = "  ".join(f"{each} {shown(one.figures.get(each), BY_NAME[each])}" for each in MAIN)
    told = f"round {one.round + 1} {one.system:22} {figures}  others {one.others:.2f}"
    print(told + (f"  {one.errors} errors: {one.error}" if one.errors else ""), file=sys.stderr, flush=True)


def measure(given: argparse.Namespace, systems: Sequence[System], folder: Path) -> Run:
    here = [each for each in systems if not each.missing()]
    run = Run(
        when=time.strftime("%Y-%m-%d %H:%M"),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        commit=commit(),
        rounds=given.rounds,
        seconds=given.seconds,
        seed=given.seed,
        load=(os.getloadavg()[0], 0.0),
        order=[each.name for each in here],
        versions={each.name: version for each in here if (version := each.version())},
        left_out={each.name: why for each in systems if (why := each.missing())},
        suffix=f"@{given.revision}" if given.revision else "",
    )

    async def work() -> list[Measured]:
        if (task := asyncio.current_task()) is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with engines_running(ENGINES, folder / "engines") as (engines, processes):
            return await measure_all(
                here,
                engines,
                processes,
                folder,
                rounds=given.rounds,
                seconds=given.seconds,
                minutes=given.minutes,
                seed=given.seed,
                tell=tell,
            )

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            found = runner.run(work())
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit("stopped; everything that was started has ended")
    for each in found:
        if each.started or (each.system.startswith(PREFIX) and "@" not in each.system):
            run.measured.append(each)
        else:
            run.left_out[each.system] = f"did not start here: {each.error}"
    run.load = (run.load[0], os.getloadavg()[0])
    return run


def told(run: Run, folder: Path | None) -> int:
    """Print a run, keep it in a folder, and say how many systems failed."""
    print("\n\n".join([*(each.as_text() for each in tables(run)), "\n".join(notes(run))]))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "peers.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))
        page = [*(each.as_markdown() for each in tables(run)), "\n".join(f"- {each}" for each in notes(run))]
        (folder / "peers.md").write_text("\n\n".join(page) + "\n")
    return len(run.failures())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAMES", help="systems to measure, with commas; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5, as far as they fit into --minutes")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each phase; default: 1.5")
    parser.add_argument("--minutes", type=float, default=12.0, help="of all rounds together; default: 12")
    parser.add_argument("--seed", type=int, default=1, help="of the order; default: 1")
    parser.add_argument("--revision", default="", metavar="COMMIT", help="measure Anywire of this commit as well")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep tables (peers.md) and all rounds (peers.json)")
    parser.add_argument("--install", action="store_true", help="first install what the registry has")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print what an earlier run kept (peers.json)")
    given = parser.parse_args()
    if given.report is not None:
        sys.exit(1 if told(msgspec.json.decode(given.report.read_bytes(), type=Run), given.out) else 0)
    only = [each for each in given.only.split(",") if each]
    systems = chosen(known_systems(only), only)
    if given.install:
        install([each.name for each in systems])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anywire-")))
        if given.revision:
            tree = stack.enter_context(checked_out(given.revision))
            before = [earlier(each, tree, f"@{given.revision}") for each in systems]
            systems += [each for each in before if each is not None]
        failed = told(measure(given, systems, folder), given.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
