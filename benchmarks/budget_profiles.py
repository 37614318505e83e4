"""Profiles of running processes by tools that need nothing of them: perf, py-spy and strace, where they are installed.

What is read of their output is what `budget.py` tells: samples by thread and symbol, samples by Python function, and
how often each system call was made.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from budget_processes import thread_name

PERF_RATE, PYTHON_RATE = 2499, 250
"""Samples per second; the first is no divisor of the kernel's own tick."""
TOOLS = ("perf", "py-spy", "strace")
KERNEL = "kernel"
PATIENCE = 60.0


def tool(name: str) -> str | None:
    """Where a tool is: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


class NativeSample(NamedTuple):
    """Where one thread was, by perf. ``library`` is the file's name, or `KERNEL`."""

    pid: int
    thread: str
    library: str
    symbol: str


_SCRIPT = re.compile(
    r"^\s*(?P<name>.+?)\s+(?P<pid>\d+)/(?P<tid>\d+):?\s+[0-9a-f]+\s+(?P<symbol>.*)\s+\((?P<file>[^()]*)\)$"
)


def read_perf(script: str) -> list[NativeSample]:
    """What ``perf script -F comm,pid,tid,ip,sym,dso`` has printed."""
    samples = []
    for line in script.splitlines():
        found = _SCRIPT.match(line)
        if found is None:
            continue
        pid, name = int(found["pid"]), found["file"]
        library = KERNEL if name.startswith(("[kernel", "[guest.kernel")) else name.rpartition("/")[2]
        samples.append(
            NativeSample(pid, thread_name(pid, int(found["tid"]), found["name"].strip()), library, found["symbol"])
        )
    return samples


class PythonProfile(NamedTuple):
    """Samples in all, by the function that ran, by the line of it, and by every function that was under way."""

    samples: int
    own: Counter[str]
    lines: Counter[str]
    total: Counter[str]


_OTHER_THREAD = re.compile(r"^[^;]*\b_bootstrap \(threading\.py")
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


def read_stacks(lines: Iterable[str]) -> PythonProfile:
    """What ``py-spy record --format raw`` has written: a stack and its count on each line. Only those of the first
    thread count: of others it is not seen whether they sleep."""
    own, by_line, total = Counter[str](), Counter[str](), Counter[str]()
    samples = 0
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if not stack or not count.isdigit() or _OTHER_THREAD.search(stack):
            continue
        times = int(count)
        samples += times
        names = []
        for frame in stack.split(";"):
            found = _FRAME.match(frame)
            names.append((f"{found['function']} ({found['file']})", found["line"] or "?") if found else (frame, "?"))
        leaf, number = names[-1]
        own[leaf] += times
        by_line[f"{leaf[:-1]}:{number})"] += times
        for name in {name for name, _ in names}:
            total[name] += times
    return PythonProfile(samples, own, by_line, total)


_CALLS = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(?P<calls>\d+)\s+(?:\d+\s+)?(?P<name>\w+)$")


def read_calls(summary: str) -> Counter[str]:
    """What ``strace -c`` has written: system calls by name."""
    calls = Counter[str]()
    for line in summary.splitlines():
        found = _CALLS.match(line)
        if found is not None and found["name"] != "total":
            calls[found["name"]] += int(found["calls"])
    return calls


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A tool that is told to end as Ctrl-C does, once the block ends, and is waited for. What it says is dropped."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def perf_command(program: str, pids: Sequence[int], path: Path) -> list[str]:
    chosen = ",".join(map(str, pids))
    return [program, "record", "-q", "-e", "cpu-clock", "-F", str(PERF_RATE), "-p", chosen, "-o", str(path)]


async def perf_samples(program: str, path: Path) -> list[NativeSample]:
    """What was recorded into ``path``."""
    command = (program, "script", "-i", str(path), "-F", "comm,pid,tid,ip,sym,dso")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    printed, _ = await process.communicate()
    return read_perf(printed.decode(errors="replace"))


def python_command(program: str, pid: int, path: Path) -> list[str]:
    """It records until it is told to end."""
    return [program, "record", "--rate", str(PYTHON_RATE), "--format", "raw", "--output", str(path),
            "--duration", "unlimited", "--pid", str(pid)]  # fmt: skip


def calls_command(program: str, pids: Sequence[int], path: Path) -> list[str]:
    command = [program, "-f", "-qq", "-c", "-o", str(path)]
    for pid in pids:
        command += ["-p", str(pid)]
    return command
