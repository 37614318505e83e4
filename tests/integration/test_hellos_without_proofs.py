"""Peers of version 2.0 know no proofs: their hellos, byte by byte, are linked, as of ends without a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import grpc.aio
import pytest_asyncio
import zmq
import zmq.asyncio
from tests.integration.wire_bench import Bench
from tests.patience import PATIENCE

from anywire_zeromq.codec import decode as decode_frame
from reserved import free_ports

HTTP_HUB = (
    b'{"protocol":"anywire-http/1","plane":"client","info":{"hub_id":"older-hub","incarnation":7,"host":"host","pid":42,'
    b'"lease_ms":1000,"protocol":"2.0"}}'
)
ZEROMQ_HUB = (
    b"H\x93\xb0anywire-zeromq/2\xa6client\x86\xa6hub_id\xa9older-hub\xabincarnation\x07\xa4host\xa4host\xa3pid*"
    b"\xa8lease_ms\xcd\x03\xe8\xa8protocol\xa32.0"
)
ZEROMQ_AGENT = (
    b"A\x94\xb0anywire-zeromq/2\xa5agent\x8b\xa8agent_id\xabolder-agent\xabincarnation\x07\xa4host\xa4host\xa3pid*"
    b"\xa6engine\xa9synthetic\xaespecialization\xa0\xaccapabilities\x92\xa4chat\xa6resume\xa6device\xa0\xa7boot_id"
    b"\xa4boot\xa8lease_ms\xcd\x03\xe8\xa8protocol\xa32.0\x89\xa8agent_id\xabolder-agent\xabincarnation\x07\xa5state"
    b"\xa5ready\xa6offers\xa0\xa5slots\x04\xa6active\x00\xa6queued\x00\xa9resources\x80\xa6detail\xa0"
)
GRPC_HUB = b"\n\x1d\n\tolder-hub\x10\x07\x1a\x04host *(\xe8\x072\x032.0"
GRPC_AGENT = (
    b"\nU\n>\n\x0bolder-agent\x10\x07\x1a\x04host **\tsynthetic:\x04chat:\x06resumeJ\x04bootP\xe8\x07Z\x032.0\x12\x13\n"
    b"\x0bolder-agent\x10\x07\x18\x02(\x04"
)


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_http_links_a_client_of_2_0(stack: AsyncExitStack) -> None:
    (port,) = free_ports(1)
    _, agent, _ = await Bench(stack, "http").port(plane="client", client_addresses=f"http://127.0.0.1:{port}")
    session = await stack.enter_async_context(aiohttp.ClientSession())
    url = f"http://127.0.0.1:{port}/link"
    headers = {"Anywire-Link": "a-link", "Content-Type": "application/json"}
    async with session.post(url, data=HTTP_HUB, headers=headers) as response:
        assert response.status == 200
        (_, hub_id, incarnation, info) = await agent.event("hub_joined")
        assert (hub_id, incarnation, info.protocol, info.proof) == ("older-hub", 7, "2.0", "")


async def test_zeromq_links_a_client_of_2_0(stack: AsyncExitStack) -> None:
    (port,) = free_ports(1)
    _, agent, _ = await Bench(stack, "zeromq").port(plane="client", client_addresses=f"tcp://127.0.0.1:{port}")
    dealer = await _dealer(stack, port)
    await dealer.send(ZEROMQ_HUB)
    answer = await asyncio.wait_for(dealer.recv(), PATIENCE)
    assert decode_frame(answer).info.agent_id == "a"  # type: ignore[union-attr]
    await dealer.send(b"R\x90")
    (_, hub_id, incarnation, info) = await agent.event("hub_joined")
    assert (hub_id, incarnation, info.protocol, info.proof) == ("older-hub", 7, "2.0", "")


async def test_zeromq_links_an_agent_of_2_0(stack: AsyncExitStack) -> None:
    (port,) = free_ports(1)
    _, sink = await Bench(stack, "zeromq").hub(agent_addresses=f"tcp://127.0.0.1:{port}")
    dealer = await _dealer(stack, port)
    await dealer.send(ZEROMQ_AGENT)
    answer = await asyncio.wait_for(dealer.recv(), PATIENCE)
    assert decode_frame(answer).info.hub_id == "h"  # type: ignore[union-attr]
    await dealer.send(b"R\x90")
    (_, agent_id, incarnation, info) = await sink.event("joined")
    assert (agent_id, incarnation, info.protocol, info.proof) == ("older-agent", 7, "2.0", "")


async def test_grpc_links_a_client_of_2_0(stack: AsyncExitStack) -> None:
    (port,) = free_ports(1)
    _, agent, _ = await Bench(stack, "grpc").port(plane="client", client_addresses=f"127.0.0.1:{port}")
    await _grpc_hello(stack, port, "/anywire.v2.ClientPlane/Link", GRPC_HUB)
    (_, hub_id, incarnation, info) = await agent.event("hub_joined")
    assert (hub_id, incarnation, info.protocol, info.proof) == ("older-hub", 7, "2.0", "")


async def test_grpc_links_an_agent_of_2_0(stack: AsyncExitStack) -> None:
    (port,) = free_ports(1)
    _, sink = await Bench(stack, "grpc").hub(agent_addresses=f"127.0.0.1:{port}")
    await _grpc_hello(stack, port, "/anywire.v2.AgentPlane/Link", GRPC_AGENT)
    (_, agent_id, incarnation, info) = await sink.event("joined")
    assert (agent_id, incarnation, info.protocol, info.proof) == ("older-agent", 7, "2.0", "")


async def _dealer(stack: AsyncExitStack, port: int) -> zmq.asyncio.Socket:
    context = stack.enter_context(zmq.asyncio.Context())
    dealer = stack.enter_context(context.socket(zmq.DEALER))
    dealer.linger = 0
    dealer.connect(f"tcp://127.0.0.1:{port}")
    return dealer


async def _grpc_hello(stack: AsyncExitStack, port: int, method: str, hello: bytes) -> None:
    """Say hello, and read the other end's."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    stack.push_async_callback(channel.close, None)
    call = channel.stream_stream(method, None, None)(None)
    await call.write(hello)
    assert await asyncio.wait_for(call.read(), PATIENCE)
