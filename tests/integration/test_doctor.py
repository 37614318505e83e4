"""What keeps an agent from its orchestrator, and where that is said: by ``anywire doctor`` and in both logs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq
from tests.patience import PATIENCE

pytestmark = pytest.mark.timeout(90)

Options = dict[str, Any]
Write = Callable[..., list[str]]


class Running:
    """A command whose lines can be waited for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.logged: list[str] = []

    async def ready(self) -> str:
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()
        assert line.startswith("ready: "), line
        return line.split()[1]

    async def says(self, *parts: str) -> str:
        """Read its log until a line has all of these."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            async for line in self.process.stderr:
                self.logged.append(line.decode())
                if all(part in self.logged[-1] for part in parts):
                    return self.logged[-1]
        raise AssertionError(f"{parts} not said, but: {''.join(self.logged)}")

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        # Its pipes are read to their ends, else they would stay open beyond the test.
        await asyncio.wait_for(self.process.communicate(), PATIENCE)


Start = Callable[..., Awaitable[Running]]


async def command(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Running] = []

    async def begin(*arguments: str) -> Running:
        running.append(Running(await command(*arguments)))
        return running[-1]

    yield begin
    for one in running:
        await one.end()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a YAML file; gives the arguments that use it."""

    def config(name: str, transports: dict[str, Options]) -> list[str]:
        settings = {"transports": transports, "server": {"port": 0}, "engine": "synthetic"}
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(settings))
        return ["--config", str(path)]

    return config


async def doctor(*arguments: str) -> dict[str, dict[str, Any]]:
    """Its findings, by check; nothing may have failed."""
    process = await command("doctor", "--json", *arguments)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    found = {each["check"]: each for each in json.loads(out)}
    assert process.returncode == 0, (found, err)
    return found


async def listed(client: httpx.AsyncClient) -> list[str]:
    return [agent["id"] for agent in (await client.get("/api/v1/agents")).json()["data"]]


# Whether an orchestrator is seen


async def test_only_the_orchestrator_of_the_same_domain_is_seen(
    start: Start, write: Write, dds_domain: int, other_dds_domain: int
) -> None:
    other = other_dds_domain
    common = ["--engine", "synthetic", "--port", "0", "--transport", "dds", "--dds-domain"]
    serve = await start("serve", *write("serve", {"dds": {"domain": dds_domain}}))
    agent = await start("agent", "--agent-id", "elsewhere", *write("agent", {"dds": {"domain": other}}))
    url = await serve.ready()
    await agent.ready()
    here, there = await asyncio.gather(doctor(*common, str(dds_domain)), doctor(*common, str(other)))

    seen = here["orchestrator over dds"]
    assert (seen["ok"], seen["state"]) == (True, "ok")
    assert f"an orchestrator is seen over dds in domain {dds_domain} " in seen["detail"]
    assert "(hub-" in seen["detail"]
    unseen = there["orchestrator over dds"]
    assert (unseen["ok"], unseen["state"]) == (True, "warn")
    assert f"no orchestrator is seen over dds in domain {other} " in unseen["detail"]
    assert all(part in unseen["remedy"] for part in ("same domain", "anywire config", "interface, peers, multicast"))

    await serve.says("agent doctor-look-", "joined")
    await serve.says("link to agent doctor-look-")
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        assert await listed(client) == [], "neither the agent of the other domain nor what the doctor opened"
    assert "elsewhere" not in "".join(serve.logged)


async def test_an_orchestrator_on_the_only_address_is_seen_and_no_failure(
    start: Start, write: Write, options_of: Callable[[str], Options]
) -> None:
    """No second hub can listen there, and none needs to."""
    names = ("http", "zeromq")
    taken, free = (
        {name: {key: each[:1] for key, each in options_of(name).items()} for name in names} for _ in range(2)
    )
    serve = await start("serve", *write("taken", taken))
    await serve.ready()
    seen, unseen = await asyncio.gather(doctor(*write("taken", taken)), doctor(*write("free", {"http": free["http"]})))
    for name in names:
        of_transport, of_orchestrator = seen[f"transport {name}"], seen[f"orchestrator over {name}"]
        assert of_transport["state"] == of_orchestrator["state"] == "ok"
        assert "is linked by the orchestrator hub-" in of_transport["detail"]
        address = taken[name]["agent_addresses"][0]
        assert f"an orchestrator is seen over {name} at {address} (hub-" in of_orchestrator["detail"]
    alone = unseen["orchestrator over http"]
    assert alone["state"] == "warn"
    assert alone["detail"] == f"no orchestrator is seen over http at {free['http']['agent_addresses'][0]}"
    assert "listen on one of these addresses" in alone["remedy"]


# Who is not admitted


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def wrong_server_key() -> tuple[Options, Options]:
    (_, hub), (public, agent) = keys(), keys()
    return {"secret_key": hub, "allowed_keys": [public]}, {"secret_key": agent, "server_key": keys()[0]}


def wrong_token() -> tuple[Options, Options]:
    return {"token": "of the orchestrator"}, {"token": "of the agent"}


@pytest.mark.parametrize(
    ("transport", "secrets", "at_server", "at_agent"),
    [
        ("zeromq", wrong_server_key, "its server_key is not our public key", "or server_key is not its public key"),
        ("http", wrong_token, "refused a request from 127.0.0.1: it came with a wrong token", "set the same `token`"),
    ],
)
async def test_an_agent_with_a_wrong_secret_is_never_listed_and_both_logs_say_why(
    start: Start,
    write: Write,
    options_of: Callable[[str], Options],
    transport: str,
    secrets: Callable[[], tuple[Options, Options]],
    at_server: str,
    at_agent: str,
) -> None:
    options = options_of(transport)
    of_server, of_agent = secrets()
    serve = await start("serve", *write("serve", {transport: options | of_server}))
    url = await serve.ready()
    agent = await start("agent", "--agent-id", "stranger", *write("agent", {transport: options | of_agent}))
    await agent.ready()
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        said = [await serve.says(at_server), await agent.says(at_agent)]
        assert await listed(client) == []
    for line in said:
        assert not any(
            str(of[key]) in line for of in (of_server, of_agent) for key in ("secret_key", "token") if key in of
        )
    assert "stranger joined" not in "".join(serve.logged)
