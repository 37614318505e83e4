"""Mutated frames to both ends of the gRPC transport, of strangers and of peers that are admitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from tests.integration.fuzzed import AGENT, FROM_AGENT, HUB, STATUS, TO_AGENT, Fuzzed
from tests.integration.mutations import Mutations
from tests.integration.test_grpc_transport import address

import anywire_grpc.dialling
from anywire.messages import AgentStatus, Chunk, CommandResult, HubInfo, Progress, TaskRequest
from anywire.testing.patience import PATIENCE
from anywire_grpc import codec
from anywire_grpc.library import METHODS
from anywire_grpc.link_pb2 import AgentFrame, HubFrame
from reserved import free_ports

UNREADABLE = b"\xff\xff\xff"
"""Ends a call, so that what came before it has been read when the call is over."""
FIELDS: dict[str, tuple[Any, str]] = {
    "AgentStatus": (AgentFrame, "statuses"),
    "Chunk": (AgentFrame, "chunks"),
    "Progress": (AgentFrame, "progress"),
    "CommandResult": (AgentFrame, "results"),
    "TaskRequest": (HubFrame, "tasks"),
    "Cancel": (HubFrame, "cancels"),
    "Credit": (HubFrame, "credits"),
    "Command": (HubFrame, "commands"),
}
NUMBERS = {"chat": 1, "ready": 2, "loading": 2}


class AgentHello(msgspec.Struct):
    info: Any
    status: AgentStatus


AGENT_HELLO = AgentHello(AGENT, STATUS)


def encoded(cls: type[Any], values: dict[str, Any]) -> bytes:
    frame: Any
    if cls is AgentHello:
        frame = AgentFrame(hello={"info": values["info"], "status": _numbered(values["status"])})
    elif cls is HubInfo:
        frame = HubFrame(hello=values)
    else:
        kind, field = FIELDS[cls.__name__]
        frame = kind(**{field: (_numbered(values),)})
    return bytes(frame.SerializeToString())


def _numbered(values: dict[str, Any]) -> dict[str, Any]:
    """With the numbers of its enumerations in place of their names."""
    return {
        name: NUMBERS.get(value, value) if name in ("state", "kind") and isinstance(value, str) else value
        for name, value in values.items()
    }


REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INTERNAL,  # what the calling library makes of a write after the end
)


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call has ended; what was answered before is passed over."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("admitted", [False, True], ids=["stranger", "admitted"])
async def test_mutated_frames_to_a_hub_disturb_nobody(admitted: bool) -> None:
    (port,) = free_ports(1)
    options = {"agent_addresses": address(port), "token": "of this test run"}
    metadata = [("authorization", "Bearer of this test run")]
    async with Fuzzed("grpc", options, options) as fuzzed:
        samples = (AGENT_HELLO, *FROM_AGENT, HUB, *TO_AGENT)

        def names(cls: type[Any]) -> Sequence[Any]:
            return () if cls is AgentHello else fuzzed.names()

        mutated = Mutations(samples, encoded, names, b"\x0b", b"DEEPHERE")
        hello = codec.encode_agent_hello(AGENT, STATUS)
        options_of_channel = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address(port), options_of_channel) as channel:
            method: Any = channel.stream_stream(METHODS["agent"], None, None)

            async def send(messages: int) -> None:
                while messages > 0:
                    count = min(messages, mutated.random.randrange(1, 8))
                    messages -= count
                    frames = [hello] * admitted + [mutated() for _ in range(count)] + [UNREADABLE]

                    async def requests(frames: list[bytes] = frames) -> AsyncIterator[bytes]:
                        for frame in frames:
                            yield frame

                    call = method(requests(), metadata=metadata if admitted or mutated.random.random() < 0.7 else ())
                    assert await asyncio.wait_for(code_of(call), PATIENCE) in REFUSALS

            await fuzzed.bears(send)


async def test_mutated_frames_to_an_agent_disturb_no_other_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anywire_grpc.dialling, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(anywire_grpc.dialling, "LONGEST_PAUSE_S", 0.001)
    ports = free_ports(2)
    hub, rogue = ({"agent_addresses": address(each)} for each in ports)
    both = {"agent_addresses": [address(each) for each in ports]}
    async with Fuzzed("grpc", hub, both) as fuzzed:
        samples = (HUB, *TO_AGENT, AGENT_HELLO, *FROM_AGENT)
        mutated = Mutations(
            samples, encoded, lambda cls: () if cls is HubInfo else fuzzed.names(), b"\x0b", b"DEEPHERE"
        )
        left, begun, finished = 0, asyncio.Event(), asyncio.Event()

        async def link(_: object, context: Any) -> None:
            nonlocal left
            await begun.wait()
            assert await context.read()
            if mutated.random.random() < 0.8:
                await context.write(codec.encode_hub_hello(HUB))
            for _ in range(mutated.random.randrange(1, 8)):
                left -= 1
                await context.write(mutated())
            await context.write(UNREADABLE)
            while isinstance(await context.read(), bytes):
                pass
            if left <= 0:
                begun.clear()
                finished.set()

        class Routes(grpc.GenericRpcHandler):  # type: ignore[type-arg]
            def service(self, handler_call_details: Any) -> Any:
                return grpc.stream_stream_rpc_method_handler(link)

        server = grpc.aio.server(handlers=(Routes(),))
        server.add_insecure_port(rogue["agent_addresses"])
        await server.start()

        async def send(messages: int) -> None:
            nonlocal left
            left = messages
            finished.clear()
            begun.set()
            async with asyncio.timeout(10 * PATIENCE):
                await finished.wait()

        try:
            await fuzzed.bears(send)
        finally:
            await server.stop(None)


def test_every_message_can_be_encoded() -> None:
    for sample in (AGENT_HELLO, HUB, *FROM_AGENT, *TO_AGENT):
        assert encoded(type(sample), msgspec.to_builtins(sample))
    assert {Chunk, Progress, CommandResult, TaskRequest} <= {type(each) for each in (*FROM_AGENT, *TO_AGENT)}
