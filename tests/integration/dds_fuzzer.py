"""A process that fuzzes a DDS domain: ``python -m tests.integration.dds_fuzzer KIND DOMAIN SEED COUNT TARGETS``.

``peer``: an agent and a hub that join those of the domain, and whose every other sample is mutated. ``identified``: the
same with an identity, and with tags over what was mutated. ``stranger``: a
participant that never registered writes mutated samples to the topics and partitions of the hub and agent in TARGETS.
``packets``: real RTPS packets of an exchange of its own, mutated, are sent to the UDP ports of the domain. It writes a
line when it has begun, and one with what it has sent when it is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

from anywire.errors import AnywireError
from anywire.identities.identity_proof import Identity
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Command, CommandResult, Credit, HubInfo, Progress
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import request
from anywire.transport import Reply
from anywire_dds import DdsConfig, DdsTransport, wire
from anywire_dds.contract import TopicName
from anywire_dds.endpoints import Endpoints
from anywire_dds.hello import Hello, control_hello, request_hello, response_hello
from anywire_dds.presence import pack_agent, pack_hub, pack_status
from anywire_dds.seal import WriterSeal
from anywire_dds.writer import Writer

BURST = 50
"""Samples between two turns of the event loop."""

_WORDS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutated(data: bytes, dice: random.Random, keep: int = 0) -> bytes:
    """``data`` with one to three faults; the first ``keep`` bytes stay."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        room = len(made) - keep
        if room < 8:
            made += dice.randbytes(8)
            continue
        at = keep + dice.randrange(room)
        match dice.randrange(6):
            case 0:
                made[at] ^= 1 << dice.randrange(8)
            case 1:
                at = min(at & ~3, len(made) - 4)
                made[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(_WORDS))
            case 2:
                del made[at:]
            case 3:
                made += dice.randbytes(dice.randrange(64))
            case 4:
                made[at : at + dice.randrange(16)] = dice.randbytes(dice.randrange(16))
            case _:
                other = keep + dice.randrange(room)
                made[at : at + 8] = made[other : other + dice.randrange(64)]
    return bytes(made)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def options(domain: int) -> dict[str, Any]:
    return {"domain": domain, "multicast": "off", "interface": "127.0.0.1"}


# An agent and a hub


async def identified(domain: int, dice: random.Random, count: int, targets: dict[str, Any]) -> None:
    """As `peer`, of an identity: what it writes is mutated before it gets its tag."""
    honest = WriterSeal.sealed

    def sealed(seal: WriterSeal, sample: bytes) -> bytes:
        return honest(seal, mutated(sample, dice) if dice.random() < 0.5 else sample)

    WriterSeal.sealed = sealed  # type: ignore[method-assign,assignment]
    await peer(domain, dice, count, targets, Identity.new())


async def peer(
    domain: int, dice: random.Random, count: int, targets: dict[str, Any], identity: Identity | None = None
) -> None:
    """Their transport does what it always does; what it writes is mutated on the way."""
    transport = DdsTransport(DdsConfig(**options(domain)))
    transport.identity = identity

    def answer(task: Any, reply: Reply) -> None:
        for message in (
            Chunk(task.hub_id, task.task_id, 1, 0, ("x",)),
            Progress(task.hub_id, task.task_id, 1, "tool", "x"),
            Chunk(task.hub_id, task.task_id, 1, 1, ("x",), final=True),
        ):
            attempt(reply.send, message)

    def attempt(send: Callable[..., object], *values: object) -> None:
        try:
            send(*values)
        except AnywireError:
            return  # a link that its own faults have ended, or that is full

    agent_sink, hub_sink = RecordingAgentSink(answer), RecordingHubSink()
    info = AgentInfo("mean", 1, lease_ms=1000)
    hub_info = HubInfo("mean-hub", 1, lease_ms=1000)
    port = await transport.open_agent(info, "agent", agent_sink)
    hub = await transport.open_hub(hub_info, "agent", hub_sink)
    port.report(AgentStatus("mean", 1))
    await hub_sink.event("joined", targets["agent"])
    await agent_sink.event("hub_joined", targets["hub"])
    say(begun=True)
    honest = Writer.write
    sent = 0

    def write(writer: Writer, sample: bytes) -> bool:
        nonlocal sent
        sent += 1
        share = 0.5 if identity is None else 0.05  # a sample with a broken tag ends the link
        return honest(writer, mutated(sample, dice) if dice.random() < share else sample)

    Writer.write = write  # type: ignore[method-assign,assignment]
    number = 0
    while sent < count:
        number += 1
        for agent_id in (targets["agent"], "mean"):
            attempt(hub.send, agent_id, request(hub_info, f"t{number}"))
            attempt(hub.send, agent_id, Command(hub_info.hub_id, f"c{number}", "load"))
            attempt(hub.send, agent_id, Credit(hub_info.hub_id, f"t{number}", 1, 3))
            attempt(hub.send, agent_id, Cancel(hub_info.hub_id, f"t{number}", 1, "enough"))
        port.report(AgentStatus("mean", 1, active=number % 3))
        agent_sink.events.clear()
        hub_sink.events.clear()
        await asyncio.sleep(0.002)
    Writer.write = honest  # type: ignore[method-assign]
    await port.close()
    await hub.close()
    say(sent=sent)


# Samples of nobody


def samples(targets: dict[str, Any]) -> Iterator[tuple[TopicName, bytes]]:
    """Of every kind one, as it would be sent by the hub and agent of TARGETS."""
    agent = AgentInfo(targets["agent"], targets["agent_incarnation"], "host", 1, capabilities=("chat",))
    hub = HubInfo(targets["hub"], targets["hub_incarnation"])
    link, limit = 77, 2**20
    hello = Hello(agent.agent_id, agent.incarnation, 99, "2.0", AgentStatus(agent.agent_id, agent.incarnation), 3)
    yield "register", pack_agent(agent, 1000)
    yield "hub", pack_hub(hub, 1000)
    yield "status", pack_status(AgentStatus(agent.agent_id, agent.incarnation), 5)
    yield "request", request_hello(Hello(hub.hub_id, hub.incarnation, 99, "2.0"), 0)
    yield "control", control_hello(Hello(hub.hub_id, hub.incarnation, 99, "2.0"), 0)
    yield "response", response_hello(hello, 0)
    yield "request", wire.pack_to_agent(link, request(hub, "t"), limit)
    yield "request", wire.pack_to_agent(link, Command(hub.hub_id, "c", "load"), limit)
    yield "control", wire.pack_to_agent(link, Cancel(hub.hub_id, "t", 1), limit)
    yield "control", wire.pack_to_agent(link, Credit(hub.hub_id, "t", 1, 3), limit)
    yield "response", wire.pack_from_agent(link, Chunk(hub.hub_id, "t", 1, 0, ("x", "y")), limit)
    yield "response", wire.pack_from_agent(link, Progress(hub.hub_id, "t", 1, "tool"), limit)
    yield "response", wire.pack_from_agent(link, CommandResult(hub.hub_id, "c", 0, "{}", True), limit)


async def stranger(domain: int, dice: random.Random, count: int, targets: dict[str, Any]) -> None:
    endpoints = Endpoints(DdsConfig(**options(domain)), "agent", 7777)
    fleet = endpoints.partition()
    to_agent = endpoints.partition(("agent", targets["agent"], targets["agent_incarnation"]))
    to_hub = endpoints.partition(("hub", targets["hub"], targets["hub_incarnation"]))
    partitions: dict[TopicName, str] = {
        "register": fleet, "hub": fleet, "status": fleet, "request": to_agent, "control": to_agent, "response": to_hub,
    }  # fmt: skip
    writers = {topic: endpoints.writer(topic, partition) for topic, partition in partitions.items()}
    kinds = list(samples(targets))
    say(begun=True)
    sent = 0
    while sent < count:
        for _ in range(BURST):
            topic, sample = dice.choice(kinds)
            sent += 1
            try:
                writers[topic].write(mutated(sample, dice))
            except AnywireError:
                continue  # the library does not take it
        await asyncio.sleep(0.005)
    await endpoints.close()
    say(sent=sent)


# Packets


def captured(pcap: bytes) -> list[bytes]:
    """The RTPS packets of a capture, without what carries them."""
    found, at = [], 24
    while at + 16 <= len(pcap):
        size = struct.unpack_from("<I", pcap, at + 8)[0]
        frame = pcap[at + 16 : at + 16 + size]
        at += 16 + size
        if (start := frame.find(b"RTPS")) >= 0:
            found.append(frame[start:])
    return found


async def packets(domain: int, dice: random.Random, count: int, targets: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packets"
        tracing = f"<Tracing><PacketCaptureFile>{file}</PacketCaptureFile></Tracing>"
        os.environ["CYCLONEDDS_URI"] = f"<CycloneDDS><Domain>{tracing}</Domain></CycloneDDS>"
        transport = DdsTransport(DdsConfig(**options(domain)))
        sink = RecordingHubSink()
        hub_info = HubInfo("captured", 1, lease_ms=1000)
        hub = await transport.open_hub(hub_info, "agent", sink)
        await sink.event("joined", targets["agent"])
        for number in range(20):
            hub.send(targets["agent"], request(hub_info, f"captured{number}", body="x" * (number * 1000)))
        await sink.final("captured19")
        own = str(transport._open[0].endpoints._participant.guid.hex)[:24]
        await hub.close()
        # In the name of those that live it would be a forgery, which no reader of plain DDS can tell from the truth.
        seeds = [each for each in captured(file.read_bytes()) if each[8:20].hex() == own]
    assert len(seeds) > 20, f"{len(seeds)} packets captured"
    base = 7400 + 250 * domain
    ports = [base + 10 + 2 * index + kind for index in range(6) for kind in (0, 1)]
    say(begun=True, seeds=len(seeds))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for number in range(count):
            packet = mutated(dice.choice(seeds), dice, keep=20 if dice.random() < 0.9 else 4)
            out.sendto(packet[:60_000], ("127.0.0.1", dice.choice(ports)))
            if number % BURST == 0:
                await asyncio.sleep(0.005)
    say(sent=count)


KINDS: dict[str, Callable[[int, random.Random, int, dict[str, Any]], Awaitable[None]]] = {
    "peer": peer,
    "identified": identified,
    "stranger": stranger,
    "packets": packets,
}

if __name__ == "__main__":
    kind, domain, seed, count, targets = sys.argv[1:]
    work = KINDS[kind](int(domain), random.Random(int(seed)), int(count), json.loads(targets))
    asyncio.run(cast("Any", work))
