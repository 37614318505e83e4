"""Ends of two protocol versions do not join over a wire, and both say by name why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
import zmq
import zmq.asyncio
from aiohttp import web
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log
from tests.patience import FACTOR, PATIENCE

from anywire.messages import HubInfo
from anywire.protocol import PROTOCOL
from anywire.testing.recorder import RecordingHubSink
from anywire.transport import Plane
from anywire_http import HttpConfig, HttpTransport
from anywire_http.wire import LINK_HEADER
from anywire_zeromq.codec import Goodbye
from anywire_zeromq.codec import decode as decode_frame
from reserved import free_ports

TRANSPORTS = ["http", "zeromq", "grpc"]
PLANES: list[Plane] = ["agent", "client"]
SCHEMES = {"http": "http://", "zeromq": "tcp://", "grpc": ""}


def at(name: str, plane: Plane, port: int) -> dict[str, Any]:
    return {f"{plane}_addresses": f"{SCHEMES[name]}127.0.0.1:{port}"}


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.DEBUG)
    with log_of("") as log:
        yield log


# Two versions that name themselves


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", TRANSPORTS)
async def test_both_ends_name_the_two_versions_once_and_nobody_joins(
    stack: AsyncExitStack, log: Log, name: str, plane: Plane
) -> None:
    bench = Bench(stack, name)
    (port,) = free_ports(1)
    _, hub = await bench.hub(plane=plane, protocol="3.0", lease_ms=1000, **at(name, plane, port))
    _, agent, _ = await bench.port(plane=plane, lease_ms=1000, **at(name, plane, port))
    of_hub = f"agent a: it speaks protocol version {PROTOCOL}, this end 3.0: use one version"
    of_agent = f"hub h: it speaks protocol version 3.0, this end {PROTOCOL}: use one version"
    async with asyncio.timeout(2 * FACTOR):
        await log.says(of_hub, of_agent)
    for sentence in (of_hub, of_agent):
        await log.until(lambda: log.count(sentence, logging.DEBUG) >= 3, "it tries again")  # noqa: B023
    assert not hub.events
    assert not agent.events
    assert (log.count(of_hub), log.count(of_agent)) == (1, 1)
    assert not log.tracebacks


@pytest.mark.parametrize("other", ["2.0", "2.2"])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", TRANSPORTS)
async def test_neighbouring_minor_versions_work_together(
    stack: AsyncExitStack, name: str, plane: Plane, other: str
) -> None:
    bench = Bench(stack, name)
    (port,) = free_ports(1)
    hub, sink = await bench.hub(plane=plane, protocol=other, **at(name, plane, port))
    await bench.port(on_task=echo, plane=plane, **at(name, plane, port))
    info = (await sink.event("joined", "a"))[3]
    assert info.protocol == PROTOCOL
    hub.send("a", request("t", body="across"))
    assert (await sink.final("t")).deltas == ("across",)


# The version before, which named none: what its ends said, byte by byte

NONE = "it speaks no protocol version that can be read, as before 2.0, this end"
OLD_AGENT, OLD_HUB = f"agent old-agent: {NONE} {PROTOCOL}", f"hub old-hub: {NONE} {PROTOCOL}"

HTTP_REGISTRATION = (
    b'{"protocol":"anywire-http/1","plane":"agent","url":"http://127.0.0.1:9","info":{"agent_id":"old-agent",'
    b'"incarnation":7,"host":"host","pid":42,"engine":"synthetic","specialization":"","capabilities":["chat","resume"]'
    b',"device":"","boot_id":"boot","lease_ms":1000}}'
)
HTTP_AGENT = (
    b'{"protocol":"anywire-http/1","plane":"client","info":{"agent_id":"old-agent","incarnation":7,"host":"host",'
    b'"pid":42,"engine":"synthetic","specialization":"","capabilities":["chat","resume"],"device":"","boot_id":"boot",'
    b'"lease_ms":1000},"status":{"agent_id":"old-agent","incarnation":7,"state":"ready","models":["m"],"slots":4,'
    b'"active":0,"queued":0,"resources":{"load1":0.5},"detail":""}}'
)
HTTP_HUB = {
    "agent": b'{"protocol":"anywire-http/1","plane":"agent","info":{"hub_id":"old-hub","incarnation":7,"host":"host",'
    b'"pid":42,"lease_ms":1000}}',
    "client": b'{"protocol":"anywire-http/1","plane":"client","info":{"hub_id":"old-hub","incarnation":7,"host":"host",'
    b'"pid":42,"lease_ms":1000}}',
}
ZEROMQ_AGENT = (
    b"A\x94\xb0anywire-zeromq/2\xa5agent\x8a\xa8agent_id\xa9old-agent\xabincarnation\x07\xa4host\xa4host\xa3pid*"
    b"\xa6engine\xa9synthetic\xaespecialization\xa0\xaccapabilities\x92\xa4chat\xa6resume\xa6device\xa0\xa7boot_id"
    b"\xa4boot\xa8lease_ms\xcd\x03\xe8\x89\xa8agent_id\xa9old-agent\xabincarnation\x07\xa5state\xa5ready\xa6models"
    b"\x91\xa1m\xa5slots\x04\xa6active\x00\xa6queued\x00\xa9resources\x81\xa5load1\xcb?\xe0\x00\x00\x00\x00\x00\x00"
    b"\xa6detail\xa0"
)
ZEROMQ_HUB = {
    "agent": b"H\x93\xb0anywire-zeromq/2\xa5agent\x85\xa6hub_id\xa7old-hub\xabincarnation\x07\xa4host\xa4host\xa3pid*"
    b"\xa8lease_ms\xcd\x03\xe8",
    "client": b"H\x93\xb0anywire-zeromq/2\xa6client\x85\xa6hub_id\xa7old-hub\xabincarnation\x07\xa4host\xa4host\xa3pid*"
    b"\xa8lease_ms\xcd\x03\xe8",
}
GRPC_AGENT = (
    b"\na\n7\n\told-agent\x10\x07\x1a\x04host **\tsynthetic:\x04chat:\x06resumeJ\x04bootP\xe8\x07\x12&\n\told-agent"
    b'\x10\x07\x18\x02"\x01m(\x04B\x10\n\x05load1\x11\x00\x00\x00\x00\x00\x00\xe0?'
)
GRPC_HUB = b"\n\x16\n\x07old-hub\x10\x07\x1a\x04host *(\xe8\x07"

LATER = "it speaks protocol version 7.0, this end"
"""Hellos of a version to come, in which other members have other types."""
HTTP_LATER = (
    b'{"protocol":"anywire-http/1","plane":["any"],"info":{"agent_id":"later","incarnation":"x","protocol":"7.0"}}'
)
ZEROMQ_LATER = (
    b"A\x93\xb0anywire-zeromq/2\xa3any\x83\xa8agent_id\xa5later\xabincarnation\xa1x\xa8protocol\xa37.0"  # no status
)


async def post(url: str, data: bytes, **headers: str) -> tuple[int, str]:
    headers |= {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as client, client.post(url, data=data, headers=headers) as response:
        return response.status, (await response.json())["error"]


async def test_http_hub_refuses_registrations_of_other_versions_by_name(stack: AsyncExitStack, log: Log) -> None:
    (port,) = free_ports(1)
    _, sink = await Bench(stack, "http").hub(agent_addresses=f"http://127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/agents/register"
    for _ in range(3):
        assert await post(url, HTTP_REGISTRATION) == (
            409,
            f"hub h: it speaks protocol version {PROTOCOL}, this end none: use one version of anywire on both",
        )
    assert (await post(url, HTTP_LATER))[0] == 409
    assert (log.count(OLD_AGENT), log.count(f"agent later: {LATER} {PROTOCOL}")) == (1, 1)
    assert not sink.events
    assert not log.tracebacks


async def test_registration_through_a_gateway_is_refused_by_name(stack: AsyncExitStack, log: Log) -> None:
    (port,) = free_ports(1)
    transport = HttpTransport(HttpConfig.model_validate({"agent_addresses": f"http://127.0.0.1:{port}"}))
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink := RecordingHubSink())
    stack.push_async_callback(hub.close)
    status, answer = await transport.register_agent(HTTP_REGISTRATION, "", "here")
    assert status == 409
    assert f"hub h: it speaks protocol version {PROTOCOL}".encode() in answer
    assert log.count(f"an agent at here is not registered: {OLD_AGENT}") == 1
    assert not sink.events


@pytest.mark.parametrize("plane", PLANES)
async def test_http_agent_refuses_an_old_hub_by_name(stack: AsyncExitStack, log: Log, plane: Plane) -> None:
    port, nobody = free_ports(2)
    listens: dict[str, Any] = {
        "agent_listen": f"http://127.0.0.1:{port}",
        "client_addresses": f"http://127.0.0.1:{port}",
    }
    _, agent, _ = await Bench(stack, "http").port(plane=plane, agent_addresses=f"http://127.0.0.1:{nobody}", **listens)
    status, error = await post(f"http://127.0.0.1:{port}/link", HTTP_HUB[plane], **{LINK_HEADER: "x"})
    assert (status, f"agent a: it speaks protocol version {PROTOCOL}" in error) == (409, True)
    assert log.count(OLD_HUB) == 1
    assert not agent.events


async def test_http_client_asks_nothing_of_an_old_orchestrator(stack: AsyncExitStack, log: Log) -> None:
    asked = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=HTTP_AGENT, content_type="application/json")

    (port,) = free_ports(1)
    server = web.ServerRunner(web.Server(serve))
    await server.setup()
    stack.push_async_callback(server.cleanup)
    await web.TCPSite(server, "127.0.0.1", port).start()
    _, sink = await Bench(stack, "http").hub(plane="client", client_addresses=f"http://127.0.0.1:{port}")
    await log.says(f"http://127.0.0.1:{port} is not linked to hub h: {OLD_AGENT}")
    assert set(asked) == {"/agent"}
    assert not sink.events


@pytest.fixture
def sockets() -> Iterator[Any]:
    context = zmq.asyncio.Context()
    yield context.socket
    context.destroy(0)


async def goodbye(socket: Any) -> str:
    while True:
        message = decode_frame((await asyncio.wait_for(socket.recv_multipart(), PATIENCE))[-1])
        if isinstance(message, Goodbye):
            return message.reason


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [(ZEROMQ_AGENT, OLD_AGENT), (ZEROMQ_LATER, f"agent later: {LATER} {PROTOCOL}")],
    ids=["before", "later"],
)
async def test_zeromq_hub_refuses_agents_of_other_versions_by_name(
    stack: AsyncExitStack, log: Log, sockets: Any, hello: bytes, sentence: str
) -> None:
    (port,) = free_ports(1)
    _, sink = await Bench(stack, "zeromq").hub(agent_addresses=f"tcp://127.0.0.1:{port}")
    dealer = sockets(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    await dealer.send(hello)
    assert (await goodbye(dealer)).startswith(f"hub h: it speaks protocol version {PROTOCOL}, this end")
    assert log.count(sentence) == 1
    assert not sink.events


async def test_zeromq_agent_refuses_an_old_client_by_name(stack: AsyncExitStack, log: Log, sockets: Any) -> None:
    (port,) = free_ports(1)
    _, agent, _ = await Bench(stack, "zeromq").port(plane="client", client_addresses=f"tcp://127.0.0.1:{port}")
    dealer = sockets(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    await dealer.send(ZEROMQ_HUB["client"])
    assert (await goodbye(dealer)).startswith(f"agent a: it speaks protocol version {PROTOCOL}, this end none")
    assert log.count(OLD_HUB) == 1
    assert not agent.events


async def test_zeromq_agent_never_confirms_an_old_hub(stack: AsyncExitStack, log: Log, sockets: Any) -> None:
    """The old hub would have joined this agent at its `Ready`."""
    (port,) = free_ports(1)
    router = sockets(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port}")
    _, agent, _ = await Bench(stack, "zeromq").port(agent_addresses=f"tcp://127.0.0.1:{port}")
    peer, _ = await asyncio.wait_for(router.recv_multipart(), PATIENCE)
    await router.send_multipart([peer, ZEROMQ_HUB["agent"]])
    _, answer = await asyncio.wait_for(router.recv_multipart(), PATIENCE)
    assert isinstance(decode_frame(answer), Goodbye)
    await log.says(f"tcp://127.0.0.1:{port} is not linked to agent a: {OLD_HUB}")
    assert not agent.events


@pytest.mark.parametrize("plane", PLANES)
async def test_grpc_listener_refuses_old_callers_by_name(stack: AsyncExitStack, log: Log, plane: Plane) -> None:
    bench = Bench(stack, "grpc")
    (port,) = free_ports(1)
    if plane == "agent":
        _, sink = await bench.hub(agent_addresses=f"127.0.0.1:{port}")
        method, hello, me, sentence = "/anywire.v1.AgentPlane/Link", GRPC_AGENT, "hub h", OLD_AGENT
    else:
        _, sink, _ = await bench.port(plane="client", client_addresses=f"127.0.0.1:{port}")  # type: ignore[assignment]
        method, hello, me, sentence = "/anywire.v1.ClientPlane/Link", GRPC_HUB, "agent a", OLD_HUB
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    stack.push_async_callback(channel.close, None)
    call = channel.stream_stream(method, None, None)(None)
    await call.write(hello)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (caught.value.details() or "").startswith(f"{me}: it speaks protocol version {PROTOCOL}, this end none")
    await log.says(sentence)
    assert not sink.events


async def test_grpc_agent_is_not_half_joined_by_an_old_hub(stack: AsyncExitStack, log: Log) -> None:
    said = []

    async def link(_: object, context: Any) -> None:
        said.append(await context.read())
        await context.write(GRPC_HUB)
        await context.read()

    server = grpc.aio.server()
    handler = {"Link": grpc.stream_stream_rpc_method_handler(link)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("anywire.v1.AgentPlane", handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    _, agent, _ = await Bench(stack, "grpc").port(agent_addresses=f"127.0.0.1:{port}")
    await log.says("a version of anywire before 2.0: use one version of anywire on both")
    assert not said
    assert not agent.events
