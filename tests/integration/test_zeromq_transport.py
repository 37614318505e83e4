"""What is ZeroMQ's own: keys, reconnecting, full queues, strangers, addresses, and the mapping of its errors."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, get_args

import msgspec
import pytest
import pytest_asyncio
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.connections import OneConnection
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log

from anywire import errors
from anywire.errors import ConfigError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    ProgressState,
    TaskRequest,
)
from anywire.plugins import Plugins
from anywire.protocol import PROTOCOL as VERSION
from anywire.testing.recorder import PATIENCE
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES, Plane
from anywire.transport_tools import UnknownKind
from anywire_zeromq import ZeromqConfig
from anywire_zeromq.codec import PROTOCOL, AgentHello, Goodbye, HubHello, Message, Ready, decode, encode
from anywire_zeromq.faults import mapped
from reserved import free_ports


def address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, "zeromq")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_zeromq") as log:
        yield log


# Connections


class TestConnections(OneConnection):
    scheme = "tcp://"
    settled: ClassVar[dict[str, str]] = {
        "agent_listens_on": "{address}",
        "encoding": "msgpack",
        "security": "null",
        "max_message_bytes": str(MAX_MESSAGE_BYTES),
        "buffer_bytes": str(BUFFER_BYTES),
    }
    hard_bound = BUFFER_BYTES // 10_100


async def test_what_an_agent_sent_before_it_died_arrives_before_it_is_lost(bench: Bench) -> None:
    """An agent of this test's own: it ends without a goodbye, with all it sent still unread."""
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    context: zmq.Context[Any] = zmq.Context()
    with context.socket(zmq.DEALER) as agent:
        agent.connect(address(port))
        agent.send(encode(AgentHello(PROTOCOL, "agent", AgentInfo("a", 1, protocol=VERSION), AgentStatus("a", 1))))
        assert await asyncio.to_thread(agent.poll, PATIENCE * 1000)
        agent.send(encode(Ready()))
        await sink.event("joined", "a")
        for number in range(900):
            agent.send(encode(Chunk("h", "t", 1, number, ("x",))), zmq.NOBLOCK)
        agent.close(1000)
    context.term()
    await sink.event("lost", "a")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(900))


# Who may join


@pytest.fixture
def dealer() -> Any:
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    yield socket
    socket.close(0)
    context.term()


STRANGE = {
    "long": [encode(AgentHello(PROTOCOL, "agent", AgentInfo("x", 1, "h" * 2**22), AgentStatus("x", 1)))],
    "empty": [b""],
    "unknown kind": [b"?"],
    "broken": [b"K\xc1"],
    "several frames": [b"T", b"more"],
    "other fields": [b"A" + b"\x94" * 500],
    "nested too deeply": [b"S\x9a" + encode(AgentStatus("x", 1))[2:] + b"\x91" * 100_000],
    "number for text": [b"K" + msgspec.msgpack.encode(("h", 5, 1, 0))],
    "kind of before": [b"D" + msgspec.msgpack.encode(("h", "maintenance"))],
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
    await log.says("a hello has at most" if len(parts[0]) > 2**22 else "sent something unreadable")
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
    dealer.send(encode(AgentHello(protocol, plane, AgentInfo("x", 1, protocol=VERSION), AgentStatus("x", 1))))
    assert await asyncio.to_thread(dealer.poll, PATIENCE * 1000)
    goodbye = decode(dealer.recv())
    assert reason in getattr(goodbye, "reason", "")
    await log.says(reason)
    assert not sink.events


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "control characters": {"agent_id": "x\x1b[2J\n"},
    "no name": {"agent_id": ""},
    "long name": {"agent_id": "x" * 5000},
    "negative incarnation": {"incarnation": -1},
    "incarnation of 64 bits": {"incarnation": 2**64 - 1},
    "no lease": {"lease_ms": 0},
}


@pytest.mark.parametrize("wrong", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_hello_that_nobody_can_mean_is_refused_without_a_trace(
    bench: Bench, dealer: Any, log: Log, wrong: dict[str, Any]
) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    dealer.connect(address(port))
    info = msgspec.structs.replace(AgentInfo("x", 1, protocol=VERSION), **wrong)
    dealer.send(encode(AgentHello(PROTOCOL, "agent", info, AgentStatus("x", 1))))
    assert await asyncio.to_thread(dealer.poll, PATIENCE * 1000)
    assert isinstance(decode(dealer.recv()), Goodbye)
    await log.says("cannot be linked: its ")
    assert not sink.events
    assert not log.tracebacks
    assert all(event[0].isprintable() for event in log.events)


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def certificates(folder: Path) -> tuple[str, str]:
    """The files of a public and a secret key, the latter readable by this user alone."""
    public, secret = zmq.auth.create_certificates(folder, "agent")
    assert secret is not None
    Path(secret).chmod(0o600)
    return public, secret


async def test_agents_with_an_allowed_key_join(bench: Bench, tmp_path: Path) -> None:
    """One key given as text, the others as certificate files."""
    port, other = free_ports(2)
    hub_public, hub_secret = keys()
    certificate, secret = certificates(tmp_path)
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
    await log.says("set secret_key and allowed_keys")
    await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    with pytest.raises(errors.TransportUnavailable, match="name the host"):
        await bench.port("b", agent_addresses=f"tcp://0.0.0.0:{port}")


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent_addresses": "localhost:5560"}, "use tcp://host:port or ipc:///path"),
        ({"agent_addresses": "inproc://x"}, "use the transport 'memory'"),
        ({"agent_addresses": "tcp://localhost"}, "a port up to 65535"),
        ({"agent_addresses": "tcp://localhost:70000"}, "a port up to 65535"),
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
infos = st.builds(
    AgentInfo, texts, numbers, texts, numbers, texts, texts, st.tuples(texts), texts, texts, numbers, texts
)
statuses = st.builds(
    AgentStatus,
    texts,
    numbers,
    st.sampled_from(["starting", "ready", "draining", "failed"]),
    texts,
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
        *(st.booleans(), numbers, texts, texts, texts, texts, texts, st.tuples(texts), st.tuples(texts, texts)),
    ),
    st.builds(
        Chunk,
        *(texts, texts, numbers, numbers, st.lists(texts).map(tuple), texts, st.booleans(), texts, texts, texts),
        *(numbers, numbers, numbers, numbers, st.booleans(), numbers),
    ),
    st.builds(Cancel, texts, texts, numbers, texts),
    st.builds(Credit, texts, texts, numbers, numbers),
    st.builds(Command, texts, texts, texts, texts, st.tuples(texts), numbers, numbers, texts, texts),
    st.builds(CommandResult, texts, texts, numbers, texts, st.booleans(), texts),
    st.builds(Progress, texts, texts, numbers, st.sampled_from(get_args(ProgressState)), texts),
    statuses,
    st.builds(AgentHello, texts, planes, infos, statuses),
    st.builds(HubHello, texts, planes, st.builds(HubInfo, texts, numbers, texts, numbers, numbers, texts)),
    st.just(Ready()),
)


@given(messages)
def test_messages_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages)
def test_fields_that_a_version_adds_at_the_end_are_ignored_and_those_it_lacks_have_defaults(message: Message) -> None:
    data = encode(message)
    fields = list(msgspec.msgpack.decode(data[1:]))
    assert decode(data[:1] + msgspec.msgpack.encode([*fields, "added", {"later": 1}])) == message
    *_, last = [None, *msgspec.structs.fields(message)]
    if last is not None and not last.required:
        missing = last.default_factory() if last.default is msgspec.NODEFAULT else last.default
        shortened = decode(data[:1] + msgspec.msgpack.encode(fields[:-1]))
        assert shortened == msgspec.structs.replace(message, **{last.name: missing})


@given(messages, st.data())
def test_damaged_messages_are_told_as_such(message: Message, data: st.DataObject) -> None:
    good = encode(message)
    cut = data.draw(st.integers(0, len(good)))
    damaged = good[:cut] + data.draw(st.binary(max_size=8)) + good[cut + data.draw(st.integers(0, 3)) :]
    with suppress(msgspec.MsgspecError, UnknownKind):
        decode(damaged)
