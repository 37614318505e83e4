"""What a cell has started ends with the runner, were it killed with SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.experiment.real_runs import QUICK, experiment, plan_tree, written
from tests.patience import PATIENCE

from anywire_experiment.run.guard import GRACE, end
from anywire_experiment.run.guarding import guarded

pytestmark = pytest.mark.timeout(240)

STUBBORN = """
import os, signal, subprocess, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
# One that stays in the session, and one that leaves session and tree, as a daemon does.
child = subprocess.Popen(["sleep", "3600"])
made = subprocess.run(["sh", "-c", "setsid sleep 3600 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} {int(made.stdout)}")
print("ready", flush=True)
time.sleep(3600)
"""
LONG = {"long": {"seconds": 3600, "warm_up": QUICK, "arrivals": {"kind": "poisson", "rate": 20}}}


def stubborn(told: Path) -> dict[str, Any]:
    """A program that does not end when it is asked to; ``told`` gets its pid and those of what it starts."""
    return {
        "command": ["{python}", "{folder}/stubborn.py", str(told)],
        "files": {"stubborn.py": STUBBORN},
        "ready": "^ready$",
    }


def foreign(told: Path) -> dict[str, Any]:
    """An engine asked directly, beside such a program."""
    engine = {
        "command": ["{python}", "-m", "anywire_experiment.mock_engine", "--host", "{host}", "--port", "{port}"],
        "ready": {"url": "http://{host}:{port}/health"},
        "base_url": "http://{host}:{port}/v1",
    }
    return {"factors": {"system": [{"engine": engine}]}, "companions": {"stubborn": stubborn(told)}}


def own(told: Path) -> dict[str, Any]:
    """Anywire's processes, of which one cannot hear that it is to end, beside such a program."""
    fault = {"kind": "pause", "at": 0.1, "lasts": 3000}
    return {
        "agents": 2,
        "factors": {"transport": ["zeromq"]},
        "companions": {"stubborn": stubborn(told)},
        "workloads": {"long": LONG["long"] | {"fault": fault}},
    }


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Nobody tells of processes that are not this one's children."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event tells of them
            await asyncio.sleep(0.02)


def is_under_way(started: list[psutil.Process], *, is_own: bool) -> bool:
    """Whether all processes of the cell were started; of Anywire's, whether one of them is paused."""
    try:
        if is_own:
            return any(each.status() == psutil.STATUS_STOPPED for each in started)
        commands = [" ".join(each.cmdline()) for each in started]
    except psutil.Error:
        return False  # one that ended meanwhile
    return all(any(name in each for each in commands) for name in ("anywire_experiment.load", "mock_engine"))


@pytest.mark.parametrize("made", [foreign, own])
async def test_every_process_of_the_cell_is_gone_after_the_runner_was_killed(
    tmp_path: Path, dds_domain: int, made: Callable[[Path], dict[str, Any]]
) -> None:
    told = tmp_path / "told"
    tree = plan_tree(dds_domain, workloads=LONG) | made(told)
    async with experiment("run", written(tmp_path, tree), "--out", tmp_path / "record") as running:
        runner = psutil.Process(running.pid)
        await until(lambda: told.exists() and len(told.read_text().split()) == 3)
        await until(lambda: is_under_way(runner.children(), is_own=made is own))
        found = {each.pid: each for each in runner.children(recursive=True)}
        try:
            named = [int(each) for each in told.read_text().split()]
            assert found.keys() >= {*named}, "what has left the session is below the program all the same"
            running.send_signal(signal.SIGKILL)
            await running.wait()
            await until(lambda: all(map(is_gone, found.values())), GRACE + PATIENCE)
        finally:
            for each in found.values():
                with suppress(psutil.NoSuchProcess):
                    each.kill()


async def test_the_guard_is_there_as_long_as_anything_is() -> None:
    first, second = await guarded(), await guarded()
    assert first is second
    children = psutil.Process().children()
    (process,) = [each for each in children if "anywire_experiment.run.guard" in each.cmdline()]
    await first.release()
    assert process.is_running()
    await second.release()
    assert is_gone(process)
    third = await guarded()
    assert third is not first
    await third.release()


def test_another_process_that_got_the_number_of_one_that_has_ended_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        ended = psutil.Process(other.pid)
        ended._ident = (other.pid, 1.0)  # type: ignore[attr-defined] # one that began at another time
        end([ended])
        assert other.poll() is None
        end([psutil.Process(other.pid)])
        assert other.wait() == -signal.SIGTERM


async def test_a_guard_that_was_killed_holds_up_nothing() -> None:
    guard = await guarded()
    (process,) = [each for each in psutil.Process().children() if "anywire_experiment.run.guard" in each.cmdline()]
    process.kill()
    await until(lambda: is_gone(process))
    guard.watch(process.pid)
    async with asyncio.timeout(PATIENCE):
        await guard.release(process.pid)
    again = await guarded()
    assert again is not guard
    await again.release()
