"""What is NATS's own: the server that is killed, paused or absent, its limits, who is let in, TLS, and strangers."""

from __future__ import annotations

import asyncio
import inspect
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nkeys
import pytest
import pytest_asyncio
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.integration.tls_files import TlsFiles
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log
from tests.long_form import SOAK
from tests.patience import FACTOR

from anywire import errors
from anywire.errors import ConfigError
from anywire.identity import hub_info
from anywire.plugins import Plugins
from anywire.testing.kit.pauses import Control
from anywire.testing.patience import expect
from anywire.testing.recorder import Recorder, RecordingHubSink
from anywire.testing.rig import Rig
from anywire.transport_tools import Link
from anywire_nats import NatsConfig, connection, meeting
from anywire_nats.connection import CONNECT_TIMEOUT
from anywire_nats.faults import mapped
from reserved import free_ports

pytestmark = needs_nats_server


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    """Starts a server with these settings."""
    async with AsyncExitStack() as stack:

        async def start(settings: str) -> NatsServer:
            return await stack.enter_async_context(NatsServer(tmp_path, settings))

        yield start


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, "nats")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_nats") as log:
        yield log


async def exchange(bench: Bench, body: str = "fine", **options: Any) -> None:
    """A hub and an agent with these options meet, and a task is answered."""
    hub, sink = await bench.hub(**options)
    port, _, _ = await bench.port(on_task=echo, **options)
    await sink.event("joined", "a")
    hub.send("a", request("t", body=body))
    assert "".join((await sink.final("t")).deltas) == body
    await port.close()
    await hub.close()


async def refusal(bench: Bench, **options: Any) -> str:
    """Why an end with these options cannot be opened: a hub and an agent alike."""
    told = []
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable) as refused:
            await opening(**options)
        told.append(str(refused.value))
    assert told[0] == told[1]
    return told[0]


def times(recorder: Recorder, name: str, count: int) -> bool:
    return len(recorder.named(name)) == count


# The server


async def test_a_server_that_is_not_there_is_told_in_one_line(bench: Bench) -> None:
    first, second = free_ports(2)
    assert await refusal(bench, servers=f"nats://127.0.0.1:{first}") == (
        f"the NATS server at 127.0.0.1:{first} cannot be used: nobody listens there: start it (`nats-server`), or name "
        "another in transports.nats.servers"
    )
    both = await refusal(bench, servers=[f"nats://127.0.0.1:{first}", f"nats://127.0.0.1:{second}"])
    assert f":{first} cannot be used" in both
    assert f":{second} cannot be used" in both


async def test_something_else_that_listens_there_is_told(bench: Bench) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        url = f"nats://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert "something else than a NATS server listens there" in await refusal(bench, servers=url)


async def test_the_next_server_is_used_when_the_first_is_not_there(bench: Bench, server: NatsServer) -> None:
    (nobody,) = free_ports(1)
    await exchange(bench, servers=[f"nats://127.0.0.1:{nobody}", server.url])


async def test_links_come_back_within_two_leases_of_a_killed_server(bench: Bench, server: NatsServer) -> None:
    """Under load: each task that was sent before is answered, or its link was lost; nothing comes twice."""
    lease = 1.0
    hub, sink = await bench.hub(servers=server.url)
    for number in range(4):
        await bench.port(f"a{number}", on_task=echo, servers=server.url)
        await sink.event("joined", f"a{number}")
    chance = random.Random(7)
    for life in range(2, 22 if SOAK else 4):
        for number in range(40):
            hub.send(f"a{number % 4}", request(f"{life}.{number}", body="x" * 20_000))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        await server.stop()
        await sink.until(partial(times, sink, "lost", 4 * (life - 1)), "all links are lost")
        assert all(f"127.0.0.1:{server.port}" in event[3] for event in sink.named("lost"))
        await server.restart()
        control, begin = Control(), time.monotonic()
        await sink.until(partial(times, sink, "joined", 4 * life), "all links are back")
        took = time.monotonic() - begin
        assert not control.stop() or took < 2 * lease, f"the links were back after {took:.1f} s"
        hub.send("a0", request(f"{life}.after", body="here"))
        assert (await sink.final(f"{life}.after")).deltas == ("here",)
    answered = [event[1] for event in sink.named("chunk")]
    assert len(answered) == len(set(answered))


async def test_a_server_that_hangs_is_given_up_for_the_next_one(bench: Bench, serve: Any) -> None:
    (cluster,) = free_ports(1)
    first = await serve(f'cluster: {{name: c, listen: "127.0.0.1:{cluster}"}}')
    second = await serve(f'cluster: {{name: c, listen: "127.0.0.1:-1", routes: ["nats://127.0.0.1:{cluster}"]}}')
    hub, sink = await bench.hub(servers=[first.url, second.url], lease_ms=300)
    _, _, agent = await bench.port(on_task=echo, servers=[second.url], lease_ms=300)
    await sink.event("joined", "a")
    begin = time.monotonic()
    first.pause()
    try:
        await sink.event("lost", "a", agent.incarnation)
        await sink.until(lambda: len(sink.named("joined")) == 2, "the agent joins again through the other server")
        assert time.monotonic() - begin < CONNECT_TIMEOUT * FACTOR, "the server that hangs was tried first"
    finally:
        first.resume()
    hub.send("a", request("t", body="here"))
    assert (await sink.final("t")).deltas == ("here",)


async def test_links_over_a_paused_server_come_back_when_it_does(bench: Bench, server: NatsServer) -> None:
    hub, sink = await bench.hub(servers=server.url)
    await bench.port(on_task=echo, servers=server.url)
    await sink.event("joined", "a")
    server.pause()
    try:
        _, _, _, reason = await sink.event("lost", "a")
        assert "silent" in reason
    finally:
        server.resume()
    await sink.until(lambda: len(sink.named("joined")) == 2, "the agent joins again")
    hub.send("a", request("t", body="here"))
    assert (await sink.final("t")).deltas == ("here",)


async def test_a_killed_agent_is_lost_before_its_lease_is_over(server: NatsServer) -> None:
    async with Rig("nats", {"servers": server.url}) as rig:
        agent = await rig.peer("bare_agent", "a", lease=20 * FACTOR)
        _, sink, _ = await rig.hub(lease=1.0)
        await sink.event("joined", "a")
        begin = time.monotonic()
        await agent.crash()
        _, _, _, reason = await sink.event("lost", "a")
        assert "it is gone" in reason
        assert time.monotonic() - begin < 10 * FACTOR


async def test_an_end_that_nobody_has_heard_of_is_met_all_the_same(bench: Bench, serve: Any) -> None:
    """As in a cluster whose servers learn too late of a subscription: what the agent says of itself gets lost."""
    denied = 'permissions: {publish: {deny: "anywire.default.agent.agents.*"}}'
    users = f"{{user: hub, password: hub}}, {{user: agent, password: agent, {denied}}}"
    server = await serve(f"authorization: {{users: [{users}]}}")
    _, sink = await bench.hub(servers=server.url, user="hub", password="hub")
    await bench.port(servers=server.url, user="agent", password="agent")
    await sink.event("joined", "a")


# Its limits


async def test_messages_over_max_payload_go_in_fragments(bench: Bench, serve: Any) -> None:
    server = await serve("max_payload: 1024")
    await exchange(bench, "x" * 300_000, servers=server.url)


async def test_a_message_of_the_largest_size_passes_the_usual_limits(bench: Bench, server: NatsServer) -> None:
    await exchange(bench, "ä" * (4 * 1024 * 1024), servers=server.url)


async def test_a_max_payload_with_which_no_link_works_is_told(bench: Bench, serve: Any) -> None:
    server = await serve("max_payload: 100")
    assert "its max_payload is 100, set 256 or more" in await refusal(bench, servers=server.url)


async def test_packets_that_the_server_does_not_take_soon_enough_are_sent_again(
    bench: Bench, server: NatsServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_WAITING", 100_000)
    await exchange(bench, "x" * 3_000_000, servers=server.url)
    assert log.count("is slow: packets are dropped and sent again") >= 1


async def test_names_without_end_are_ignored_until_nobody_has_them(
    bench: Bench, server: NatsServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "MOST_PEERS", 5)
    _, sink = await bench.hub(servers=server.url)
    stranger = await nats.connect(server.url)
    try:
        for number in range(10):
            await stranger.publish(f"anywire.default.agent.agents.stranger{number}", b"")
        await log.says("over 5 ends are heard of at the NATS server: others are ignored")
        await bench.port(servers=server.url)
        await sink.event("joined", "a")
    finally:
        await stranger.close()


# Who is let in


@pytest.mark.parametrize(
    ("settings", "right", "wrong"),
    [
        (
            "authorization: {user: ann, password: hunter2}",
            {"user": "ann", "password": "hunter2"},
            {"user": "ann", "password": "x"},
        ),
        ("authorization: {token: hunter2}", {"token": "hunter2"}, {"token": "x"}),
        ("authorization: {token: hunter2}", {"token": "hunter2"}, {}),
    ],
    ids=["user", "token", "nothing"],
)
async def test_who_is_not_let_in_is_told_what_to_check(
    bench: Bench, serve: Any, settings: str, right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    server = await serve(settings)
    told = await refusal(bench, servers=server.url, **wrong)
    assert "does not let this end in: check user and password, token" in told
    assert "hunter2" not in told
    await exchange(bench, servers=server.url, **right)


def seed_file(folder: Path, name: str) -> tuple[Path, str]:
    """A file with the seed of a new nkey, and its public part."""
    pair = nkeys.from_seed(nkeys.encode_seed(random.Random(name).randbytes(32), nkeys.PREFIX_BYTE_USER))
    path = folder / name
    path.write_bytes(bytes(pair.seed) + b"\n")
    path.chmod(0o600)
    return path, pair.public_key.decode()


async def test_an_nkey_is_let_in_and_another_is_not(bench: Bench, serve: Any, tmp_path: Path) -> None:
    path, public = seed_file(tmp_path, "one")
    other, _ = seed_file(tmp_path, "other")
    server = await serve(f"authorization: {{users: [{{nkey: {public}}}]}}")
    assert "does not let this end in" in await refusal(bench, servers=server.url, nkey=str(other))
    await exchange(bench, servers=server.url, nkey=str(path))


@pytest.mark.parametrize("setting", ["credentials", "nkey"])
async def test_a_file_that_is_none_of_its_kind_is_told_and_not_repeated(
    bench: Bench, server: NatsServer, tmp_path: Path, setting: str
) -> None:
    path = tmp_path / "secret"
    path.write_text("hQ3xV9pL2mT8wY5k\n")
    path.chmod(0o600)
    told = await refusal(bench, servers=server.url, **{setting: str(path)})
    assert "hQ3xV9pL2mT8wY5k" not in told
    assert setting in told
    missing = await refusal(bench, servers=server.url, **{setting: str(tmp_path / "none")})
    assert f"transports.nats.{setting}: there is no file" in missing


async def test_an_end_that_may_not_use_its_subjects_is_told(bench: Bench, serve: Any) -> None:
    users = 'users: [{user: u, password: p, permissions: {subscribe: {deny: "anywire.>"}}}]'
    server = await serve(f"authorization: {{{users}}}")
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable, match="allow those that the README of anywire-nats lists"):
            await opening(servers=server.url, user="u", password="p")


async def test_the_permissions_of_the_readme_are_enough_and_keep_agents_from_acting_as_hubs(
    bench: Bench, serve: Any, log: Log
) -> None:
    page = (Path(__file__).parents[2] / "plugins" / "transports" / "nats" / "README.md").read_text()
    users = []
    for name, row in (("hub", "an orchestrator"), ("agent", "an agent"), ("client", "a client")):
        cells = next(line for line in page.splitlines() if line.startswith(f"| {row} |")).split("|")[2:4]
        publish, subscribe = (cell.replace("`", '"').replace("FLEET", "default") for cell in cells)
        permissions = f"publish: [{publish}], subscribe: [{subscribe}]"
        users.append(f"{{user: {name}, password: {name}, permissions: {{{permissions}}}}}")
    server = await serve(f"authorization: {{users: [{', '.join(users)}]}}")

    def of(user: str) -> dict[str, Any]:
        return {"servers": server.url, "user": user, "password": user}

    for plane, dials, answers in (("agent", "hub", "agent"), ("client", "client", "hub")):
        hub, sink = await bench.hub(plane=plane, **of(dials))  # type: ignore[arg-type]
        await bench.port(plane, on_task=echo, plane=plane, **of(answers))  # type: ignore[arg-type]
        await sink.event("joined", plane)
        hub.send(plane, request("t", body="here"))
        assert (await sink.final("t")).deltas == ("here",)
    with pytest.raises(errors.TransportUnavailable, match="permissions violation"):
        await bench.hub("false", **of("agent"))
    await log.says("permissions violation")


# TLS


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "tls")


def tls_settings(files: TlsFiles, more: str = "") -> str:
    return f'tls: {{cert_file: "{files.certificate}", key_file: "{files.key}"{more}}}'


async def test_tls_with_an_authority_of_ones_own(bench: Bench, serve: Any, files: TlsFiles, tmp_path: Path) -> None:
    server = await serve(tls_settings(files))
    for url in (server.url, server.url.replace("nats:", "tls:")):
        await exchange(bench, servers=url, tls_ca=str(files.ca))
    other = TlsFiles(tmp_path / "other")
    assert "does not come from an authority in tls_ca" in await refusal(bench, servers=server.url, tls_ca=str(other.ca))
    assert "does not come from an authority in tls_ca" in await refusal(bench, servers=server.url)


async def test_a_server_that_asks_for_a_certificate(bench: Bench, serve: Any, files: TlsFiles) -> None:
    certificate, key = files.client_files()
    key.chmod(0o600)
    server = await serve(tls_settings(files, f', ca_file: "{files.ca}", verify: true'))
    shown = {"tls_ca": str(files.ca), "tls_cert": str(certificate), "tls_key": str(key)}
    await exchange(bench, servers=server.url, **shown)
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable, match="perhaps it asks for a certificate"):
            await opening(servers=server.url, tls_ca=str(files.ca))


@pytest.mark.parametrize("way", ["tls://", "tls_ca"])
async def test_nothing_is_said_to_a_server_without_tls_when_tls_is_asked_for(
    bench: Bench, files: TlsFiles, way: str
) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n')
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()

    fake = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with fake:
        host = f"127.0.0.1:{fake.sockets[0].getsockname()[1]}"
        more = {"tls_ca": str(files.ca)} if way == "tls_ca" else {}
        url = f"{'tls' if way == 'tls://' else 'nats'}://{host}"
        told = await refusal(bench, servers=url, user="ann", password="hunter2", **more)
    assert "it does not use TLS" in told
    assert not heard


# Who meets whom


async def test_fleets_do_not_meet(bench: Bench, server: NatsServer) -> None:
    _, sink = await bench.hub("h", servers=server.url, fleet="blue")
    _, other = await bench.hub("i", servers=server.url, fleet="blue.red")
    await bench.port("a", servers=server.url, fleet="blue")
    await bench.port("b", servers=server.url, fleet="blue.red")
    await sink.event("joined", "a")
    await other.event("joined", "b")
    assert {event[1] for each in (sink, other) for event in each.named("joined")} == {"a", "b"}
    assert len(sink.named("joined") + other.named("joined")) == 2


async def test_strangers_on_the_subjects_disturb_nobody(bench: Bench, server: NatsServer, log: Log) -> None:
    hub, sink = await bench.hub(servers=server.url)
    await bench.port(on_task=echo, servers=server.url)
    await sink.event("joined", "a")
    names: dict[str, str] = {}
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        *_, kind, name = message.subject.split(".")
        names[kind] = name
        heard.set()

    stranger = await nats.connect(server.url)
    try:
        await stranger.subscribe("anywire.default.agent.hubs.*", cb=hear)
        await expect(heard.wait(), "the hub says again that it is there")
        inbox = f"anywire.default.agent.to_hub.{names['hubs']}"
        chance = random.Random(3)
        hello = next(iter(_opened(chance.randrange(1, 2**60))))
        for number in range(300):
            data = hello if number % 3 == 0 else chance.randbytes(chance.randrange(200))
            await stranger.publish(f"{inbox}.stranger{number % 50}", data, reply="anywire.nowhere")
        for subject in ("anywire.default.agent.agents.nobody", f"{inbox}.nobody", "anywire.default.agent.hubs.nobody"):
            await stranger.publish(subject, b"")
        await stranger.flush()
        hub.send("a", request("t", body="fine"))
        assert (await sink.final("t")).deltas == ("fine",)
        assert [event[1] for event in sink.named("joined")] == ["a"]
        assert not sink.named("lost")
        assert not log.tracebacks
    finally:
        await stranger.close()


def _opened(session: int) -> Iterator[bytes]:
    link = Link(b"", session, 1.0, message_bytes=1000)
    link.open(0.0)
    return link.packets(0.0)


async def test_what_is_in_force_is_told(bench: Bench, server: NatsServer) -> None:
    transport = bench.transport(servers=server.url, fleet="lab")
    hub = await transport.open_hub(hub_info("h"), "agent", RecordingHubSink())
    try:
        told = transport.effective_settings()
        assert told["server"] == f"127.0.0.1:{server.port}"
        assert told["server_version"][0].isdigit()
        assert (told["max_payload"], told["security"], told["fleet"]) == ("1048576", "none", "lab")
        assert transport.findings() == []
        await server.stop()
        await expect(_told(transport), "a finding")
        assert f"127.0.0.1:{server.port}" in transport.findings()[0][0]
    finally:
        await hub.close()
    assert transport.findings() == []


async def _told(transport: Any) -> None:
    while not transport.findings():  # noqa: ASYNC110  # nothing tells of a new finding
        await asyncio.sleep(0.01)


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"servers": "localhost:4222"}, "use nats://host:port or tls://host:port"),
        ({"servers": "ws://localhost"}, "use nats://host:port or tls://host:port"),
        ({"servers": "nats://localhost:70000"}, "use nats://host:port or tls://host:port"),
        ({"servers": "nats://ann:hunter2@localhost"}, "use user and password, token, credentials or nkey"),
        ({"servers": []}, "servers"),
        ({"server": "nats://localhost"}, "did you mean 'servers'"),
        ({"fleet": "a b"}, "fleet"),
        ({"user": "ann"}, "user and password belong together"),
        ({"user": "ann", "password": "x", "token": "y"}, "user and token are different ways"),
        ({"token": "x", "nkey": "y"}, "token and nkey are different ways"),
        ({"tls_cert": "x"}, "tls_cert and tls_key belong together"),
        ({"local": True, "servers": "nats://10.0.0.1"}, "servers names others"),
        ({"max_message_bytes": 0}, "greater than or equal to 1024"),
    ],
)
def test_bad_settings_are_answered_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Plugins().create("transports", "nats", options)
    assert "hunter2" not in str(refused.value)


def test_addresses_have_a_port_and_secrets_are_not_shown() -> None:
    config = NatsConfig(servers=["nats://host", "tls://[::1]:5000"], token="hunter2")
    assert config.servers == ["nats://host:4222", "tls://[::1]:5000"]
    assert "hunter2" not in repr(config)


def test_who_counts_as_local() -> None:
    def transport(**options: Any) -> Any:
        return Plugins().create("transports", "nats", options)

    assert not transport().is_local
    assert transport().takes_any_agent
    assert transport(local=True).is_local
    assert not transport(local=True).takes_any_agent
    assert not transport(token="a token").takes_any_agent


def test_others_meet_what_is_open_here() -> None:
    def met(host: str, **options: Any) -> Any:
        return Plugins().create("transports", "nats", options).meeting_options(host)

    assert met("10.0.0.9") == {"servers": ["nats://10.0.0.9:4222"], "fleet": "default"}
    assert met("10.0.0.9", servers="tls://nats.lab")["servers"] == ["tls://nats.lab:4222"]
    assert met("127.0.0.1", local=True, token="tok-1")["token"] == "tok-1"


# Errors


def library_errors() -> list[type[Exception]]:
    found = [ssl.SSLError, ssl.SSLCertVerificationError, ConnectionRefusedError, TimeoutError, OSError, ValueError]
    return found + [
        each
        for _, each in inspect.getmembers(nats.errors, inspect.isclass)
        if issubclass(each, Exception) and each is not nats.errors.SlowConsumerError
    ]


@pytest.mark.parametrize("cls", library_errors(), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_libraries_is_mapped(cls: type[Exception]) -> None:
    original = cls()
    error = mapped(original, "doing this")
    assert isinstance(error, errors.TransportUnavailable)
    assert error.__cause__ is original
    assert str(error).startswith("doing this: ")
    assert len(str(error)) > len("doing this: ")
