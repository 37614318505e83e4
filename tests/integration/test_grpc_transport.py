"""What is gRPC's own: tokens and TLS, a port for both planes, keepalive, joined frames, its contract and its errors."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import inspect
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, get_args

import grpc
import grpc.aio
import msgspec
import psutil
import pytest
import pytest_asyncio
from google.protobuf import message as protobuf
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.boundaries import Boundaries
from tests.integration.connections import OneConnection
from tests.integration.sockets import option_of_connections
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log, Proxy
from tests.patience import FACTOR

import anywire.listening.connection_limit
import anywire_grpc.dialling
import anywire_grpc.end
import anywire_grpc.library
import anywire_grpc.listening
from anywire import errors, messages
from anywire.errors import ConfigError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    FromAgent,
    HubInfo,
    Progress,
    TaskRequest,
    ToAgent,
)
from anywire.plugins import Plugins
from anywire.protocol import PROTOCOL
from anywire.testing.peer import PeerSpec
from anywire.testing.recorder import PATIENCE, Recorder
from anywire.testing.rig import ProcessPeer
from anywire.transport import Plane
from anywire_grpc import GrpcConfig, codec, link_pb2
from anywire_grpc.faults import mapped
from anywire_grpc.library import METHODS
from anywire_grpc.wire import BATCH_BYTES, Ending, Wire
from reserved import free_ports

Options = dict[str, Any]


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


class CountingProxy(Proxy):
    """Tells when it has been connected to so many times."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._counted = Recorder()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counted.add("connected")
        await super()._serve(reader, writer)

    async def tried(self, times: int) -> None:
        await self._counted.until(lambda: len(self._counted.events) >= times)


class CallingBench(Bench):
    proxies = CountingProxy

    async def call(self, port: int, plane: Plane = "agent") -> Any:
        """A bare call of the transport's method, by nobody who keeps to the contract."""
        channel = grpc.aio.insecure_channel(address(port), [("grpc.use_local_subchannel_pool", 1)])
        self.stack.push_async_callback(channel.close, None)
        return channel.stream_stream(METHODS[plane], None, None)(None)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[CallingBench]:
    async with AsyncExitStack() as stack:
        yield CallingBench(stack, "grpc")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_grpc") as log:
        yield log


# Connections


class TestConnections(OneConnection):
    settled: ClassVar[dict[str, str]] = {"agent_listens_on": "{address}", "encoding": "protobuf", "security": "none"}

    def check_told_of_the_limit(self, reason: str) -> None:
        assert "max_message_bytes" in reason


class TestBoundaries(Boundaries):
    transport = "grpc"


async def test_agent_serves_every_hub_of_its_addresses(bench: CallingBench) -> None:
    both = [address(port) for port in free_ports(2)]
    _, agent, _ = await bench.port(on_task=echo, agent_addresses=both)
    for hub_id in ("one", "two"):
        hub, sink = await bench.hub(hub_id, agent_addresses=both)
        await sink.event("joined", "a")
        hub.send("a", request("t", hub_id, hub_id))
        assert (await sink.final("t")).deltas == (hub_id,)
    assert {event[1] for event in agent.named("hub_joined")} == {"one", "two"}


async def test_killed_agent_is_lost_and_its_next_life_joins(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    options: Options = {"agent_addresses": [address(port)]}
    _, sink = await bench.hub(lease_ms=60_000, **options)
    lives: list[int] = []
    for _ in range(2):
        agent = await ProcessPeer.start(PeerSpec("agent", "grpc", options, "a", lease=60.0))
        bench.stack.push_async_callback(agent.stop)
        await sink.until(lambda: len(sink.named("joined")) > len(lives))
        lives.append(sink.named("joined")[-1][2])
        await agent.crash()
        await sink.event("lost", "a", lives[-1])
    assert lives[0] != lives[1]


async def test_what_a_hub_sent_before_it_closed_arrives_before_it_is_lost(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    for number in range(500):
        hub.send("a", request(f"t{number}", body="x" * 1000))
    await hub.close()
    await agent.event("hub_lost", "h")
    assert [event[1] for event in agent.named("task")] == [f"t{number}" for number in range(500)]
    assert agent.events[-1][0] == "hub_lost"


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    proxy = await bench.proxy(port)
    hub, sink = await bench.hub(agent_addresses=address(port), lease_ms=60_000)
    end, _, _ = await bench.port(agent_addresses=address(proxy.port), lease_ms=60_000)
    await sink.event("joined", "a")
    proxy.hold()
    for number in range(30):
        hub.send("a", request(f"t{number}", body="x" * 100_000))
    await asyncio.wait_for(asyncio.gather(hub.close(), end.close()), PATIENCE)


@pytest.mark.parametrize("megabytes", [5, 15])
async def test_payload_over_grpcs_own_limit_is_carried(bench: CallingBench, megabytes: int) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    body = "x" * (megabytes * 1024 * 1024)
    hub.send("a", request("t", body=body))
    assert (await sink.final("t")).deltas == (body,)


async def test_messages_that_wait_together_fit_a_receiver_with_a_low_limit(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port), max_message_bytes=2000)
    await sink.event("joined", "a")
    for number in range(1000):
        hub.send("a", request(f"t{number}", body="x" * 1500))
    await agent.event("task", "t999")
    assert len(agent.named("task")) == 1000


async def test_fifty_agents_and_their_links_come_and_go(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    ports = [await bench.port(f"a{number}", echo, agent_addresses=address(port)) for number in range(50)]
    await sink.until(lambda: len(sink.named("joined")) == 50)
    for number in range(50):
        hub.send(f"a{number}", request(f"t{number}", body=str(number)))
    for number in range(50):
        assert (await sink.final(f"t{number}")).deltas == (str(number),)
    await asyncio.gather(*(each.close() for each, _, _ in ports))
    await sink.until(lambda: len(sink.named("lost")) == 50)


# Who may join


async def test_agents_and_clients_with_the_token_join(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    options: Options = {"agent_addresses": address(port), "client_addresses": address(port), "token": "s3cret"}
    _, agents = await bench.hub(**options)
    await bench.port("orchestrator", plane="client", **options)
    await bench.port("a", **options)
    _, clients = await bench.hub("c", plane="client", **options)
    await agents.event("joined", "a")
    await clients.event("joined", "orchestrator")


@pytest.mark.parametrize("wrong", [{}, {"token": "another"}], ids=["none", "wrong"])
async def test_without_the_right_token_nobody_joins_both_sides_say_why_and_with_it_they_do(
    bench: CallingBench, log: Log, wrong: Options
) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port), token="s3cret")
    stranger, told, _ = await bench.port(agent_addresses=address(port), **wrong)
    await log.says("127.0.0.1 was not admitted", "not admitted (it came with")
    assert not sink.events
    assert not told.events
    await stranger.close()
    await bench.port(agent_addresses=address(port), token="s3cret")
    await sink.event("joined", "a")
    assert "s3cret" not in str(log.events)
    assert "another" not in str(log.events)


def test_tokens_are_compared_whole() -> None:
    guard = anywire_grpc.listening.TokenCheck(GrpcConfig(token="s3cret").token)
    assert guard.refusal("Bearer s3cret") == ""
    for wrong in ("", "Bearer ", "Bearer s3cre", "Bearer s3crett", "s3cret", "bearer s3cret", "Bearer s3créт"):
        assert guard.refusal(wrong)


async def test_attempts_that_are_refused_leave_no_connections_behind(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_grpc.dialling, "LONGEST_PAUSE_S", 0.05)
    (port,) = free_ports(1)
    proxy = await bench.proxy(port)
    await bench.hub(agent_addresses=address(port), token="s3cret")
    gc.disable()
    bench.stack.callback(gc.enable)
    before, attempts = sockets(), 12
    end, _, _ = await bench.port(agent_addresses=address(proxy.port))
    await proxy.tried(attempts)
    await end.close()
    assert sockets() - before < attempts  # each connection that is left is four of them


def sockets() -> int:
    return sum(1 for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED)


async def test_no_address_is_open_to_the_network_without_protection(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    everywhere: Options = {"agent_addresses": f"0.0.0.0:{port}"}
    with pytest.raises(errors.TransportUnavailable, match="set a token"):
        await bench.hub(**everywhere)
    _, sink = await bench.hub(token="s3cret", **everywhere)
    with pytest.raises(errors.TransportUnavailable, match="name the host"):
        await bench.port(token="s3cret", **everywhere)
    await bench.port(token="s3cret", agent_addresses=address(port))
    await sink.event("joined", "a")


async def test_two_planes_at_one_address_are_both_encrypted_or_neither(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    shared: Options = {"agent_addresses": address(port), "client_addresses": address(port)}
    await bench.hub(**shared)
    with pytest.raises(errors.TransportUnavailable, match=r"set identity\.key"):
        await bench.port(plane="client", encrypted=True, **shared)
    await bench.port(plane="client", **shared)


class Certificates:
    """Self-signed certificates, each an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str) -> Options:
        key, cert = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True)
        return {"tls_cert": str(cert), "tls_key": str(key)}

    def joined(self, *names: str) -> str:
        """A file with these as authorities."""
        file = self.folder / "joined.pem"
        file.write_text("".join((self.folder / f"{name}.pem").read_text() for name in names))
        return str(file)

    def rename(self, old: str, new: str) -> None:
        (self.folder / old).rename(self.folder / new)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("missing: the command openssl, to make certificates")
    return Certificates(tmp_path)


@pytest.mark.parametrize("mutual", [False, True])
async def test_links_over_tls(bench: CallingBench, certificates: Certificates, mutual: bool) -> None:
    (port,) = free_ports(1)
    hubs, agents = certificates.make("hub"), certificates.make("agent")
    asked: Options = {"tls_ca": agents["tls_cert"]} if mutual else {}
    shown: Options = agents if mutual else {}
    hub, sink = await bench.hub(agent_addresses=address(port), **hubs, **asked)
    await bench.port(on_task=echo, agent_addresses=address(port), tls_ca=hubs["tls_cert"], **shown)
    await sink.event("joined", "a")
    hub.send("a", request("t", body="secret"))
    assert (await sink.final("t")).deltas == ("secret",)


@pytest.mark.parametrize(
    ("at_hub", "at_agent", "host", "text"),
    [
        ({}, {"tls_ca": "other"}, "127.0.0.1", "does not come from an authority in tls_ca"),
        ({}, {"tls_ca": "hub"}, "localhost", "is for another name or address than the one connected to"),
        ({}, {}, "127.0.0.1", "one of the two uses TLS and the other does not"),
        (None, {"tls_ca": "hub"}, "127.0.0.1", "TLS failed: something without TLS listens there"),
        ({"tls_ca": "other"}, {"tls_ca": "hub"}, "127.0.0.1", "wants a certificate and got none"),
        ({"tls_ca": "hub"}, {"tls_ca": "hub", "tls_cert": "other"}, "127.0.0.1", "got none that it trusts"),
    ],
    ids=["unknown authority", "other name", "plain agent", "plain hub", "no certificate", "unknown certificate"],
)
async def test_tls_that_does_not_fit_is_told_once_at_both_ends_and_nobody_joins(
    bench: CallingBench,
    certificates: Certificates,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    at_hub: dict[str, str] | None,
    at_agent: dict[str, str],
    host: str,
    text: str,
) -> None:
    monkeypatch.setattr(anywire_grpc.listening, "CALL_S", 0.2)
    monkeypatch.setattr(anywire_grpc.dialling, "LONGEST_PAUSE_S", 0.05)
    (port,) = free_ports(1)
    proxy = await bench.proxy(port)
    made = {"hub": certificates.make("hub"), "other": certificates.make("other")}

    def named(options: dict[str, str]) -> Options:
        own = made[options["tls_cert"]] if "tls_cert" in options else {}
        return {key: made[name]["tls_cert"] for key, name in options.items()} | own

    hub_options: Options = {} if at_hub is None else made["hub"] | named(at_hub)
    _, sink = await bench.hub(agent_addresses=address(port), **hub_options)
    await bench.port(agent_addresses=f"{host}:{proxy.port}", **named(at_agent))
    told = [text]
    if at_hub is not None:  # without TLS, gRPC tells a listening end nothing of what is no HTTP/2
        told.append("did not get through TLS")
    await log.says(*told)
    await proxy.tried(proxy.connections + 6)
    for each in told:
        assert log.count(each) == 1, each
    assert not sink.events


async def test_links_over_tls_are_not_taken_for_failed_ones(
    bench: CallingBench, certificates: Certificates, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_grpc.listening, "CALL_S", 1.0)
    (port,) = free_ports(1)
    hubs = certificates.make("hub")
    _, sink = await bench.hub(agent_addresses=address(port), **hubs)
    for number in range(5):
        await bench.port(f"a{number}", agent_addresses=address(port), tls_ca=hubs["tls_cert"])
        await sink.event("joined", f"a{number}")
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"\x00" * 64)
        await log.says("did not get through TLS")
    assert log.count("did not get through TLS") == 1


async def test_no_more_connections_than_a_part_of_the_descriptors(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire.listening.connection_limit, "descriptors", lambda: 48)
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
    reading = {asyncio.create_task(reader.read()) for reader, _ in connections}
    left = reading
    while len(left) > 16:
        over, left = await asyncio.wait(left, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert over, f"{len(left)} connections stand"
    hub.send("a", request("t"))
    await sink.final("t")
    assert not sink.named("lost")
    for _, writer in connections:
        writer.close()
    await asyncio.gather(*reading, return_exceptions=True)


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "half a preface"])
async def test_a_connection_that_does_not_speak_is_closed(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(anywire_grpc.library, "HANDSHAKE_MS", 300)
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    hub.send("a", request("t"))
    await sink.final("t")
    assert not sink.named("lost")


@pytest.mark.parametrize("incarnation", [5, 6, 7], ids=["an earlier life", "the same life", "a later life"])
async def test_a_name_cannot_be_taken_by_another_certificate(
    bench: CallingBench, certificates: Certificates, log: Log, incarnation: int
) -> None:
    (port,) = free_ports(1)
    made = {name: certificates.make(name) for name in ("hub", "good", "rogue")}
    both = certificates.joined("good", "rogue")
    hub, sink = await bench.hub(agent_addresses=address(port), **made["hub"], tls_ca=both)
    own: Options = {"agent_addresses": address(port), "tls_ca": made["hub"]["tls_cert"]}
    await bench.port("a", incarnation=6, on_task=echo, **own, **made["good"])
    await sink.event("joined", "a", 6)
    _, told, _ = await bench.port("a", incarnation=incarnation, **own, **made["rogue"])
    await log.says("is here already with another key or certificate")
    hub.send("a", request("t"))
    await sink.final("t")
    assert [event[:3] for event in sink.events if event[0] in ("joined", "lost")] == [("joined", "a", 6)]
    assert not told.events


async def test_tls_files_that_cannot_work_are_told_at_opening(bench: CallingBench, certificates: Certificates) -> None:
    (port,) = free_ports(1)
    one, other = certificates.make("one"), certificates.make("other")
    where: Options = {"agent_addresses": address(port)}
    with pytest.raises(errors.TransportUnavailable, match="add tls_cert and tls_key"):
        await bench.hub(tls_ca=one["tls_cert"], **where)
    with pytest.raises(errors.TransportUnavailable, match=r"nowhere.*does not exist"):
        await bench.port(tls_ca="/nowhere/ca.pem", **where)
    with pytest.raises(errors.TransportUnavailable, match=r"cannot be used.*MISMATCH") as caught:
        await bench.hub(tls_cert=one["tls_cert"], tls_key=other["tls_key"], **where)
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    await bench.hub(**one, **where)  # what failed before has left nothing behind


async def test_tls_files_that_vanish_are_told_and_used_when_they_are_back(
    bench: CallingBench, certificates: Certificates, log: Log
) -> None:
    (port,) = free_ports(1)
    hubs = certificates.make("hub")
    hub, _ = await bench.hub(agent_addresses=address(port), **hubs)
    _, agent, _ = await bench.port(agent_addresses=address(port), tls_ca=hubs["tls_cert"])
    await agent.event("hub_joined", "h")
    certificates.rename("hub.pem", "elsewhere")
    await hub.close()
    await log.says("cannot be used")
    certificates.rename("elsewhere", "hub.pem")
    _, sink = await bench.hub("next", agent_addresses=address(port), **hubs)
    await sink.event("joined", "a")


STRANGE = {
    "long": codec.encode_agent_hello(AgentInfo("x", 1, "h" * 2**22, protocol=PROTOCOL), AgentStatus("x", 1)),
    "not protobuf": b"\xff\xff\xff",
    "no hello": codec.encode_from_agent(Chunk("h", "t", 1, 0)),
    "empty": b"",
    "unknown state": link_pb2.AgentFrame(
        hello={"info": {"agent_id": "x", "lease_ms": 1, "protocol": PROTOCOL}}
    ).SerializeToString(),
}


@pytest.mark.parametrize("frame", STRANGE.values(), ids=STRANGE)
async def test_strangers_are_told_and_disturb_nobody(bench: CallingBench, log: Log, frame: bytes) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    call = await bench.call(port)
    await call.write(frame)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await log.says("sent something unreadable")
    hub.send("a", request("t", body="fine"))
    assert (await sink.final("t")).deltas == ("fine",)
    assert {event[1] for event in sink.named("joined")} == {"a"}
    assert not sink.named("lost")


async def test_state_that_is_none_ends_the_link_and_no_other(bench: CallingBench, log: Log) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    call = await bench.call(port)
    await call.write(codec.encode_agent_hello(AgentInfo("x", 1, protocol=PROTOCOL), AgentStatus("x", 1)))
    await sink.event("joined", "x")
    chunk, progress = {"task_id": "t", "attempt": 1}, {"task_id": "t", "attempt": 1, "state": 99}
    await call.write(link_pb2.AgentFrame(chunks=[chunk], progress=[progress]).SerializeToString())
    assert "99 stands for none of queued" in (await sink.event("lost", "x", 1))[3]
    assert [event[0] for event in sink.events if event[0] in ("chunk", "progress")] == ["chunk"]
    assert not [event for event in sink.named("lost") if event[1] == "a"]
    assert not log.tracebacks


async def test_second_hello_ends_the_link(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    call = await bench.call(port)
    hello = codec.encode_agent_hello(AgentInfo("x", 1, protocol=PROTOCOL), AgentStatus("x", 1))
    await call.write(hello)
    await sink.event("joined", "x")
    await call.write(hello)
    await sink.event("lost", "x", 1)


async def test_other_method_or_plane_is_told(bench: CallingBench, log: Log) -> None:
    (port,) = free_ports(1)
    await bench.hub(agent_addresses=address(port))
    call = await bench.call(port, "client")
    with pytest.raises(grpc.aio.AioRpcError, match="nobody is open here"):
        await call.read()
    server = grpc.aio.server()
    foreign = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    bench.stack.push_async_callback(server.stop, None)
    await bench.port(agent_addresses=address(foreign))
    await log.says("a version of anywire before 2.0")


async def test_listener_that_never_introduces_itself_is_given_up(
    bench: CallingBench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_grpc.end, "HELLO_S", 0.1)

    async def say_nothing(_: object, context: Any) -> None:
        await context.read()
        await context.read()

    handler = grpc.stream_stream_rpc_method_handler(say_nothing)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("anywire.v2.AgentPlane", {"Link": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    bench.stack.push_async_callback(server.stop, None)
    await bench.port(agent_addresses=address(port))
    await log.says("did not introduce itself within")


async def test_hub_listed_under_two_names_is_served_by_one_link_in_the_end(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_grpc.dialling, "FIRST_PAUSE_S", 0.001)
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, _ = await bench.port(on_task=echo, agent_addresses=[address(port), f"localhost:{port}"])
    await sink.until(lambda: len(sink.named("joined")) == 2)
    for number in range(100):  # time for many more to join, if they did
        hub.send("a", request(f"t{number}"))
        await sink.final(f"t{number}")
    assert len(sink.named("joined")) == 2
    assert len(agent.named("hub_lost")) == 1
    await end.close()
    await sink.until(lambda: len(sink.named("lost")) == 2)


async def test_attempt_to_connect_that_fails_unexpectedly_is_logged_and_repeated(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    open_channel, failures = anywire_grpc.library.open_channel, [RuntimeError("nobody thought of this")]

    def fail_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return open_channel(*args)

    monkeypatch.setattr(anywire_grpc.dialling, "open_channel", fail_once)
    _, sink = await bench.hub(agent_addresses=address(port))
    with log_of("anywire.transport_tools") as log:
        await bench.port(agent_addresses=address(port))
        await sink.event("joined", "a")
    assert any("it will be tried again" in event[0] for event in log.events)


async def test_cause_of_a_refusal_is_one_line_in_the_log(
    bench: CallingBench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_grpc.dialling, "LONGEST_PAUSE_S", 0.05)
    (port,) = free_ports(1)
    proxy = await bench.proxy(port)
    await bench.hub(agent_addresses=address(port), token="s3cret")
    await bench.port(agent_addresses=address(proxy.port), token="another")
    await proxy.tried(6)
    for text in ("was not admitted", "not admitted (it came with"):
        assert len([event for event in log.events if text in event[0]]) == 1, text


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no lease": ({"lease_ms": 0}, "lease_ms"),
    "negative lease": ({"lease_ms": -1}, "lease_ms"),
    "endless lease": ({"lease_ms": 2**62}, "lease_ms"),
    "negative incarnation": ({"incarnation": -1}, "incarnation"),
    "no name": ({"agent_id": ""}, "id has 0 characters"),
    "long name": ({"agent_id": "x" * 5000}, "id has 5000 characters"),
    "control characters": ({"agent_id": "x\x1b[2J\n"}, "control characters"),
}


@pytest.mark.parametrize(("wrong", "text"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_hello_that_nobody_can_mean_is_refused_without_a_trace(
    bench: CallingBench, log: Log, wrong: dict[str, Any], text: str
) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    call = await bench.call(port)
    info = msgspec.structs.replace(AgentInfo("x", 1, protocol=PROTOCOL), **wrong)
    await call.write(codec.encode_agent_hello(info, AgentStatus("x", 1)))
    with pytest.raises(grpc.aio.AioRpcError, match=text):
        await call.read()
    await log.says(text)
    assert not log.tracebacks
    assert all(event[0].isprintable() for event in log.events)
    assert not sink.events


async def test_connections_are_given_up_by_the_kernel_and_do_not_wait_to_fill_packets(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port), lease_ms=700)
    await bench.port(agent_addresses=address(port), lease_ms=300)
    await sink.event("joined", "a")
    no_delay = option_of_connections(port, socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert len(no_delay) == 2
    assert all(no_delay)
    user_timeouts = option_of_connections(port, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert sorted(user_timeouts) == [4 * 300, 4 * 700]


# Addresses


async def test_planes_share_a_port_within_a_process_and_never_see_each_other(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    both: Options = {"agent_addresses": address(port), "client_addresses": address(port)}
    hub, agents = await bench.hub("orchestrator", **both)
    facade, clients_of, _ = await bench.port("orchestrator", echo, plane="client", **both)
    await bench.port("a", echo, **both)
    client, orchestrators = await bench.hub("client", plane="client", **both)
    await agents.event("joined", "a")
    await orchestrators.event("joined", "orchestrator")
    client.send("orchestrator", request("up", "client", "of a client"))
    hub.send("a", request("down", "orchestrator", "of the hub"))
    assert (await orchestrators.final("up")).deltas == ("of a client",)
    assert (await agents.final("down")).deltas == ("of the hub",)
    await hub.close()  # the other plane goes on
    client.send("orchestrator", request("still", "client", "there"))
    assert (await orchestrators.final("still")).deltas == ("there",)
    assert {event[1] for event in agents.named("joined")} == {"a"}
    assert {event[1] for event in clients_of.named("hub_joined")} == {"client"}
    await facade.close()
    await bench.hub("next", **both)  # the port is free again


async def test_planes_with_different_settings_do_not_share_a_port(bench: CallingBench) -> None:
    (port,) = free_ports(1)
    both: Options = {"agent_addresses": address(port), "client_addresses": address(port)}
    await bench.hub(token="s3cret", **both)
    with pytest.raises(errors.TransportUnavailable, match="in use"):
        await bench.port(plane="client", **both)


async def test_unix_socket_in_use_is_not_taken_away_and_a_stale_one_is_used(
    bench: CallingBench, tmp_path: Path
) -> None:
    path = f"unix:{tmp_path}/hub"
    first = await ProcessPeer.start(PeerSpec("hub", "grpc", {"agent_addresses": [path]}, "first"))
    bench.stack.push_async_callback(first.stop)
    _, agent, _ = await bench.port(agent_addresses=path)
    await agent.event("hub_joined", "first")
    with pytest.raises(errors.TransportUnavailable, match="in use"):
        await bench.hub("other", agent_addresses=path)
    await first.crash()
    await agent.event("hub_lost", "first")
    _, sink = await bench.hub("next", agent_addresses=path)
    await sink.event("joined", "a")


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent_addresses": "http://localhost:1"}, "use host:port"),
        ({"agent_addresses": "::1:50051"}, "IPv6"),
        ({"agent_addresses": "localhost"}, "use host:port"),
        ({"agent_addresses": "localhost:70000"}, "a port up to 65535"),
        ({"agent_addresses": "unix:relative"}, "absolute path"),
        ({"agent_addresses": ["unix:/" + "x" * 200]}, "up to 107 bytes"),
        ({"client_addresses": []}, "client_addresses"),
        ({"agent_adresses": []}, "did you mean 'agent_addresses'"),
        ({"max_message_bytes": 0}, "greater than or equal to 1024"),
        ({"token": " "}, "protects nothing"),
        ({"token": "ü"}, "ASCII"),
        ({"token": "a\nb"}, "printable"),
        ({"tls_cert": "a.pem"}, "belong together"),
        ({"tls_key": "a.key", "tls_ca": "a.pem"}, "belong together"),
    ],
)
def test_bad_settings_are_answered_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plugins().create("transports", "grpc", options)


@pytest.mark.parametrize("good", ["localhost:1", "[::1]:50051", "10.0.0.1:65535", "unix:/run/anywire"])
def test_good_addresses_are_kept_as_they_are(good: str) -> None:
    assert GrpcConfig(agent_addresses=[good]).agent_addresses == [good]


def test_token_is_not_shown() -> None:
    assert "s3cret" not in repr(GrpcConfig(token="s3cret"))


def test_children_see_nothing_of_grpc_on_their_parents_standard_error(tmp_path: Path) -> None:
    """A process that uses gRPC and starts others, as ``anywire up`` does."""
    program = """if True:
        import asyncio, subprocess, sys
        from anywire_grpc import GrpcConfig, GrpcTransport
        from anywire.messages import HubInfo
        from anywire.testing.recorder import RecordingHubSink

        async def main():
            path = "unix:" + sys.argv[1]
            hub = await GrpcTransport(GrpcConfig(agent_addresses=path)).open_hub(HubInfo("h", 1), "agent",
                RecordingHubSink())
            for _ in range(5):
                subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None)
            await hub.close()

        asyncio.run(main())
    """
    arguments = [sys.executable, "-c", program, str(tmp_path / "hub")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60 * FACTOR, check=True)
    assert done.stderr == ""


# Errors


def library_errors() -> list[type[Exception]]:
    found: dict[str, type[Exception]] = {}
    modules: list[ModuleType] = [grpc, grpc.aio, importlib.import_module("grpc._cython.cygrpc"), protobuf]
    for module in modules:
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Exception) and not issubclass(cls, Warning):
                found[name] = cls
    return list(found.values())


def rpc_error(code: grpc.StatusCode, details: str = "so") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None)


def made(cls: type[Exception]) -> Exception:
    if issubclass(cls, grpc.aio.AioRpcError):
        return rpc_error(grpc.StatusCode.INTERNAL)
    if cls.__name__ == "AioRpcStatus":  # of the C extension, which does not export it
        return cls(grpc.StatusCode.INTERNAL.value[0], "so", (), "")
    return cls()


@pytest.mark.parametrize("cls", library_errors(), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_libraries_is_mapped(cls: type[Exception]) -> None:
    original = made(cls)
    error = mapped(original, "doing this")
    assert isinstance(error, errors.TransportError)
    assert error.__cause__ is original
    assert str(error).startswith("doing this: ")
    assert len(str(error)) > len("doing this: ")


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_status_is_mapped(code: grpc.StatusCode) -> None:
    for details in ("", "because"):
        original = rpc_error(code, details)
        error = mapped(original, "doing this")
        assert isinstance(error, errors.TransportError)
        assert error.__cause__ is original
        assert details in str(error)
        assert len(str(error)) > len("doing this: ")


NOT_CONNECTED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    ("original", "cls"),
    [
        (rpc_error(grpc.StatusCode.UNAVAILABLE, NOT_CONNECTED + "Connection refused"), errors.AgentUnavailable),
        (rpc_error(grpc.StatusCode.UNAVAILABLE, NOT_CONNECTED + "Socket closed"), errors.TransportUnavailable),
        (rpc_error(grpc.StatusCode.UNAVAILABLE, NOT_CONNECTED + "Tls handshake failed"), errors.TransportUnavailable),
        (rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"), errors.AgentLost),
        (rpc_error(grpc.StatusCode.UNAUTHENTICATED), errors.TransportUnavailable),
        (rpc_error(grpc.StatusCode.UNIMPLEMENTED), errors.TransportUnavailable),
        (rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED), errors.PayloadTooLarge),
        (rpc_error(grpc.StatusCode.CANCELLED), errors.AgentLost),
        (grpc.aio.InternalError("x"), errors.AgentLost),
        (asyncio.InvalidStateError("RPC already finished."), errors.AgentLost),
        (grpc.aio.UsageError("x"), errors.TransportError),
        (protobuf.DecodeError("x"), errors.TransportError),
        (OSError(errno.EADDRINUSE, "x"), errors.TransportUnavailable),
        (OSError(errno.EACCES, "x"), errors.TransportUnavailable),
        (RuntimeError("Failed to bind"), errors.TransportUnavailable),
    ],
)
def test_errors_mean_what_they_say(original: BaseException, cls: type[errors.AnywireError]) -> None:
    assert type(mapped(original, "x")) is cls


def test_hanging_up_is_one_sentence_however_the_socket_told_it() -> None:
    told = {
        str(mapped(rpc_error(grpc.StatusCode.UNAVAILABLE, NOT_CONNECTED + how), "the link to x failed"))
        for how in ("Socket closed", "recvmsg:Connection reset by peer (104)")
    }
    assert len(told) == 1


# The wire contract

SOURCE = Path(anywire_grpc.__file__).parent / "link.proto"


def test_checked_in_code_is_what_protoc_makes_of_the_contract(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="missing: the package grpcio-tools")
    root = SOURCE.parents[1]
    arguments = ["protoc", f"-I{root}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(SOURCE)]
    assert protoc.main(arguments) == 0
    for name in ("link_pb2.py", "link_pb2.pyi"):
        new, old = (_unversioned(path.read_text()) for path in (tmp_path / "anywire_grpc" / name, SOURCE.parent / name))
        assert new == old, f"{name} is not of this link.proto: make it anew as the README says"


def _unversioned(code: str) -> str:
    """Without the version of protoc, which another version of the tools writes otherwise."""
    code = re.sub(r"# Protobuf Python Version: .*", "", code)
    return re.sub(r"ValidateProtobufRuntimeVersion\([^)]*\)", "", code)


def _described(descriptor: Descriptor) -> dict[str, Any]:
    return {field.name: field for field in descriptor.fields}


@pytest.mark.parametrize(
    ("struct", "message"),
    [
        (TaskRequest, "TaskRequest"),
        (Chunk, "Chunk"),
        (Cancel, "Cancel"),
        (Credit, "Credit"),
        (Command, "Command"),
        (CommandResult, "CommandResult"),
        (Progress, "Progress"),
        (AgentStatus, "AgentStatus"),
        (AgentInfo, "AgentInfo"),
        (HubInfo, "HubHello"),
    ],
)
def test_contract_has_the_fields_of_the_messages_in_their_order(struct: Any, message: str) -> None:
    ours = {field.name: field.type for field in msgspec.structs.fields(struct)}
    theirs = _described(link_pb2.DESCRIPTOR.message_types_by_name[message])
    assert list(theirs) == list(ours)
    numbers = [field.number for field in theirs.values()]
    assert len(set(numbers)) == len(numbers)
    kinds = {str: "TYPE_STRING", int: "TYPE_INT64", bool: "TYPE_BOOL", tuple[str, ...]: "TYPE_STRING"}
    for name, kind in ours.items():
        field = theirs[name]
        if kind in kinds:
            assert field.type == getattr(type(field), kinds[kind]), name
            assert field.is_repeated == (kind == tuple[str, ...]), name


@pytest.mark.parametrize(
    ("enumeration", "names"),
    [("Kind", messages.Kind), ("State", messages.State), ("ProgressState", messages.ProgressState)],
)
def test_contract_has_the_names_of_the_enumerations(enumeration: str, names: Any) -> None:
    values = link_pb2.DESCRIPTOR.enum_types_by_name[enumeration].values_by_name
    assert list(values) == [f"{enumeration.upper()}_UNSPECIFIED", *(each.upper() for each in get_args(names))]


texts = st.text(max_size=20)
numbers = st.integers(min_value=0, max_value=2**63 - 1)
statuses = st.builds(
    AgentStatus,
    texts,
    numbers,
    st.sampled_from(get_args(messages.State)),
    texts,
    numbers,
    numbers,
    numbers,
    st.dictionaries(texts, st.floats(allow_nan=False)),
    texts,
)
names = st.lists(texts).map(tuple)
infos = st.builds(AgentInfo, texts, numbers, texts, numbers, texts, texts, names, texts, texts, numbers, texts)
tasks = st.builds(
    TaskRequest,
    *(texts, texts, numbers, st.sampled_from(get_args(messages.Kind)), texts, texts),
    *(st.booleans(), texts, st.integers(-(2**63), 2**63 - 1), numbers, numbers, numbers, texts),
    *(st.booleans(), numbers, texts, texts, texts, texts, texts, names, names),
)
chunks = st.builds(
    Chunk,
    *(texts, texts, numbers, numbers, st.lists(texts).map(tuple), texts, st.booleans(), texts, texts, texts),
    *(numbers, numbers, numbers, numbers, st.booleans(), numbers),
)
results = st.builds(CommandResult, texts, texts, numbers, texts, st.booleans(), texts)
progress = st.builds(Progress, texts, texts, numbers, st.sampled_from(get_args(messages.ProgressState)), texts)
to_agent = st.one_of(
    tasks,
    st.builds(Cancel, texts, texts, numbers, texts),
    st.builds(Credit, texts, texts, numbers, numbers),
    st.builds(Command, texts, texts, texts, texts, names, numbers, numbers, texts, texts),
)


def read_hub_frame(data: bytes) -> list[ToAgent]:
    frame, body = codec.decode_hub_frame(data)
    return [
        *codec.read_tasks(frame, body),
        *map(codec.read_cancel, frame.cancels),
        *map(codec.read_credit, frame.credits),
        *map(codec.read_command, frame.commands),
    ]


@given(st.lists(to_agent))
def test_joined_frames_hold_every_message_in_its_order(sent: list[ToAgent]) -> None:
    received = read_hub_frame(b"".join(map(codec.encode_to_agent, sent)))
    kinds: list[type] = [TaskRequest, Cancel, Credit, Command]
    assert received == sorted(sent, key=lambda each: kinds.index(type(each)))


@given(st.lists(st.one_of(chunks, statuses, results, progress)))
def test_joined_frames_of_an_agent_hold_every_message_in_its_order(sent: list[FromAgent | AgentStatus]) -> None:
    def encode(message: FromAgent | AgentStatus) -> bytes:
        if isinstance(message, AgentStatus):
            return codec.encode_status(message)
        return codec.encode_from_agent(message)

    frame = codec.decode_agent_frame(b"".join(map(encode, sent)))
    assert [*map(codec.read_chunk, frame.chunks)] == [each for each in sent if isinstance(each, Chunk)]
    assert [*map(codec.read_status, frame.statuses)] == [each for each in sent if isinstance(each, AgentStatus)]
    assert [*map(codec.read_result, frame.results)] == [each for each in sent if isinstance(each, CommandResult)]
    assert [*map(codec.read_progress, frame.progress)] == [each for each in sent if isinstance(each, Progress)]


@given(infos, statuses, st.builds(HubInfo, texts, numbers, texts, numbers, numbers, texts))
def test_hellos_come_back_as_they_were(info: AgentInfo, status: AgentStatus, hub: HubInfo) -> None:
    hello = codec.decode_agent_frame(codec.encode_agent_hello(info, status)).hello
    assert (codec.read_agent_info(hello.info), codec.read_status(hello.status)) == (info, status)
    assert codec.read_hub_info(codec.decode_hub_frame(codec.encode_hub_hello(hub))[0].hello) == hub


@given(tasks, st.data())
def test_damaged_frames_are_told_as_such(task: TaskRequest, data: st.DataObject) -> None:
    good = codec.encode_to_agent(task)
    cut = data.draw(st.integers(0, len(good)))
    damaged = good[:cut] + data.draw(st.binary(max_size=8)) + good[cut + data.draw(st.integers(0, 3)) :]
    with suppress(protobuf.DecodeError):
        read_hub_frame(damaged)


@pytest.mark.parametrize("wrong", [{"body": "\ud800"}, {"priority": 2**63}])
def test_what_protobuf_cannot_carry_is_told_to_the_sender(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.TransportError, match=r"TaskRequest is no valid Unicode|encoding a TaskRequest"):
        codec.encode_to_agent(msgspec.structs.replace(request("t"), **wrong))


class Written:
    """A stream that writes down its frames, one whenever it is told to go on."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.go = asyncio.Semaphore(0)

    async def read(self) -> object:
        return await asyncio.get_running_loop().create_future()

    async def write(self, message: bytes) -> None:
        self.frames.append(message)
        await self.go.acquire()


@given(st.lists(st.integers(1, 3 * BATCH_BYTES), min_size=1, max_size=20))
def test_frames_join_what_waits_up_to_their_bound_and_lose_nothing(sizes: list[int]) -> None:
    async def run() -> None:
        wire, stream = Wire("peer"), Written()
        running = asyncio.ensure_future(wire.run(stream, None, lambda data: None))
        sent = [bytes([number]) * size for number, size in enumerate(sizes)]
        for each in sent:
            wire.send(each)
        wire.finish()
        for _ in sent:
            stream.go.release()
        assert await running == Ending(grpc.StatusCode.OK, "it closed")
        assert b"".join(stream.frames) == b"".join(sent)
        for frame in stream.frames:
            assert len(frame) <= BATCH_BYTES or frame in sent
        for one, following in zip(stream.frames, stream.frames[1:], strict=False):
            first_of_next = next(each for each in sent if following.startswith(each))
            assert len(one) + len(first_of_next) > BATCH_BYTES

    asyncio.run(run())


@pytest.mark.parametrize("shared", [False, True])
async def test_closing_waits_for_what_is_left_of_its_calls(
    bench: CallingBench, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Each is a task of the server's, and may take its time to end. Also where another plane goes on at the address."""
    answer = anywire_grpc.listening.Listener._answer

    async def reluctantly(self: Any, plane: Plane, context: Any) -> None:
        try:
            await answer(self, plane, context)
        finally:
            for _ in range(200):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)

    monkeypatch.setattr(anywire_grpc.listening.Listener, "_answer", reluctantly)
    (port,) = free_ports(1)
    where: Options = {"agent_addresses": address(port), "client_addresses": address(port)}
    hub, sink = await bench.hub(**where)
    if shared:
        await bench.port("parent", plane="client", **where)
    for name in ("a", "b", "c"):
        await bench.port(name, **where)
        await sink.event("joined", name)
    await hub.close()
    assert [repr(each) for each in asyncio.all_tasks() if "_handle_exceptions" in repr(each)] == []


async def test_a_failure_of_which_grpc_has_lost_the_reason_is_told_only_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    end: Any = SimpleNamespace(
        guard=SimpleNamespace(closed=False), wires=(), unlinked=SimpleNamespace(note=lambda _, said: told.append(said))
    )
    lost = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Internal error from Core", ""
    )
    ends = [mapped(lost, "linking"), errors.TransportUnavailable("a wrong token"), mapped(lost, "linking")]
    dialler = anywire_grpc.dialling.Dialler(end, "127.0.0.1:1")

    async def link() -> tuple[str, errors.AnywireError]:
        return "", ends[0]

    monkeypatch.setattr(dialler, "_link", link)
    for _ in range(2):
        await dialler._attempt()
    assert len(told) == 1
    assert "Internal error from Core" in told[0]
    for _ in range(2):
        ends.pop(0)
        await dialler._attempt()
    assert told[1:] == ["a wrong token"]
