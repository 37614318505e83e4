"""What a change costs: this tree beside an earlier one, processor time and wall time of each operation.

    python benchmarks/cost.py BEFORE [--blocks 20] [--transport dds] [--http-blocks 6]

BEFORE is a commit of this repository, which is checked out for the time of the run, or the folder of another checkout.
A block is four fresh processes, before, after, after, before (every other block the other way round), so that a drift
of the machine's speed hits both alike; each block gives one ratio after / before. The table has the median ratio of all blocks
and its 95 % interval (percentile bootstrap over the blocks, seeded). Processor time is the figure to trust where the
machine does something else beside it.

An operation is: a unary task and a chunk of a stream through the pipeline alone (puppet: no wire and no agent), through
pipeline, transport ``memory`` and agent in one process, and with ``--transport`` a request through ``anywire up``, HTTP
in, the transport, HTTP out, with 1 and 64 clients.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import stats

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
INSIDE = ("puppet task", "puppet chunk", "memory task", "memory chunk")
CLIENTS = (1, 64)
LIMIT = 300.0
"""Seconds for one process."""
RESAMPLES, SEED = 10_000, 1

Costs = dict[str, dict[str, float]]
"""Seconds per operation by name and kind (cpu, wall)."""


def python_path(tree: Path) -> str:
    """The folders of all distributions of a checkout, so that nothing of another one is imported."""
    folders = [tree / "core", tree / "benchmarks"]
    for pattern in ("plugins/*/pyproject.toml", "plugins/*/*/pyproject.toml", "examples/*/pyproject.toml"):
        folders += sorted(found.parent for found in tree.glob(pattern))
    return os.pathsep.join(map(str, folders))


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


def measure(tree: Path, names: Sequence[str]) -> Costs:
    """One fresh process of a tree."""
    # -P: the folder of the script, which is this tree's, stays off the path.
    command = [sys.executable, "-P", str(HERE / "cost_probe.py"), str(tree), *names]
    environment = os.environ | {"PYTHONPATH": python_path(tree)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=LIMIT, check=True, cwd=tree)
    costs: Costs = json.loads(done.stdout.splitlines()[-1])
    return costs


def measure_block(before: Path, after: Path, names: Sequence[str], number: int) -> tuple[Costs, Costs]:
    """The geometric means of the two processes of each tree."""
    order = (before, after, after, before) if number % 2 == 0 else (after, before, before, after)
    found: dict[Path, list[Costs]] = {before: [], after: []}
    for tree in order:
        found[tree].append(measure(tree, names))

    def mean(tree: Path) -> Costs:
        one, two = found[tree]
        return {name: {kind: math.sqrt(one[name][kind] * two[name][kind]) for kind in one[name]} for name in one}

    return mean(before), mean(after)


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


def run(before: Path, after: Path, names: Sequence[str], count: int) -> None:
    if not names or count < 1:
        return
    blocks = []
    for number in range(count):
        blocks.append(measure_block(before, after, names, number))
        print(f"block {number + 1} of {count}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print_table(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit, or the folder of a checkout")
    parser.add_argument("--after", type=Path, default=ROOT, help="folder of the checkout to compare; default: this one")
    parser.add_argument("--blocks", type=int, default=20, help="of the operations inside one process; default: 20")
    parser.add_argument("--transport", action="append", default=[], help="to measure through HTTP; may be repeated")
    parser.add_argument("--http-blocks", type=int, default=6, help="of each transport; default: 6")
    parser.add_argument("--only", action="append", choices=INSIDE, help="of the operations inside one process")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with checked_out(args.before) as before:
        after = args.after.resolve()
        run(before, after, args.only or INSIDE, args.blocks)
        for transport in args.transport:
            run(before, after, [f"http {transport} {clients}" for clients in CLIENTS], args.http_blocks)
    print(f"load average {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
