"""What is ZeroMQ's own: keys, reconnecting, full queues, strangers, addresses, and the mapping of its errors."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.wire_faults import Log, Proxy, free_ports

from anywire import errors
from anywire.errors import ConfigError
from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.plugins import Plugins
from anywire.testing.recorder import PATIENCE, RecordingAgentSink, RecordingHubSink
from anywire.transport import AgentPort, Hub, Plane
from anywire_zeromq import ZeromqConfig, ZeromqTransport
from anywire_zeromq.codec import PROTOCOL, AgentHello, HubHello, Message, Ready, decode, encode
from anywire_zeromq.faults import mapped
from anywire_zeromq.wire import HARD_BOUND


def address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


class Bench:
    """Opens hubs and ports and closes them when the test ends."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack

    async def hub(
        self, hub_id: str = "h", *, plane: Plane = "agent", lease_ms: int = 1000, **options: Any
    ) -> tuple[Hub, RecordingHubSink]:
        sink = RecordingHubSink()
        transport = ZeromqTransport(ZeromqConfig(**options))
        hub = await transport.open_hub(HubInfo(hub_id, new_incarnation(), lease_ms=lease_ms), plane, sink)
        self.stack.push_async_callback(hub.close)
        return hub, sink

    async def port(
        self, agent_id: str = "a", on_task: Any = None, *, plane: Plane = "agent", lease_ms: int = 1000, **options: Any
    ) -> tuple[AgentPort, RecordingAgentSink, AgentInfo]:
        sink = RecordingAgentSink(on_task)
        info = AgentInfo(agent_id, options.pop("incarnation", 0) or new_incarnation(), lease_ms=lease_ms)
        port = await ZeromqTransport(ZeromqConfig(**options)).open_agent(info, plane, sink)
        self.stack.push_async_callback(port.close)
        port.report(AgentStatus(agent_id, info.incarnation, models=("m",)))
        return port, sink, info


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack)


def request(task_id: str, hub_id: str = "h", body: str = "{}") -> TaskRequest:
    return TaskRequest(hub_id, task_id, 1, "chat", "m", body, True, credit=64)


def final(task: TaskRequest, text: str = "") -> Chunk:
    return Chunk(task.hub_id, task.task_id, task.attempt, 0, (text,), final=True, finish_reason="stop")


def echo(task: TaskRequest, reply: Any) -> None:
    reply.send(final(task, task.body))


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("anywire_zeromq")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


# Connections


async def test_agent_that_was_there_first_joins_a_hub_that_comes_and_its_successor(bench: Bench) -> None:
    (port,) = free_ports(1)
    _, agent, _ = await bench.port(on_task=echo, agent_addresses=address(port))
    first, sink = await bench.hub("first", agent_addresses=address(port))
    await sink.event("joined", "a")
    await first.close()
    await agent.event("hub_lost", "first")
    second, sink = await bench.hub("second", agent_addresses=address(port))
    await sink.event("joined", "a")
    second.send("a", request("t", "second", "anew"))
    assert (await sink.final("t")).deltas == ("anew",)


async def test_cut_connection_loses_the_link_on_both_sides_and_it_joins_again(bench: Bench) -> None:
    (port,) = free_ports(1)
    proxy = Proxy(port)
    await proxy.start()
    bench.stack.push_async_callback(proxy.close)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, info = await bench.port(agent_addresses=address(proxy.port))
    await sink.event("joined", "a")
    hub.send("a", request("t1"))
    reply = (await agent.event("task", "t1"))[4]
    proxy.cut()
    await sink.event("lost", "a", info.incarnation)
    await agent.event("hub_lost", "h")
    reply.send(final(request("t1"), "too late"))
    await sink.until(lambda: len(sink.named("joined")) == 2)
    hub.send("a", request("t2"))
    (await agent.event("task", "t2"))[4].send(final(request("t2"), "in time"))
    assert (await sink.final("t2")).deltas == ("in time",)
    assert sink.chunks("t1") == []
    assert [event[0] for event in sink.events if event[0] in ("joined", "lost")] == ["joined", "lost", "joined"]


async def test_silent_connection_is_given_up_by_the_agent_within_its_lease(bench: Bench) -> None:
    (port,) = free_ports(1)
    proxy = Proxy(port)
    await proxy.start()
    bench.stack.push_async_callback(proxy.close)
    _, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(proxy.port), lease_ms=200)
    await sink.event("joined", "a")
    proxy.hold()
    await agent.event("hub_lost", "h")
    proxy.flow()
    await sink.until(lambda: len(sink.named("joined")) == 2)


async def test_what_an_agent_sent_before_it_closed_arrives_before_it_is_lost(bench: Bench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    for number in range(2000):
        reply.send(Chunk("h", "t", 1, number, ("x" * 1000,)))
    reply.send(Chunk("h", "t", 1, 2000, final=True))
    await end.close()
    await sink.event("lost", "a")
    assert len(sink.chunks("t")) == 2001
    assert sink.events[-1][0] == "lost"


async def test_what_an_agent_sent_before_it_died_arrives_before_it_is_lost(bench: Bench) -> None:
    """An agent of this test's own: it ends without a farewell, with all it sent still unread."""
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    context: zmq.Context[Any] = zmq.Context()
    with context.socket(zmq.DEALER) as agent:
        agent.connect(address(port))
        agent.send(encode(AgentHello(PROTOCOL, "agent", AgentInfo("a", 1), AgentStatus("a", 1))))
        assert await asyncio.to_thread(agent.poll, PATIENCE * 1000)
        agent.send(encode(Ready()))
        await sink.event("joined", "a")
        for number in range(900):
            agent.send(encode(Chunk("h", "t", 1, number, ("x",))), zmq.NOBLOCK)
        agent.close(1000)
    context.term()
    await sink.event("lost", "a")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(900))


async def test_full_queue_is_congested_disturbs_nobody_and_loses_nothing(bench: Bench) -> None:
    (port,) = free_ports(1)
    proxy = Proxy(port)
    await proxy.start()
    bench.stack.push_async_callback(proxy.close)
    hub, sink = await bench.hub(agent_addresses=address(port), lease_ms=60_000)
    _, slow, _ = await bench.port("slow", agent_addresses=address(proxy.port), lease_ms=60_000)
    await bench.port("quick", echo, agent_addresses=address(port))
    await sink.event("joined", "slow")
    await sink.event("joined", "quick")
    proxy.hold()
    body, sent = "x" * 10_000, 0
    with pytest.raises(errors.Congested, match="wait for"):  # noqa: PT012
        while True:
            hub.send("slow", request(f"t{sent}", body=body))
            sent += 1
    assert sent >= HARD_BOUND
    hub.send("slow", Cancel("h", "t0", 1))
    room = asyncio.ensure_future(hub.drain("slow"))
    hub.send("quick", request("q", body="unhindered"))
    assert (await sink.final("q")).deltas == ("unhindered",)
    assert not room.done()
    proxy.flow()
    await asyncio.wait_for(room, PATIENCE)
    hub.send("slow", request("last"))
    await slow.event("task", "last")
    assert [event[1] for event in slow.named("task")] == [*(f"t{number}" for number in range(sent)), "last"]
    assert slow.named("cancel")


async def test_reply_to_a_hub_that_does_not_read_is_congested(bench: Bench) -> None:
    (port,) = free_ports(1)
    proxy = Proxy(port)
    await proxy.start()
    bench.stack.push_async_callback(proxy.close)
    hub, sink = await bench.hub(agent_addresses=address(port), lease_ms=60_000)
    _, agent, _ = await bench.port(agent_addresses=address(proxy.port), lease_ms=60_000)
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    proxy.hold()
    sent = 0
    with pytest.raises(errors.Congested):  # noqa: PT012
        while True:
            reply.send(Chunk("h", "t", 1, sent, ("y" * 10_000,)))
            sent += 1
    proxy.flow()
    await asyncio.wait_for(reply.drain(), PATIENCE)
    reply.send(Chunk("h", "t", 1, sent, final=True))
    await sink.final("t")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(sent + 1))


# Who may join


@pytest.fixture
def dealer() -> Any:
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    yield socket
    socket.close(0)
    context.term()


STRANGE = {
    "empty": [b""],
    "unknown kind": [b"?"],
    "broken": [b"K\xc1"],
    "several frames": [b"T", b"more"],
    "other fields": [b"A" + b"\x94" * 500],
    "for the other end": [b"T" + msgspec.msgpack.encode(("h", "t", 1, "chat", "m", "{}", True, "", 0, 0, 1, 0, ""))],
}


@pytest.mark.parametrize("parts", STRANGE.values(), ids=STRANGE)
async def test_strangers_disturb_nobody(bench: Bench, dealer: Any, log: Log, parts: list[bytes]) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    dealer.connect(address(port))
    for _ in range(3):
        dealer.send_multipart(parts)
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    await log.says("sent something unreadable")
    hub.send("a", request("t", body="fine"))
    assert (await sink.final("t")).deltas == ("fine",)
    assert {event[1] for event in sink.named("joined")} == {"a"}
    assert not sink.named("lost")


@pytest.mark.parametrize(
    ("protocol", "plane", "reason"),
    [("anywire-zeromq/0", "agent", "use one version"), (PROTOCOL, "client", "check the addresses")],
)
async def test_peer_of_another_version_or_plane_is_told_why(
    bench: Bench, dealer: Any, log: Log, protocol: str, plane: Plane, reason: str
) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    dealer.connect(address(port))
    dealer.send(encode(AgentHello(protocol, plane, AgentInfo("x", 1), AgentStatus("x", 1))))
    assert await asyncio.to_thread(dealer.poll, PATIENCE * 1000)
    farewell = decode(dealer.recv())
    assert reason in getattr(farewell, "reason", "")
    await log.says(reason)
    assert not sink.events


async def test_a_newer_incarnation_wins_and_the_older_is_refused(bench: Bench, log: Log) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(incarnation=5, agent_addresses=address(port))
    await sink.event("joined", "a", 5)
    _, newer, _ = await bench.port(incarnation=7, on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a", 7)
    await bench.port(incarnation=6, agent_addresses=address(port))
    await log.says("newer incarnation")
    hub.send("a", request("t"))
    await sink.final("t")
    assert newer.named("task")
    kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
    assert kinds == [("joined", "a", 5), ("lost", "a", 5), ("joined", "a", 7)]


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


async def test_agents_with_an_allowed_key_join(bench: Bench, tmp_path: Path) -> None:
    """One key given as text, the others as certificate files."""
    port, other = free_ports(2)
    hub_public, hub_secret = keys()
    certificate, secret = zmq.auth.create_certificates(tmp_path, "agent")
    secured: dict[str, Any] = {"agent_addresses": [address(port), address(other)], "secret_key": hub_secret}
    hub, sink = await bench.hub(allowed_keys=str(certificate), **secured)
    await bench.port(on_task=echo, agent_addresses=address(port), secret_key=str(secret), server_key=hub_public)
    await sink.event("joined", "a")
    hub.send("a", request("t", body="secret"))
    assert (await sink.final("t")).deltas == ("secret",)


Options = dict[str, Any]


def _unknown_key(hub: Options, agent: Options, public: str) -> None:
    agent["secret_key"] = keys()[1]


def _wrong_server(hub: Options, agent: Options, public: str) -> None:
    agent["server_key"] = keys()[0]


def _plain_agent(hub: Options, agent: Options, public: str) -> None:
    agent.clear()


def _plain_hub(hub: Options, agent: Options, public: str) -> None:
    hub.clear()


@pytest.mark.parametrize(
    ("spoil", "at_hub", "at_agent"),
    [
        (_unknown_key, "not in allowed_keys", "add its public key to allowed_keys"),
        (_wrong_server, "its server_key is not our public key", "or server_key is not its public key"),
        (_plain_agent, "was not admitted: one end uses CURVE", "cannot be joined: one end uses CURVE"),
        (_plain_hub, "was not admitted: one end uses CURVE", "cannot be joined: one end uses CURVE"),
    ],
)
async def test_wrong_keys_do_not_join_both_sides_say_why_and_corrected_ones_do(
    bench: Bench,
    log: Log,
    spoil: Callable[[Options, Options, str], None],
    at_hub: str,
    at_agent: str,
) -> None:
    (port,) = free_ports(1)
    (hub_public, hub_secret), (agent_public, agent_secret) = keys(), keys()
    hub: Options = {"secret_key": hub_secret, "allowed_keys": [agent_public]}
    agent: Options = {"secret_key": agent_secret, "server_key": hub_public}
    good_hub, good_agent = dict(hub), dict(agent)
    spoil(hub, agent, agent_public)
    wrong_hub, sink = await bench.hub(agent_addresses=address(port), **hub)
    wrong_port, told, _ = await bench.port(agent_addresses=address(port), **agent)
    await log.says(at_hub, at_agent)
    assert not sink.events
    assert not told.events
    if agent == good_agent:
        await wrong_hub.close()
        _, sink = await bench.hub(agent_addresses=address(port), **good_hub)
    else:
        await wrong_port.close()
        await bench.port(agent_addresses=address(port), **good_agent)
    await sink.event("joined", "a")


async def test_an_agent_refused_for_its_key_joins_when_the_hub_admits_it(bench: Bench, log: Log) -> None:
    (port,) = free_ports(1)
    (hub_public, hub_secret), (agent_public, agent_secret) = keys(), keys()
    strict, _ = await bench.hub(agent_addresses=address(port), secret_key=hub_secret, allowed_keys=keys()[0])
    await bench.port(agent_addresses=address(port), secret_key=agent_secret, server_key=hub_public)
    await log.says("not in allowed_keys")
    await strict.close()
    _, sink = await bench.hub(agent_addresses=address(port), secret_key=hub_secret, allowed_keys=agent_public)
    await sink.event("joined", "a")


async def test_keys_that_cannot_work_are_told_at_opening(bench: Bench) -> None:
    (port,) = free_ports(1)
    public, secret = keys()
    with pytest.raises(errors.TransportUnavailable, match="allowed_keys is empty"):
        await bench.hub(agent_addresses=address(port), secret_key=secret, server_key=public)
    with pytest.raises(errors.TransportUnavailable, match="server_key is empty"):
        await bench.port(agent_addresses=address(port), secret_key=secret, allowed_keys=public)


# Addresses


async def test_hubs_take_the_first_free_address_until_none_is_left(bench: Bench) -> None:
    ports = free_ports(2)
    addresses = [address(port) for port in ports]
    for number, expected in enumerate(addresses):
        transport = ZeromqTransport(ZeromqConfig(agent_addresses=addresses))
        assert transport.effective_settings() == {}
        hub = await transport.open_hub(HubInfo(f"h{number}", 1), "agent", RecordingHubSink())
        bench.stack.push_async_callback(hub.close)
        settings = transport.effective_settings()
        assert settings["agent_listens_on"] == expected
        assert (settings["encoding"], settings["security"]) == ("msgpack", "null")
    with pytest.raises(errors.TransportUnavailable, match=f"{ports[0]}.*in use.*{ports[1]}.*in use") as caught:
        await bench.hub(agent_addresses=addresses)
    assert caught.value.code == "transport_unavailable"


async def test_address_of_another_machine_is_passed_over(bench: Bench) -> None:
    (port,) = free_ports(1)
    both = ["tcp://192.0.2.1:5560", address(port)]
    _, sink = await bench.hub(agent_addresses=both)
    await bench.port(agent_addresses=both)
    await sink.event("joined", "a")


async def test_unix_socket_in_use_is_not_taken_away_and_a_stale_one_is_used(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "hub"
    path = f"ipc://{file}"
    hub, sink = await bench.hub(agent_addresses=path)
    with pytest.raises(errors.TransportUnavailable, match="in use"):
        await bench.hub("other", agent_addresses=path)
    await bench.port(on_task=echo, agent_addresses=path)
    await sink.event("joined", "a")
    await hub.close()
    assert file.is_socket()
    _, sink = await bench.hub("next", agent_addresses=path)
    await sink.event("joined", "a")


async def test_wildcards_are_listened_on_with_a_warning_and_not_connected_to(bench: Bench, log: Log) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=f"tcp://0.0.0.0:{port}")
    await log.says("not secured")
    await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    with pytest.raises(errors.TransportUnavailable, match="name the host"):
        await bench.port("b", agent_addresses=f"tcp://0.0.0.0:{port}")


async def test_receiver_with_a_lower_limit_loses_the_link_and_nothing_else(bench: Bench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port), max_message_bytes=2000)
    await bench.port("b", echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    await sink.event("joined", "b")
    hub.send("a", request("t", body="x" * 100_000))
    await sink.event("lost", "a")
    await agent.event("hub_lost", "h")
    await sink.until(lambda: len([event for event in sink.named("joined") if event[1] == "a"]) == 2)
    hub.send("b", request("u"))
    await sink.final("u")


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent_addresses": "localhost:5560"}, "use tcp://host:port or ipc:///path"),
        ({"agent_addresses": "inproc://x"}, "use the transport 'memory'"),
        ({"agent_addresses": "tcp://localhost"}, "port from 1 to 65535"),
        ({"agent_addresses": "tcp://localhost:70000"}, "port from 1 to 65535"),
        ({"agent_addresses": ["ipc://" + "x" * 200]}, "1 to 107 bytes"),
        ({"client_addresses": []}, "client_addresses"),
        ({"agent_adresses": []}, "did you mean 'agent_addresses'"),
        ({"max_message_bytes": 0}, "greater than or equal to 1024"),
        ({"server_key": keys()[0]}, "need a secret_key"),
        ({"secret_key": keys()[1]}, "secures nothing"),
        ({"secret_key": "/nowhere/key", "allowed_keys": [keys()[0]]}, "neither 40 characters of Z85 nor a readable"),
        ({"secret_key": "~" * 40, "allowed_keys": [keys()[0]]}, "must be Z85"),
    ],
)
def test_bad_settings_are_answered_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plugins().create("transports", "zeromq", options)


def test_public_certificate_is_no_secret_key(tmp_path: Path) -> None:
    public, _ = zmq.auth.create_certificates(tmp_path, "x")
    with pytest.raises(ConfigError, match=r"\.key_secret"):
        Plugins().create("transports", "zeromq", {"secret_key": str(public), "allowed_keys": str(public)})


def test_secret_key_is_not_shown() -> None:
    public, secret = keys()
    assert secret not in repr(ZeromqConfig(secret_key=secret, server_key=public))


# Errors


def library_errors() -> list[type[Exception]]:
    found: dict[str, type[Exception]] = {}
    for module in (zmq.error, msgspec):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Exception) and not issubclass(cls, Warning):
                found[name] = cls
    return list(found.values())


@pytest.mark.parametrize("cls", library_errors(), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_libraries_is_mapped(cls: type[Exception]) -> None:
    original: Exception = zmq.ZMQVersionError("8", "9") if cls is zmq.ZMQVersionError else cls()
    error = mapped(original, "doing this")
    assert isinstance(error, errors.TransportError)
    assert error.__cause__ is original
    assert str(error).startswith("doing this: ")
    assert len(str(error)) > len("doing this: ")


@pytest.mark.parametrize(
    ("number", "cls"),
    [
        (errno.EADDRINUSE, errors.TransportUnavailable),
        (errno.EACCES, errors.TransportUnavailable),
        (errno.EMFILE, errors.TransportUnavailable),
        (errno.EAGAIN, errors.Congested),
        (errno.EHOSTUNREACH, errors.AgentUnavailable),
        (errno.EMSGSIZE, errors.PayloadTooLarge),
        (int(zmq.ETERM), errors.AgentUnavailable),
        (errno.ENOTSOCK, errors.AgentUnavailable),
        (errno.EFAULT, errors.TransportError),
    ],
)
def test_error_numbers_mean_what_they_say(number: int, cls: type[errors.AnywireError]) -> None:
    assert type(mapped(zmq.ZMQError(number), "x")) is cls


# The wire format

texts = st.text(max_size=20)
numbers = st.integers(min_value=0, max_value=2**63 - 1)
infos = st.builds(AgentInfo, texts, numbers, texts, numbers, texts, texts, st.tuples(texts), texts, texts, numbers)
statuses = st.builds(
    AgentStatus,
    texts,
    numbers,
    st.sampled_from(["starting", "ready", "draining", "failed"]),
    st.tuples(texts, texts),
    numbers,
    numbers,
    numbers,
    st.dictionaries(texts, st.floats(allow_nan=False)),
    texts,
)
planes = st.sampled_from(["client", "agent"])
messages = st.one_of(
    st.builds(
        TaskRequest,
        *(texts, texts, numbers, st.sampled_from(["chat", "completion", "embedding"]), texts, texts),
        *(st.booleans(), texts, st.integers(-(2**63), 2**63 - 1), numbers, numbers, numbers, texts),
    ),
    st.builds(
        Chunk,
        *(texts, texts, numbers, numbers, st.lists(texts).map(tuple), texts, st.booleans(), texts, texts, texts),
        *(numbers, numbers, numbers, numbers),
    ),
    st.builds(Cancel, texts, texts, numbers, texts),
    st.builds(Credit, texts, texts, numbers, numbers),
    st.builds(Drain, texts, texts),
    statuses,
    st.builds(AgentHello, texts, planes, infos, statuses),
    st.builds(HubHello, texts, planes, st.builds(HubInfo, texts, numbers, texts, numbers, numbers)),
    st.just(Ready()),
)


@given(messages)
def test_messages_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_damaged_messages_are_told_as_such(message: Message, data: st.DataObject) -> None:
    good = encode(message)
    cut = data.draw(st.integers(0, len(good)))
    damaged = good[:cut] + data.draw(st.binary(max_size=8)) + good[cut + data.draw(st.integers(0, 3)) :]
    with suppress(msgspec.MsgspecError):
        decode(damaged)
