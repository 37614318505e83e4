"""Processes that are begun before their configuration is known."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.patience import PATIENCE

from anywire.builtin.local import LocalLauncher, LocalProcess
from anywire.config import Config
from anywire.errors import AnywireError, LaunchFailed
from anywire.launcher import IMPORTS
from anywire.plugins import Plugins
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.stop import Stop
from anywire.testing.patience import START_PATIENCE, expect
from reserved import free_ports

ALONE = Config(
    transports={"memory": {"network": "prepared"}},
    engine="synthetic",
    client_plane=False,
)


def over_zeromq(**more: Any) -> Config:
    first, second = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    transport = {"agent_addresses": [first], "client_addresses": [second]}
    agents = [{"id": "a"}, {"id": "b"}]
    return Config(transports={"zeromq": transport}, engine="synthetic", gateways=[], agents=agents, **more)


def launcher() -> LocalLauncher:
    return LocalLauncher(LocalLauncher.Config())


async def test_a_prepared_process_takes_its_configuration_when_it_is_known() -> None:
    made = launcher()
    try:
        await made.prepare("agent", "one", ["no_such_module.at_all"])
        (prepared,) = made._processes
        started = await made.start("agent", ALONE, "one")
        assert started is prepared
        await expect(started.ready(), "it is ready", START_PATIENCE)
        assert started.pid
    finally:
        await made.close()


def test_what_does_not_import_ahead_is_told_when_it_is_needed_and_the_rest_is_imported(tmp_path: Path) -> None:
    (tmp_path / "traced.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    (tmp_path / "raising.py").write_text("raise SystemError('not this one')")
    lines = [json.dumps({IMPORTS: ["nothing_like.it", "raising", "traced"]}), ALONE.model_dump_json(), ""]
    done = subprocess.run(
        [sys.executable, "-m", "anywire.roles.process", "agent"],
        input="\n".join(lines),
        env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path]), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trace").exists()
    assert "not this one" not in done.stderr


@pytest.mark.parametrize("line", ["", json.dumps({IMPORTS: []}) + "\n", json.dumps({IMPORTS: ["json"]})[:-4]])
def test_one_that_never_gets_its_configuration_says_so(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anywire.roles.process", "agent"],
        input=line,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "the first line of standard input is missing" in done.stderr


async def test_close_ends_a_process_that_was_prepared_and_never_started() -> None:
    made = launcher()
    await made.prepare("agent", "one")
    (prepared,) = made._processes
    await expect(_running(prepared), "it runs", START_PATIENCE)
    pid = prepared.pid
    await expect(made.close(), "close returns", START_PATIENCE)
    assert await expect(prepared.ended(), "its end is told")
    assert not psutil.pid_exists(pid)


async def test_one_that_ends_before_its_configuration_comes_has_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.stdin.readline(); sys.exit('it cannot be')"
    monkeypatch.setattr(LocalLauncher, "command", lambda self, role, name: [sys.executable, "-c", script])
    made = launcher()
    try:
        await made.prepare("agent", "one")
        await expect(made._processes[0].ended(), "it ends", START_PATIENCE)
        process = await made.start("agent", ALONE, "one")
        with pytest.raises(LaunchFailed, match="it cannot be"):
            await expect(process.ready(), "it is told")
    finally:
        await made.close()


async def test_one_that_was_ended_before_its_configuration_comes_is_started_anew() -> None:
    made = launcher()
    told: list[None] = []
    try:
        await made.prepare("agent", "one")
        (prepared,) = made._processes
        await expect(_running(prepared), "it runs", START_PATIENCE)
        psutil.Process(prepared.pid).kill()
        await expect(prepared.ended(), "its end is seen", START_PATIENCE)
        process = await made.start("agent", ALONE, "one", lambda: told.append(None))
        await expect(process.ready(), "another one is ready", START_PATIENCE)
        assert process.pid
        assert told
    finally:
        await made.close()


async def test_a_launcher_that_starts_in_its_own_way_is_given_no_process_to_take_over() -> None:
    class Own(LocalLauncher):
        async def start(self, *arguments: Any, **options: Any) -> LocalProcess:
            raise NotImplementedError

    made = Own(Own.Config())
    await made.prepare("agent", "one")
    assert not made._processes


async def test_agents_are_prepared_before_their_orchestrator_starts_and_end_with_it_where_it_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared: list[tuple[str, list[str]]] = []
    prepare = LocalLauncher.prepare

    async def noted(self: LocalLauncher, role: Any, name: str, modules: Any = ()) -> None:
        prepared.append((name, list(modules)))
        await prepare(self, role, name, modules)

    monkeypatch.setattr(LocalLauncher, "prepare", noted)
    async with running(over_zeromq(), Plugins(), Stop()) as served:
        assert {each.agent_id for each in served.orchestrator.agents()} == {"a", "b"}
    modules = ["anywire_zeromq", "anywire.builtin.synthetic"]
    assert prepared == [("a", modules), ("b", modules)]

    before = psutil.Process().children()
    with pytest.raises(AnywireError, match="no-such-service"):
        async with running(over_zeromq(services=["no-such-service"]), Plugins(), Stop()):
            pass
    assert len(prepared) == 4
    assert psutil.Process().children() == before


async def _running(process: LocalProcess) -> None:
    while not process.pid:  # noqa: ASYNC110 (nobody tells it)
        await asyncio.sleep(0)
