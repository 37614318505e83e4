"""Mutated messages at the sockets of the ZeroMQ transport, of strangers and of peers that are admitted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from tests.integration.fuzzed import AGENT, FROM_AGENT, HUB, STATUS, TO_AGENT, Fuzzed
from tests.integration.mutations import Mutations
from tests.integration.test_zeromq_transport import address, keys

import anywire_zeromq.dialer
from anywire.testing.patience import PATIENCE
from anywire_zeromq.codec import _KIND_OF, PROTOCOL, AgentHello, Goodbye, HubHello, Ready, encode, is_goodbye
from reserved import free_ports

AGENT_HELLO = AgentHello(PROTOCOL, "agent", AGENT, STATUS)
HUB_HELLO = HubHello(PROTOCOL, "agent", HUB)
UNREADABLE = b"K\xc1"
"""Ends a connection, so that what came before it has been read when the goodbye comes."""


def encoded(cls: type[Any], values: dict[str, Any]) -> bytes:
    return _KIND_OF[cls] + msgspec.msgpack.encode(list(values.values()))


@pytest.fixture
def context() -> Iterator[zmq.asyncio.Context]:
    context = zmq.asyncio.Context()
    yield context
    context.destroy(0)


class Secured:
    """A fleet with a key for each, and one that is admitted for the rogue."""

    def __init__(self) -> None:
        self.port, self.rogue_port = free_ports(2)
        (self.hub_public, hub_secret), (agent_public, agent_secret) = keys(), keys()
        self.rogue_public, self.rogue_secret = keys()
        self.hub = {
            "agent_addresses": address(self.port),
            "secret_key": hub_secret,
            "allowed_keys": [agent_public, self.rogue_public],
        }
        self.agent = {"agent_addresses": address(self.port), "secret_key": agent_secret, "server_key": self.hub_public}


async def until_goodbye(socket: Any) -> None:
    while not is_goodbye((await asyncio.wait_for(socket.recv_multipart(), PATIENCE))[-1]):
        pass


@pytest.mark.parametrize("secured", [False, True], ids=["stranger", "admitted"])
async def test_mutated_messages_to_a_hub_disturb_nobody(context: zmq.asyncio.Context, secured: bool) -> None:
    keyed = Secured()
    plain = {"agent_addresses": address(keyed.port)}
    options = (keyed.hub, keyed.agent) if secured else (plain, plain)
    async with Fuzzed("zeromq", *options) as fuzzed:
        samples = (AGENT_HELLO, AGENT_HELLO, Ready(), Goodbye("reason"), *FROM_AGENT, HUB_HELLO, *TO_AGENT)

        def names(cls: type[Any]) -> Sequence[Any]:
            return fuzzed.names() if secured or cls is not AgentHello else ()

        mutated = Mutations(samples, encoded, names, b"\x91", b"\xa8DEEPHERE")

        async def send(messages: int) -> None:
            while messages > 0:
                with context.socket(zmq.DEALER) as dealer:
                    dealer.linger = 0
                    if secured:
                        dealer.curve_secretkey, dealer.curve_publickey = (
                            keyed.rogue_secret.encode(),
                            keyed.rogue_public.encode(),
                        )
                        dealer.curve_serverkey = keyed.hub_public.encode()
                    dealer.connect(address(keyed.port))
                    if secured:
                        await dealer.send_multipart([encode(AGENT_HELLO), encode(Ready())])
                    count = min(messages, mutated.random.randrange(1, 8))
                    messages -= count
                    await dealer.send_multipart([mutated() for _ in range(count)])
                    await dealer.send(UNREADABLE)
                    await until_goodbye(dealer)

        await fuzzed.bears(send)


async def test_mutated_messages_to_an_agent_disturb_no_other_hub(
    context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_zeromq.dialer, "RECONNECT_MS", 1)
    monkeypatch.setattr(anywire_zeromq.dialer, "RECONNECT_MAX_MS", 1)
    port, rogue_port = free_ports(2)
    both = [address(port), address(rogue_port)]
    async with Fuzzed("zeromq", {"agent_addresses": both[0]}, {"agent_addresses": both}) as fuzzed:
        samples = (HUB_HELLO, Ready(), Goodbye("reason"), *TO_AGENT, AGENT_HELLO, *FROM_AGENT)

        def names(cls: type[Any]) -> Sequence[Any]:
            return () if cls is HubHello else fuzzed.names()

        mutated = Mutations(samples, encoded, names, b"\x91", b"\xa8DEEPHERE")
        with context.socket(zmq.ROUTER) as router:
            router.linger = 0
            router.bind(both[1])

            async def next_connection() -> bytes:
                """The agent has connected, for another time; what came from an earlier connection is passed over."""
                while True:
                    identity, *frames = await asyncio.wait_for(router.recv_multipart(), PATIENCE)
                    if any(frame[:1] == b"A" for frame in frames):
                        return bytes(identity)

            async def send(messages: int) -> None:
                while messages > 0:
                    identity = await next_connection()
                    count = min(messages, mutated.random.randrange(1, 8))
                    messages -= count
                    if mutated.random.random() < 0.8:
                        await router.send_multipart([identity, encode(HUB_HELLO)])
                    await router.send_multipart([identity, *(mutated() for _ in range(count))])
                    await router.send_multipart([identity, b"T\xc1"])

            await fuzzed.bears(send)
