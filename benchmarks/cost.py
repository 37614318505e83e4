"""What a change costs: this tree beside an earlier one, processor time and wall time of each operation.

    python benchmarks/cost.py BEFORE [--blocks 20] [--transport dds] [--http-blocks 6]

BEFORE is a commit of this repository, which is checked out for the time of the run, or the folder of another checkout.
A block is a fresh process of each tree. They take turns, before, after, after, before, and the other way round, in
rounds of some milliseconds, so that a drift of the machine's speed hits both alike; each block gives one ratio after /
before, of the medians of its rounds. The table has the median ratio of all blocks and its 95 % interval (percentile
bootstrap over the blocks, seeded). Processor time is the figure to trust where the machine does something else beside
it.

An operation is: a unary task and a chunk of a stream through the pipeline alone (puppet: no wire and no agent),
through pipeline, transport ``memory`` and agent in one process, a unary task that is measured for ``/metrics`` as
well, the line that the log has of a request, a request and a chunk through the gateway `openai` alone (its clients
are in the same process), and with ``--transport`` a request through ``anywire up``, HTTP in, the transport, HTTP out,
with 1 and 64 clients. Where ``--only`` names them: a whole answer and a token of a stream, of a server through the
engine ``openai`` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from scipy import stats

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
INSIDE = (
    "puppet task", "puppet chunk", "memory task", "memory chunk", "measured task", "request line", "gateway task",
    "gateway chunk",
)  # fmt: skip
ASKED = ("engine task", "engine token", "engine paced token")
CLIENTS = (1, 64)
ROUNDS, HTTP_ROUNDS = 20, 4
"""Turns of four rounds in a block."""
WARM_UP = 3
"""Rounds of each process that do not count."""
RESAMPLES, SEED = 10_000, 1

Costs = dict[str, dict[str, float]]
"""Seconds per operation by name and kind (cpu, wall)."""


def python_path(tree: Path, metadata: Path) -> str:
    """The folders of all distributions of a checkout, so that nothing of another one is imported, and in front of them
    a folder with their metadata, which is written into ``metadata``: the installed ones name another checkout's
    plugins."""
    folders = [metadata, tree / "core", tree / "benchmarks"]
    write_metadata(tree / "pyproject.toml", metadata)
    for pattern in ("plugins/*/pyproject.toml", "plugins/*/*/pyproject.toml", "examples/*/pyproject.toml"):
        for found in sorted(tree.glob(pattern)):
            folders.append(found.parent)
            write_metadata(found, metadata)
    return os.pathsep.join(map(str, folders))


def write_metadata(project_file: Path, folder: Path) -> None:
    """What installing a distribution would tell of its entry points."""
    project = tomllib.loads(project_file.read_text())["project"]
    name, version = project["name"], project["version"]
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in project.get("entry-points", {}).items()
    ]
    (information / "entry_points.txt").write_text("\n".join(groups))


@contextmanager
def environment_of(tree: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that imports that tree, its metadata included."""
    with tempfile.TemporaryDirectory(prefix="anywire-") as metadata:
        yield os.environ | {"PYTHONPATH": python_path(tree, Path(metadata))}


@contextmanager
def checked_out(before: str) -> Iterator[Path]:
    """The folder of a checkout: ``before`` itself, or a worktree of that commit which is removed afterwards."""
    if Path(before).is_dir():
        yield Path(before).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        tree = Path(folder).resolve() / "before"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), before], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


class Probe:
    """A fresh process of one tree, which does a round of an operation when it is asked to. ``script``, a file beside
    this one, has the operations."""

    def __init__(self, tree: Path, names: Sequence[str], script: str = "cost_probe.py") -> None:
        # -P: the folder of the script, which is this tree's, stays off the path.
        command = [sys.executable, "-P", str(HERE / script), str(tree), *names]
        self._ending = ExitStack()
        environment = self._ending.enter_context(environment_of(tree))
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree
        )

    def round(self) -> tuple[float, float]:
        """Processor and wall time of one operation, in seconds."""
        self._say("go")
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of a tree ended with {self._process.wait()}")
        cpu, wall = json.loads(line)
        return cpu, wall

    def next(self) -> None:
        """Go on to the next operation."""
        self._say("")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._ending.close()

    def _say(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()


def measure_block(before: Path, after: Path, names: Sequence[str], number: int, rounds: int) -> tuple[Costs, Costs]:
    """The medians of the rounds of each tree."""
    probes = [Probe(before, names), Probe(after, names)]
    costs: tuple[Costs, Costs] = ({}, {})
    try:
        for name in names:
            found = np.zeros((2, 2 * rounds, 2))
            for probe in probes:
                for _ in range(WARM_UP):
                    probe.round()
            for each in range(rounds):
                first = (number + each) % 2
                for place, side in enumerate((first, 1 - first, 1 - first, first)):
                    found[side, 2 * each + place // 2] = probes[side].round()
            for side, probe in enumerate(probes):
                cpu, wall = np.median(found[side], axis=0)
                costs[side][name] = {"cpu": float(cpu), "wall": float(wall)}
                probe.next()
    finally:
        for probe in probes:
            probe.close()
    return costs


def median_ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The median of the paired ratios and its 95 % interval; the whole range with fewer than 3 blocks."""
    ratios = np.asarray(after) / np.asarray(before)
    median = float(np.median(ratios))
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return median, float(ratios.min()), float(ratios.max())
    interval = stats.bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED)
    ).confidence_interval
    return median, float(interval.low), float(interval.high)


def print_table(blocks: Sequence[tuple[Costs, Costs]]) -> None:
    print(f"{'operation':24} {'':4} {'before':>10} {'after':>10} {'ratio':>7}  95 % interval ({len(blocks)} blocks)")
    for name in blocks[0][0]:
        for kind in blocks[0][0][name]:
            before, after = ([block[side][name][kind] for block in blocks] for side in (0, 1))
            median, low, high = median_ratio(before, after)
            print(
                f"{name:24} {kind:4} {np.median(before) * 1e6:7.2f} us {np.median(after) * 1e6:7.2f} us {median:7.3f}"
                f"  {low:.3f} .. {high:.3f}",
                flush=True,
            )


def run(before: Path, after: Path, names: Sequence[str], count: int, rounds: int) -> None:
    if not names or count < 1:
        return
    blocks = []
    for number in range(count):
        blocks.append(measure_block(before, after, names, number, rounds))
        print(f"block {number + 1} of {count}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print_table(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit, or the folder of a checkout")
    parser.add_argument("--after", type=Path, default=ROOT, help="folder of the checkout to compare; default: this one")
    parser.add_argument("--blocks", type=int, default=20, help="of the operations inside one process; default: 20")
    parser.add_argument("--transport", action="append", default=[], help="to measure through HTTP; may be repeated")
    parser.add_argument("--http-blocks", type=int, default=6, help="of each transport; default: 6")
    parser.add_argument("--only", action="append", choices=INSIDE + ASKED, help="of the operations inside one process")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with checked_out(args.before) as before:
        after = args.after.resolve()
        run(before, after, args.only or INSIDE, args.blocks, ROUNDS)
        for transport in args.transport:
            run(before, after, [f"http {transport} {clients}" for clients in CLIENTS], args.http_blocks, HTTP_ROUNDS)
    print(f"load average {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
