"""Protocol versions: equal and neighbouring ones join, others are refused, and both ends say so by name."""

from __future__ import annotations

import pytest

from anywire.protocol import PROTOCOL, protocol_mismatch
from anywire.testing.kit.answers import echo
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.patience import FACTOR
from anywire.testing.rig import Rig, request

MAJOR, MINOR = map(int, PROTOCOL.split("."))
NEIGHBOURS = [f"{MAJOR}.{MINOR + 1}", *([f"{MAJOR}.{MINOR - 1}"] if MINOR else [])]
OTHERS = [f"{MAJOR + 1}.0", f"{MAJOR}.{MINOR + 2}", "garbage"]
LEASE = 3.0
"""Seconds: long, since a machine that is busy is not what is tested."""


class VersionTests:
    async def test_ends_say_their_protocol_version(self, rig: Rig) -> None:
        await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        told = (await sink.event("joined", "a"))[3].protocol
        assert told == PROTOCOL, f"an end opened without a version says {told!r}, and not this package's"
        hub.send("a", request(info, "t"))
        await sink.final("t")

    @pytest.mark.parametrize("version", NEIGHBOURS)
    @pytest.mark.parametrize("planted", ["agent", "hub"])
    async def test_a_neighbouring_version_joins(self, rig: Rig, planted: str, version: str) -> None:
        await rig.port("a", echo, protocol=version if planted == "agent" else "")
        hub, sink, info = await rig.hub(protocol=version if planted == "hub" else "")
        told = (await sink.event("joined", "a"))[3].protocol
        assert told == (version if planted == "agent" else PROTOCOL)
        hub.send("a", request(info, "t"))
        await sink.final("t")

    @pytest.mark.parametrize("version", OTHERS, ids=["major", "minor", "garbage"])
    async def test_an_agent_of_another_version_is_refused_by_name_at_both_ends(self, rig: Rig, version: str) -> None:
        await rig.port("good", echo, lease=LEASE)
        hub, sink, info = await rig.hub("right", lease=LEASE)
        await sink.event("joined", "good")
        with LogRecorder() as logged:
            planted, agent, planted_info = await rig.port("planted", echo, lease=LEASE, protocol=version)
            await refused_at_both(logged, "right", "planted", version)
            await planted.close()
            _, _, new = await rig.port("planted", echo)
            await sink.event("joined", "planted", new.incarnation)
            assert_once(logged, "right", "planted", version)
        assert not agent.named("hub_joined"), "an agent has joined a hub of another version"
        joined = [event[1:3] for event in sink.named("joined")]
        assert ("planted", planted_info.incarnation) not in joined, "a hub has joined an agent of another version"
        assert not sink.named("lost"), "a link was lost that had nothing to do with the refusal"
        for name in ("good", "planted"):
            hub.send(name, request(info, name))
            await sink.final(name)

    @pytest.mark.parametrize("version", OTHERS, ids=["major", "minor", "garbage"])
    async def test_a_hub_of_another_version_is_refused_by_name_at_both_ends(self, rig: Rig, version: str) -> None:
        _, agent, _ = await rig.port("right", echo, lease=LEASE)
        hub, sink, info = await rig.hub("good", lease=LEASE)
        await sink.event("joined", "right")
        with LogRecorder() as logged:
            planted, planted_sink, planted_info = await rig.hub("planted", lease=LEASE, protocol=version)
            await refused_at_both(logged, "right", "planted", version)
            await planted.close()
            new_hub, new_sink, new = await rig.hub("planted")
            await new_sink.event("joined", "right")
            await agent.event("hub_joined", "planted", new.incarnation)
            assert_once(logged, "right", "planted", version)
        assert not planted_sink.named("joined"), "a hub has joined an agent of another version"
        joined = [event[1:3] for event in agent.named("hub_joined")]
        assert ("planted", planted_info.incarnation) not in joined, "an agent has joined a hub of another version"
        assert not agent.named("hub_lost"), "a link was lost that had nothing to do with the refusal"
        for each, each_sink, each_info in ((hub, sink, info), (new_hub, new_sink, new)):
            each.send("right", request(each_info, f"of {each_info.hub_id}"))
            await each_sink.final(f"of {each_info.hub_id}")


def sentences(right: str, planted: str, version: str) -> list[tuple[str, str]]:
    """What the right end says of the planted one, and that one of the right end: the peer's id and the sentence."""
    return [(planted, protocol_mismatch(version)), (right, protocol_mismatch(PROTOCOL, version))]


async def refused_at_both(logged: LogRecorder, right: str, planted: str, version: str) -> None:
    """Both ends have said so, within two leases."""
    logged.patience = 2 * LEASE * FACTOR
    for words in sentences(right, planted, version):
        await logged.message(*words)


def assert_once(logged: LogRecorder, right: str, planted: str, version: str) -> None:
    for words in sentences(right, planted, version):
        times = len(logged.messages(*words))
        assert times == 1, f"a mismatch of versions is logged once by each end; {words} was logged {times} times"
