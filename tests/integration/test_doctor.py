"""What keeps an agent from its orchestrator, and where that is said: by ``anywire doctor`` and in both logs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import zmq
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.cli import doctor_transports
from anywire.cli.finding import Finding
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from reserved import free_port

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
    """As another user's, who knows nothing of what runs here."""
    pipe = asyncio.subprocess.PIPE
    folder = tempfile.mkdtemp(dir=os.environ["XDG_RUNTIME_DIR"])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=os.environ | {"XDG_RUNTIME_DIR": folder},
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


async def doctor(*arguments: str, fails: str = "") -> dict[str, dict[str, Any]]:
    """Its findings, by check; only the check ``fails`` may have failed, and must have."""
    process = await command("doctor", "--json", *arguments)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    found = {each["check"]: each for each in json.loads(out)}
    assert [each["check"] for each in found.values() if not each["ok"]] == ([fails] if fails else []), (found, err)
    assert process.returncode == (1 if fails else 0), (found, err)
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
    assert f"no orchestrator is seen over dds in domain {other}" in unseen["detail"]
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
        assert "an agent in another process was found" in of_transport["detail"]
        address = taken[name]["agent_addresses"][0]
        assert f"an orchestrator is seen over {name} at {address} (hub-" in of_orchestrator["detail"]
    alone = unseen["orchestrator over http"]
    assert alone["state"] == "warn"
    assert alone["detail"] == f"no orchestrator is seen over http at {free['http']['agent_addresses'][0]}"
    assert "listen on one of these addresses" in alone["remedy"]


async def test_an_orchestrator_at_the_same_nats_server_is_seen_and_a_server_that_is_away_is_named(
    start: Start, write: Write, options_of: Callable[[str], Options]
) -> None:
    here, elsewhere = options_of("nats"), {"servers": f"nats://127.0.0.1:{free_port()}"}
    serve = await start("serve", *write("serve", {"nats": here}))
    await serve.ready()
    seen, other = await asyncio.gather(
        doctor(*write("same", {"nats": here})), doctor(*write("other", {"nats": options_of("nats")}))
    )
    assert "an agent in another process was found" in seen["transport nats"]["detail"]
    assert seen["orchestrator over nats"]["state"] == "ok"
    assert "48 kB went there and back in" in seen["orchestrator over nats"]["detail"]
    assert other["transport nats"]["state"] == "ok"
    assert other["orchestrator over nats"]["state"] == "warn", "it is of another fleet"
    away = await doctor(*write("away", {"nats": elsewhere}), fails="transport nats")
    assert "nobody listens there: start it (`nats-server`)" in away["transport nats"]["detail"]


async def test_that_any_agent_may_join_from_elsewhere_is_told_where_clients_need_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, record_of(new_key()))
    settings = {
        "transports": {"memory": {}, "zeromq": {"agent_addresses": [f"tcp://0.0.0.0:{free_port()}"]}},
        "server": {"port": 0},
        "engine": "synthetic",
    }
    seen = {}
    for name, access in (("with", {"keys": str(keys)}), ("without", {})):
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({**settings, "access": access}))
        seen[name] = await doctor("--config", str(path))
    told = seen["with"]["agents"]
    assert told["state"] == "warn"
    assert "over zeromq from another machine can join as an agent" in told["detail"]
    assert "identity.admitted" in told["remedy"]
    assert "agents" not in seen["without"], "this may be the machine of an agent"


# Who is not admitted


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def wrong_server_key() -> tuple[Options, Options]:
    (_, hub), (public, agent) = keys(), keys()
    return {"secret_key": hub, "allowed_keys": [public]}, {"secret_key": agent, "server_key": keys()[0]}


def key_not_admitted() -> tuple[Options, Options]:
    (of_hub, hub), (_, agent) = keys(), keys()
    return {"secret_key": hub, "allowed_keys": [keys()[0]]}, {"secret_key": agent, "server_key": of_hub}


def keys_at_one_end() -> tuple[Options, Options]:
    of_hub, _ = keys()
    return {}, {"secret_key": keys()[1], "server_key": of_hub}


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


def no_token() -> tuple[Options, Options]:
    return {"token": "of the orchestrator"}, {}


FURTHER_SECRETS = [
    ("zeromq", wrong_server_key, "server_key is not its public key"),
    # Which of the two ends notices it first is a matter of time.
    ("zeromq", keys_at_one_end, "CURVE keys"),
    ("http", wrong_token, "came with a wrong token: set the same `token`"),
]


@pytest.mark.parametrize(
    ("transport", "secrets", "cause"),
    [
        ("zeromq", key_not_admitted, "add its public key to allowed_keys there"),
        ("http", no_token, "came with no token: set the same `token`"),
        ("grpc", wrong_token, "it came with a wrong token: set the same `token`"),
        *FURTHER_SECRETS * SOAK,
    ],
)
async def test_the_doctor_of_an_agent_host_names_the_wrong_secret_and_nothing_else(
    start: Start,
    write: Write,
    options_of: Callable[[str], Options],
    transport: str,
    secrets: Callable[[], tuple[Options, Options]],
    cause: str,
) -> None:
    options = {key: each[:1] for key, each in options_of(transport).items()}
    of_server, of_agent = secrets()
    serve = await start("serve", *write("serve", {transport: options | of_server}))
    await serve.ready()
    found = await doctor(*write("agent", {transport: options | of_agent}), fails=f"orchestrator over {transport}")
    failed = found[f"orchestrator over {transport}"]
    assert cause in failed["detail"]
    assert f"transports.{transport}" in failed["remedy"]


def certificate(folder: Path, name: str, host: str) -> Options:
    """Signed by itself, for that host."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", f"subjectAltName=DNS:{host}"], check=True, capture_output=True)
    return {"tls_cert": str(cert), "tls_key": str(key)}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="missing: the command openssl, to make certificates")
@pytest.mark.parametrize(
    ("host", "trusted", "cause"),
    [
        ("elsewhere.example", "server", "TLS failed"),
        ("localhost", "other", "TLS failed"),
    ],
    ids=["another name", "another authority"],
)
async def test_the_doctor_names_a_certificate_that_does_not_fit(
    start: Start,
    write: Write,
    options_of: Callable[[str], Options],
    tmp_path: Path,
    host: str,
    trusted: str,
    cause: str,
) -> None:
    (address,) = options_of("grpc")["agent_addresses"][:1]
    addresses = {"agent_addresses": [f"localhost:{address.rpartition(':')[2]}"]}
    made = {name: certificate(tmp_path, name, host) for name in ("server", "other")}
    serve = await start("serve", *write("serve", {"grpc": addresses | made["server"] | {"token": "t"}}))
    await serve.ready()
    options = addresses | {"tls_ca": made[trusted]["tls_cert"], "token": "t"}
    found = await doctor(*write("agent", {"grpc": options}), fails="orchestrator over grpc")
    assert cause in found["orchestrator over grpc"]["detail"]
    assert "CERTIFICATE_VERIFY_FAILED" in found["orchestrator over grpc"]["detail"] or "ertificate" in str(found)


async def test_long_messages_and_the_clock_are_tried_at_the_orchestrator(
    start: Start, write: Write, options_of: Callable[[str], Options]
) -> None:
    options = {"http": options_of("http")}
    serve = await start("serve", *write("serve", options))
    await serve.ready()
    found = await doctor(*write("agent", options))
    assert "48 kB went there and back in" in found["orchestrator over http"]["detail"]


# What stands between the two, seen from the client's side


class Orchestrators:
    """Stands for a client with one orchestrator, which answers ``echo`` and ``agents`` as it is told."""

    def __init__(self, ahead: float = 0.0, most: int = 1 << 20, *agents: dict[str, Any]) -> None:
        self.hub = self
        self._ahead, self._most, self._agents = ahead, most, agents

    async def agents_until(self, condition: object) -> None: ...

    def agents(self) -> list[Any]:
        return [SimpleNamespace(agent_id="orchestrator-1")]

    async def command(
        self, name: str, arguments: dict[str, Any], *, orchestrator: str, deadline: float
    ) -> AsyncIterator[dict[str, Any]]:
        assert orchestrator == "orchestrator-1"
        if name == "agents":
            for agent in self._agents:
                yield agent
            return
        assert name == "echo"
        if len(arguments["data"]) > self._most:
            await asyncio.Event().wait()
        yield {"arguments": arguments, "time": time.time() + self._ahead, "version": "0"}


@pytest.mark.parametrize(("ahead", "which"), [(3600.0, "3600 s ahead of"), (-3600.0, "3600 s behind")])
async def test_another_clock_is_told(ahead: float, which: str) -> None:
    seen = Finding("orchestrator over dds", True, "an orchestrator is seen")
    found = await doctor_transports._echoed(seen, cast("Any", Orchestrators(ahead=ahead)))
    assert (found.state, found.ok) == ("warn", True)
    assert f"the clock of orchestrator-1 is {which} the one here" in found.detail


async def test_an_agent_in_quarantine_is_told_with_what_to_do() -> None:
    seen = Finding("orchestrator over dds", True, "an orchestrator is seen")
    health = {"state": "quarantined", "order": "", "reason": "5 × engine_failed", "retry_in_ms": 0}
    client: Any = Orchestrators(0.0, 1 << 20, {"id": "a", "health": health})
    found = await doctor_transports._echoed(seen, client)
    assert (found.state, found.ok) == ("warn", True)
    assert "the agent a is quarantined: 5 × engine_failed" in found.detail
    assert "anywire restore AGENT" in found.remedy


async def test_a_path_on_which_only_short_messages_arrive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_transports, "ECHO", 0.05)
    seen = Finding("orchestrator over dds", True, "an orchestrator is seen")
    found = await doctor_transports._echoed(seen, cast("Any", Orchestrators(most=1000)))
    assert found.state == "fail"
    assert "only short messages arrive" in found.detail
    assert "fragments" in found.remedy
