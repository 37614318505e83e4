"""``anywire serve --gateways N``: real processes on one port, killed, started again, ended with their orchestrator."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.integration.anywire_processes import FOR_EVER, Process, body, start
from tests.integration.test_gateway_limits import Keys
from tests.patience import PATIENCE

import reserved
from anywire.builtin.tcp import TcpConfig
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.roles.orchestrator_role import OrchestratorRole

__all__ = ["start"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux divides the connections of a port")


def write(folder: Path, options_of: Callable[[str], dict[str, Any]], **settings: Any) -> list[str]:
    path = folder / "anywire.yaml"
    told = {
        "transports": {"tcp": options_of("tcp")},
        "server": {"port": 0},
        "engine": {"name": "synthetic"},
        "agent": {"slots": 64},
        **settings,
    }
    path.write_text(json.dumps(told))
    return ["--config", str(path)]


async def ask(url: str, number: int, **headers: str) -> httpx.Response:
    """By a connection of its own, which the kernel gives to any of the processes."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        return await client.post("/v1/chat/completions", json=body(number, stream=False), headers=headers)


def gateways_of(process: Process) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(process.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie too
            if each.cmdline()[-1:] == ["gateway"]:
                found.append(each)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_two_gateways_serve_one_port_and_one_may_be_killed(
    start: Any, tmp_path: Path, options_of: Callable[[str], dict[str, Any]], runtime_folder: Path
) -> None:
    arguments = write(tmp_path, options_of)
    serve = await start("serve", *arguments, "--gateways", "2")
    await start("agent", *arguments)
    assert serve.url.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(base_url=serve.url, timeout=PATIENCE) as client:
        while (await client.get("/v1/models")).json()["data"] == []:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    children = gateways_of(serve)
    assert len(children) == 2
    assert all([(await ask(serve.url, number)).status_code == 200 for number in range(20)])

    killed = children[0]
    killed.kill()
    await until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
    answers = [await ask(serve.url, number) for number in range(10)]
    assert {each.status_code for each in answers} == {200}, "the other one serves"
    await until(lambda: len(gateways_of(serve)) == 2 and killed.pid not in [each.pid for each in gateways_of(serve)])
    assert all([(await ask(serve.url, number)).status_code == 200 for number in range(10)])

    async with httpx.AsyncClient(base_url=serve.url, timeout=PATIENCE) as client:
        metrics = (await client.get("/metrics")).text
    assert "anywire_gateway_processes_restarts_total 1.0" in metrics
    counted = [line for line in metrics.splitlines() if line.startswith("anywire_tasks_total") and "answered" in line]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == 40, metrics

    children = gateways_of(serve)
    await serve.end(signal.SIGTERM)
    assert serve.process.returncode == 0
    assert not any(each.is_running() for each in children)
    assert not list((runtime_folder / "anywire").glob("gateways-*"))


async def test_limits_of_a_key_hold_across_processes_and_commands_find_the_orchestrator(
    start: Any, tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> None:
    keys = Keys(tmp_path)
    keys.add("k", requests_per_minute=5)
    arguments = write(tmp_path, options_of, access={"keys": str(keys.path)})
    serve = await start("serve", *arguments, "--gateways", "2")
    await start("agent", *arguments)
    headers = keys.headers("k")
    async with httpx.AsyncClient(base_url=serve.url, timeout=PATIENCE, headers=headers) as client:
        while (await client.get("/v1/models")).json()["data"] == []:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    answers = [await ask(serve.url, number, **headers) for number in range(12)]
    assert sorted(each.status_code for each in answers) == [200] * 5 + [429] * 7
    assert (await ask(serve.url, 0)).status_code == 401
    listing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", "tasks", "--json", stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(listing.communicate(), PATIENCE)
    assert listing.returncode == 0
    assert json.loads(told) == []


async def test_processes_end_when_their_orchestrator_is_killed(
    start: Any, tmp_path: Path, options_of: Callable[[str], dict[str, Any]], runtime_folder: Path
) -> None:
    serve = await start("serve", *write(tmp_path, options_of), "--gateways", "2")
    children = gateways_of(serve)
    await serve.end(signal.SIGKILL)
    await until(lambda: not any(each.is_running() for each in children))
    (left,) = (runtime_folder / "anywire").glob("gateways-*")
    await start("serve", *write(tmp_path, options_of), "--gateways", "1")
    (new,) = (runtime_folder / "anywire").glob("gateways-*")
    assert new != left


async def test_a_port_that_is_taken_is_said(tmp_path: Path, options_of: Callable[[str], dict[str, Any]]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", reserved.free_ports(1)[0]), reuse_port=True) as taken:
        number = taken.getsockname()[1]
        arguments = write(tmp_path, options_of, server={"port": number})
        serve = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "anywire.cli", "serve", *arguments, "--gateways", "2"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(serve.communicate(), PATIENCE)
    assert serve.returncode == 1
    assert f"port {number}".encode() in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"gateways": []}, "needs a gateway that can share its port"),
        ({"standby": {"enabled": True}}, "standby.enabled do not go together"),
        ({"server": {"gateway_processes": 2, "host": "", "unix": "/tmp/anywire-none.sock"}}, "server.host is empty"),
    ],
)
def test_what_does_not_go_together_is_said(settings: dict[str, Any], what: str) -> None:
    told = {"transports": "memory", "server": {"gateway_processes": 2}} | settings
    with pytest.raises(ConfigError, match=what):
        OrchestratorRole(Config.model_validate(told), Plugins())


async def test_what_a_killed_process_had_ends_and_counts_no_more(
    start: Any, tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> None:
    keys = Keys(tmp_path)
    keys.add("k", concurrency=1)
    engine = {"name": "synthetic", "itl": FOR_EVER}
    arguments = write(tmp_path, options_of, access={"keys": str(keys.path)}, engine=engine)
    serve = await start("serve", *arguments, "--gateways", "1")
    await start("agent", *arguments)
    url, headers = f"{serve.url}/v1/chat/completions", keys.headers("k")

    async def begun(client: httpx.AsyncClient) -> int:
        """The status of a stream that is left alone after its first words."""
        asked = client.build_request("POST", url, json=body(0, stream=True), headers=headers)
        answer = await client.send(asked, stream=True)
        if answer.status_code == 200:
            await anext(answer.aiter_lines())
        return answer.status_code

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        while (await client.get(f"{serve.url}/v1/models", headers=headers)).json()["data"] == []:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await begun(client) == 200
        assert await begun(client) == 429
        (killed,) = gateways_of(serve)
        killed.kill()
        await until(lambda: killed.pid not in (found := [each.pid for each in gateways_of(serve)]) and bool(found))
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert await begun(client) == 200
                    return
                except httpx.ConnectError:  # it does not listen yet
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 2**25),
        ({"pipeline": {"max_body_bytes": 2**26}}, 2**26),
        ({"transports": {"memory": {"max_message_bytes": 2**27}}}, 2**27),
        ({"pipeline": {"max_body_bytes": 2**31}}, 2**30),
    ],
)
def test_what_the_orchestrator_takes_passes_to_its_processes(settings: dict[str, Any], most: int) -> None:
    told = {"transports": "memory", "server": {"gateway_processes": 2}} | settings
    role = OrchestratorRole(Config.model_validate(told), Plugins())
    assert role._processes is not None
    (link,) = role._processes._config(8080).transports
    assert TcpConfig.model_validate(link.options).max_message_bytes == most
