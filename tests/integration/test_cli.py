"""The command line as a user meets it: real processes, the synthetic engine, one process or several."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from tests.patience import PATIENCE

MEMORY = ["--transport", "memory", "--engine", "synthetic"]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def dds(dds_domain: int) -> list[str]:
    return ["--transport", "dds", "--dds-domain", str(dds_domain), "--engine", "synthetic"]


def anywire(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anywire.cli", *arguments]
    environment = _environment() | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)


def _environment() -> dict[str, str]:
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | wide


class Running:
    """A command that goes on until it is told to stop."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log: IO[str] = log.open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anywire.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(),
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip()
        assert self.ready.startswith("ready: "), self.errors()
        self.url = self.ready.split()[1]
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def errors(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read what it logs until ``text`` is there, on so many lines."""
        with subprocess.Popen(["tail", "-n", "+1", "-F", self._log.name], stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            lines = itertools.islice((line for line in tail.stdout if text in line), times)
            found = len(list(lines))
            tail.kill()
        assert found == times

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code

    def left(self) -> list[psutil.Process]:
        """The processes it has started and left behind."""
        return psutil.wait_procs(self.children, timeout=PATIENCE)[1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(Running(tmp_path / f"{len(running)}.log", *arguments))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
        for child in one.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


# One server and its clients


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("transport", "processes"), [("memory", 1), ("dds", 3)])
def test_up_serves_and_leaves_nothing_behind(
    start: Any, dds: list[str], transport: str, processes: int, number: signal.Signals
) -> None:
    up = start("up", "--agents", "2", "--port", "0", *(dds if transport == "dds" else MEMORY))
    assert re.fullmatch(rf"ready: http://127\.0\.0\.1:\d+ \(2 agents, {transport}\)", up.ready)
    assert len(up.children) == processes - 1

    agents = json.loads(anywire("agents", "--json", "--url", up.url).stdout)
    assert len({agent["id"] for agent in agents}) == 2
    assert {agent["transport"] for agent in agents} == {transport}
    assert {agent["pid"] for agent in agents} == ({child.pid for child in up.children} or {up.process.pid})
    table = anywire("agents", "--url", up.url).stdout
    assert all(agent["id"] in table for agent in agents)

    first, again = (anywire("chat", "hello", "--max-tokens", "7", "--url", up.url) for _ in range(2))
    assert (first.returncode, len(first.stdout.split())) == (0, 7)
    assert first.stdout == again.stdout, "the synthetic engine answers alike"

    assert up.end(number) == 0
    assert not up.left()


def test_a_running_task_is_finished_at_shutdown(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("engine: {name: synthetic, length: 20, itl: 50}")
    up = start("up", "--port", "0", *MEMORY, "--config", str(file))
    command = [sys.executable, "-m", "anywire.cli", "chat", "hello", "--url", up.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as chat:
        assert chat.stdout is not None
        chat.stdout.read(1)
        assert up.end() == 0
        rest = chat.stdout.read()
        assert len(rest.split()) == 20
    assert chat.returncode == 0


def test_a_second_signal_ends_at_once(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "endless.yaml"
    file.write_text("engine: {name: synthetic, length: 100000, itl: 50}\nshutdown_grace: 600")
    up = start("up", "--port", "0", *MEMORY, "--config", str(file))
    command = [sys.executable, "-m", "anywire.cli", "chat", "hello", "--url", up.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()) as chat:
        assert chat.stdout is not None
        chat.stdout.read(1)
        up.process.send_signal(signal.SIGINT)
        up.wait_for("stopping")
        assert up.end() == 1
        chat.stdout.read()
    assert chat.returncode == 1


def test_serve_and_agent_find_each_other(start: Any, dds: list[str]) -> None:
    serve = start("serve", "--port", "0", *dds[:4])
    agent = start("agent", *dds, "--agent-id", "one", "--model", "m", "--slots", "3")
    assert agent.ready == "ready: agent one, engine synthetic (m), over dds"
    serve.wait_for("agent one joined")
    (found,) = json.loads(anywire("agents", "--json", "--url", serve.url).stdout)
    assert (found["id"], found["pid"], found["slots"], found["models"]) == ("one", agent.process.pid, 3, ["m"])
    assert agent.end() == 0
    serve.wait_for("link to agent one")
    assert json.loads(anywire("agents", "--json", "--url", serve.url).stdout) == []
    assert serve.end(signal.SIGTERM) == 0


# Children


def test_a_killed_agent_is_reported_and_started_again(start: Any, dds: list[str]) -> None:
    up = start("up", "--agents", "1", "--port", "0", *dds)
    (agent,) = up.children
    (before,) = json.loads(anywire("agents", "--json", "--url", up.url).stdout)
    agent.kill()
    up.wait_for(f"{before['id']} ended unexpectedly (killed by SIGKILL)")
    up.wait_for(f"agent {before['id']} joined over dds", times=2)
    assert anywire("chat", "hello", "--url", up.url).returncode == 0
    (after,) = json.loads(anywire("agents", "--json", "--url", up.url).stdout)
    assert after["id"] == before["id"]
    assert after["pid"] != before["pid"]
    up.children = psutil.Process(up.process.pid).children(recursive=True)
    assert up.end() == 0
    assert not up.left()


def test_agents_end_with_a_killed_parent(start: Any, dds: list[str]) -> None:
    up = start("up", "--agents", "2", "--port", "0", *dds)
    assert len(up.children) == 2
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    assert not up.left()


def test_an_agent_that_cannot_start_ends_all_with_its_last_words(tmp_path: Path, dds: list[str]) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    up = anywire("up", "--port", "0", *dds[:4], "--engine", "broken", "--plugin", str(plugin))
    assert up.returncode == 1
    assert "did not start (exit status 1)" in up.stderr
    assert "error: no such model anywhere" in up.stderr
    assert "Traceback" not in up.stderr


BROKEN = """
import pydantic
from anywire.errors import EngineFailed
from anywire.hookspecs import hookimpl
from anywire.builtin.synthetic import SyntheticEngine

class Broken(SyntheticEngine):
    name = "broken"
    async def start(self, changed):
        raise EngineFailed("no such model anywhere")

@hookimpl
def anywire_register(kind):
    return {"broken": Broken} if kind == "engines" else None
"""


# Clients of a running server


def test_an_error_of_the_server_is_shown(start: Any) -> None:
    up = start("up", "--port", "0", *MEMORY)
    done = anywire("chat", "hello", "--model", "other", "--url", up.url)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "other" in done.stderr
    assert "404" in done.stderr


def test_doctor_knows_a_server_of_its_own(start: Any) -> None:
    up = start("up", "--port", "0", *MEMORY)
    done = anywire("doctor", "--port", up.url.rpartition(":")[2], *MEMORY)
    assert done.returncode == 0
    assert "an Anywire server runs" in done.stdout
