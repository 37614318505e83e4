"""What deploy/ runs is run as it would be in its containers: user, read-only root, environment and files of the image,
of compose, of the manifests and of the units. Probes answer, and SIGTERM cuts no stream."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio
from aiohttp import web
from tests.integration.anywire_processes import until_agents
from tests.integration.deployments import DEPLOY, ROOT, documents, image, pod_of
from tests.integration.fake_openai_server import DONE, FakeServer, step
from tests.integration.test_docs import blocks
from tests.patience import PATIENCE
from tests.system.contained import Container, Spec
from tests.system.deployed import MODEL_SERVER, UNAVAILABLE, URL, Compose, client_of, opened, pod, unit
from tests.system.own_network import own_network

from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

pytestmark = [pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE), pytest.mark.timeout(180)]

ASKED = {"model": "m1", "messages": [{"role": "user", "content": "Hello"}]}
Start = Callable[..., Awaitable[Container]]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network() as own:
        if not own:
            pytest.skip("missing: the right to have a network of the test's own")
        yield


class GatedModel(FakeServer):
    """A model server whose streams say "first ", and "second" once ``go_on`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.port, self.go_on, self.handler = MODEL_SERVER, asyncio.Event(), self._gated

    async def _gated(self, request: web.Request) -> web.StreamResponse:
        if not self.requests[-1].get("stream"):
            return await self.say_hello(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(step("first ", role="assistant"))
        await self.go_on.wait()
        for each in (step("second"), step(finish="stop"), DONE):
            await response.write(each)
        return response


@pytest_asyncio.fixture
async def model() -> AsyncIterator[GatedModel]:
    server = GatedModel()
    await server.up()
    yield server
    server.go_on.set()
    await server.down()


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    opened(tmp_path)
    numbers = itertools.count()
    async with AsyncExitStack() as stack:

        async def begin(spec: Spec, words: str = "ready:") -> Container:
            container = Container(spec, tmp_path / "roots" / str(next(numbers)))
            stack.push_async_callback(container.close)
            await container.start(words)
            return container

        yield begin


class Streaming:
    """A stream that has begun, and is read to its end."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client, self.agent, self.text, self.done = client, "", "", False
        self._begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def begun(self) -> Streaming:
        await asyncio.wait_for(self._begun.wait(), PATIENCE)
        return self

    async def ended(self) -> str:
        await asyncio.wait_for(self._reading, PATIENCE)
        assert self.done
        return self.text

    async def _read(self) -> None:
        async with self._client.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as answer:
            assert answer.status_code == 200, await answer.aread()
            self.agent = answer.headers.get("x-anywire-agent", "")
            async for line in answer.aiter_lines():
                self.done |= line == "data: [DONE]"
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        self.text += choice["delta"].get("content") or ""
                    if self.text:
                        self._begun.set()


async def ids_of(agents: list[Container]) -> dict[str, Container]:
    return {(await each.says("ready: agent ")).split()[2].rstrip(","): each for each in agents}


async def check_drain(
    client: httpx.AsyncClient, model: GatedModel, orchestrator: Container, agents: list[Container]
) -> None:
    """An agent, then the orchestrator, are told to end while they stream: each ends after the whole stream."""
    by_id = await ids_of(agents)
    await until_agents(client, *by_id)
    stream = await Streaming(client).begun()
    (ending,) = [each for each in by_id if each == stream.agent]
    by_id[ending].end()
    await by_id[ending].says("stopping: SIGTERM")
    while (answer := await client.post("/v1/chat/completions", json=ASKED)).headers["x-anywire-agent"] == ending:
        assert answer.status_code == 200  # sent before the orchestrator knew
    assert answer.status_code == 200
    assert not stream.done
    model.go_on.set()
    assert await stream.ended() == "first second"
    assert await by_id[ending].ended() == 0

    model.go_on.clear()
    stream = await Streaming(client).begun()
    orchestrator.end()
    await orchestrator.says("stopping: SIGTERM")
    async with httpx.AsyncClient(base_url=URL) as probe:
        with pytest.raises(httpx.ConnectError):
            await probe.get("/readyz")
    assert not stream.done
    model.go_on.set()
    assert await stream.ended() == "first second"
    assert await orchestrator.ended() == 0


def check_confined(container: Container, user: str) -> None:
    """Its first process is of that user and has no rights."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{container.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [user] * 4
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


async def check_published(seed: str, client: httpx.AsyncClient) -> None:
    """What becomes of a deliberation is told to who listens, and kept for who comes later."""
    connection = await nats.connect("nats://127.0.0.1:4222", nkeys_seed_str=seed)
    try:
        heard = await connection.subscribe("deliberation.*")
        await connection.flush()
        asked = {"id": "d-1", "task": "How?", "members": 2, "rounds": 0}
        answer = await client.post("/v1/deliberations", json=asked)
        assert answer.status_code in (200, 201, 202), answer.text
        assert b"d-1" in (await heard.next_msg(PATIENCE)).data
        reader = await connection.jetstream().pull_subscribe("deliberation.*", durable="later")
        (message,) = await reader.fetch(1, timeout=PATIENCE)
        assert b"d-1" in message.data
    finally:
        await connection.close()


async def test_compose_runs_as_it_stands(tmp_path: Path, model: GatedModel, start: Start) -> None:
    compose = Compose(tmp_path)
    user = compose.variables["ANYWIRE_UID"]
    assert user != "0"
    again = compose.prepare()
    assert again.returncode != 0, "keys are never replaced"
    assert "secrets is there already" in again.stderr
    await start(compose.spec("nats"), "Server is ready")
    orchestrator = await start(compose.spec("orchestrator"))
    agents = [await start(compose.spec("agent")) for _ in range(compose.services["agent"]["deploy"]["replicas"])]
    for each, name in [(orchestrator, "orchestrator"), *((each, "agent") for each in agents)]:
        check_confined(each, user)
        assert await each.execute(image(name).health) == (0, "")
        assert (await each.execute(["touch", "/opt/anywire/x"]))[0] != 0
    async with client_of("nobody's") as stranger:
        assert (await stranger.get("/v1/models")).status_code == 401
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
    async with client_of(compose.secret("scrape.key")) as prometheus:
        assert "anywire_queue_length" in (await prometheus.get("/metrics")).text
        assert (await prometheus.post("/v1/agents/x/drain", json={})).status_code == 403
    further = new_key()
    add_key(compose.folder / "secrets" / "clients" / "keys.json", record_of(further))
    async with client_of(str(further)) as ann, asyncio.timeout(PATIENCE):
        while (await ann.get("/v1/models")).status_code != 200:  # noqa: ASYNC110 - the file is looked at again and again
            await asyncio.sleep(0.1)
    async with client_of(compose.secret("operator.key")) as client:
        await until_agents(client, *await ids_of(agents))
        await check_published(compose.secret("nats/hub.nk"), client)
        await check_drain(client, model, orchestrator, agents)
        # What it has kept lets it start again.
        await start(compose.spec("orchestrator"))
        assert (await client.get("/readyz")).status_code == 200


async def test_an_ordinary_user_prepares_compose(tmp_path: Path, start: Start) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    for each in (tmp_path / "deploy", *(tmp_path / "deploy").rglob("*")):
        os.chown(each, 10001, 10001)
    users = image("orchestrator")
    users.entry_point = ["sh"]
    spec = Spec(
        users, ["/deploy/compose/prepare"], kept={"/deploy": tmp_path / "deploy"}, environment={"ANYWIRE": "anywire"}
    )
    assert await (await start(spec, "made .env")).ended() == 0
    folder = tmp_path / "deploy" / "compose"
    assert (folder / ".env").read_text() == "ANYWIRE_UID=10001\nANYWIRE_GID=10001\n"
    made = [folder / "secrets", folder / "state", *(folder / "secrets").rglob("*"), *(folder / "state").rglob("*")]
    assert {(each.stat().st_uid, each.stat().st_mode & 0o077) for each in made} == {(10001, 0)}
    keys = json.loads((folder / "secrets" / "clients" / "keys.json").read_text())
    assert sorted(each["role"] for each in keys["keys"]) == ["observe", "operate"]


async def probed(container: Container, probe: dict[str, Any]) -> bool:
    """What the kubelet makes of a probe."""
    if "exec" in probe:
        return (await container.execute(probe["exec"]["command"]))[0] == 0
    async with httpx.AsyncClient(base_url=URL) as kubelet:
        return (await kubelet.get(probe["httpGet"]["path"])).status_code == 200


async def test_pods_run_as_the_manifests_stand(tmp_path: Path, model: GatedModel, start: Start) -> None:
    from anywire_zeromq.keys import make_keys

    make_keys(tmp_path / "curve")
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, role="operate"))
    curve = {path.name: path.read_bytes() for path in (tmp_path / "curve").iterdir()}
    secrets = {
        "clients": {"keys.json": (tmp_path / "keys.json").read_bytes()},
        "curve-hub": {name: curve[name] for name in ("hub.key_secret", "agent.key")},
        "curve-agent": {name: curve[name] for name in ("agent.key_secret", "hub.key")},
        "upstream": {"key": b"the key of the model server"},
    }
    numbers = itertools.count()

    def made(name: str, state: str) -> tuple[Spec, dict[str, Any]]:
        return pod(name, tmp_path / "pods" / str(next(numbers)), secrets, tmp_path / state)

    spec, manifest = made("orchestrator", "state")
    orchestrator = await start(spec)
    agent_specs = [made("agent", f"agent-{number}") for number in range(2)]
    agents = [await start(each) for each, _ in agent_specs]
    for each, said in [(orchestrator, manifest), *zip(agents, (said for _, said in agent_specs), strict=True)]:
        check_confined(each, "10001")
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert name not in said or await probed(each, said[name]), name
    wait, _ = manifest["lifecycle"]["preStop"]["exec"]["command"]
    assert await orchestrator.execute([wait, "0"]) == (0, "")
    async with client_of(str(key)) as client:
        await check_drain(client, model, orchestrator, agents)
        assert {each["Authorization"] for each in model.headers} == {"Bearer the key of the model server"}
        # The volume is mounted once more, and its files are still private enough.
        spec, manifest = made("orchestrator", "state")
        await start(spec)
        assert (await client.get("/readyz")).status_code == 200


async def test_an_orchestrator_that_stands_by_lives_and_takes_over(tmp_path: Path, start: Start) -> None:
    """With the configuration and the probe of `standby`. All are on one machine here, so DDS uses its loopback."""
    key = new_key()
    add_key(tmp_path / "clients" / "keys.json", record_of(key))
    for path in (tmp_path / "clients", tmp_path / "clients" / "keys.json"):
        os.chown(path, 10001, 10001)
    folder = DEPLOY / "kubernetes" / "standby"
    text = (folder / "config" / "orchestrator.yaml").read_text()
    assert "interface: auto" in text
    config = tmp_path / "anywire.yaml"
    config.write_text(text.replace("interface: auto", "interface: 127.0.0.1"))
    (workload,) = documents(folder / "orchestrator.yaml")
    (container,) = pod_of(workload)["containers"]
    spec = Spec(
        image("orchestrator"),
        ["serve", "--config", "/config/anywire.yaml"],
        {"/config/anywire.yaml": config, "/secrets/clients": tmp_path / "clients"},
        empty=("/tmp", "/state"),
        environment={each["name"]: each["value"] for each in container["env"]},
        hosts=[f"orchestrator-{number}" for number in range(workload["spec"]["replicas"])],
    )
    active = await start(spec)
    other = await start(spec, "standing by: orchestrator")
    for each in (active, other):
        assert await probed(each, container["startupProbe"])
        assert await probed(each, container["livenessProbe"])
    assert not [line for line in other.lines if line.startswith("ready:")]
    async with client_of(str(key)) as client:
        assert (await client.get("/readyz")).status_code == 200
        active.end()
        assert await active.ended() == 0
        await other.says("ready:")
        assert (await client.get("/readyz")).status_code == 200


async def test_an_agent_that_hangs_fails_its_probe(tmp_path: Path, start: Start) -> None:
    """The file is 20 seconds old then: its time is set back here, as far as it would be."""
    config = tmp_path / "agent.yaml"
    config.write_text("engine: synthetic\ntransports: {zeromq: {agent_addresses: ['tcp://127.0.0.1:5560']}}\n")
    spec = Spec(
        image("agent"), ["agent", "--config", "/config/agent.yaml"], {"/config/agent.yaml": config}, {}, ("/tmp",)
    )
    agent = await start(spec)
    assert await agent.execute(image("agent").health) == (0, "")
    os.kill(agent.pid, signal.SIGSTOP)
    assert await agent.execute(["touch", "-d", "-21 seconds", "/tmp/alive"]) == (0, "")
    assert (await agent.execute(image("agent").health))[0] == 1


async def test_units_run_with_the_settings_of_the_page(tmp_path: Path, model: GatedModel, start: Start) -> None:
    page = blocks(ROOT / "docs" / "how-to" / "deploy.md")
    etc = tmp_path / "etc"
    etc.mkdir()
    shown = [each.text for each in page if each.language == "yaml" and "shutdown_grace" in each.text]
    for name, text in zip(("orchestrator", "agent"), shown, strict=True):
        (etc / f"{name}.yaml").write_text(text)
    key = new_key()
    add_key(etc / "keys.json", record_of(key, role="operate"))
    os.chown(etc / "keys.json", 0, 10001)
    (etc / "keys.json").chmod(0o640)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        (tmp_path / "systemd").mkdir()
        systemd.bind(str(tmp_path / "systemd" / "notify"))
        (tmp_path / "systemd" / "notify").chmod(0o777)
        systemd.setblocking(False)
        watched = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        spec = unit(DEPLOY / "systemd" / "anywire.service", etc)
        orchestrator = await start(replace(spec, environment=watched, kept={"/run/systemd": tmp_path / "systemd"}))
        told = asyncio.get_running_loop().sock_recv(systemd, 100)
        assert await asyncio.wait_for(told, PATIENCE) == b"WATCHDOG=1"
        agents = [
            await start(unit(DEPLOY / "systemd" / "anywire-agent@.service", etc, instance))
            for instance in ("one", "two")
        ]
        check_confined(orchestrator, "10001")
        async with client_of(str(key)) as client:
            assert sorted(await ids_of(agents)) == ["one", "two"]
            await check_drain(client, model, orchestrator, agents)
