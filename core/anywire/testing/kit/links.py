"""Who is there: joining, losing, incarnations, statuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anywire import errors
from anywire.messages import MAX_PROOF_CHARS
from anywire.testing.doubles import OFFERS
from anywire.testing.kit.answers import answer_each, echo, status
from anywire.testing.patience import FACTOR, expect
from anywire.testing.rig import Rig, request
from anywire.transport import Plane


class LinkTests:
    async def test_late_joiners_see_each_other(self, rig: Rig) -> None:
        _, early_agent, early_info = await rig.port("early")
        _, sink, info = await rig.hub()
        await sink.event("joined", "early", early_info.incarnation)
        reported = (await sink.event("reported", "early"))[3]
        assert (reported.state, reported.offers, reported.slots) == ("ready", OFFERS, 8)
        await rig.port("late")
        await sink.event("joined", "late")
        await sink.event("reported", "late")
        assert await early_agent.event("hub_joined", info.hub_id, info.incarnation)
        _, second, _ = await rig.hub()
        await second.event("joined", "early")
        await second.event("joined", "late")

    async def test_joined_means_that_both_directions_work(self, rig: Rig) -> None:
        """A task sent in the very callback is answered, whoever came first."""
        hubs = [await rig.hub() for _ in range(3)]
        for hub, sink, info in hubs:
            original = sink.agent_joined

            def send_at_once(agent: Any, hub: Any = hub, info: Any = info, original: Any = original) -> None:
                original(agent)
                hub.send(agent.agent_id, request(info, f"{info.hub_id}/{agent.agent_id}"))

            sink.agent_joined = send_at_once  # type: ignore[method-assign,assignment]
        for number in range(5):
            await rig.port(f"a{number}", answer_each(2))
        for _, sink, info in hubs:
            for number in range(5):
                await sink.final(f"{info.hub_id}/a{number}")

    @pytest.mark.parametrize("plane", ["agent", "client"])
    async def test_proofs_come_to_the_other_end_as_they_were_sent(self, rig: Rig, plane: Plane) -> None:
        """The greatest that may be, on both planes, and another one in the next life."""
        own, greatest = ("proof of a hub", "proof of an agent"), "~" * MAX_PROOF_CHARS
        _, agent, _ = await rig.port("a", plane=plane, incarnation=1, proof=own[1])
        _, sink, info = await rig.hub("h", plane=plane, incarnation=1, proof=own[0])
        assert (await sink.event("joined", "a"))[3].proof == own[1]
        joined = (await agent.event("hub_joined", "h"))[3]
        assert (joined.hub_id, joined.incarnation, joined.lease_ms, joined.proof) == ("h", 1, info.lease_ms, own[0])
        _, later, _ = await rig.hub("h", plane=plane, incarnation=2, proof=greatest)
        assert (await agent.event("hub_joined", "h", 2))[3].proof == greatest
        await later.event("joined", "a")
        await rig.port("a", plane=plane, incarnation=2)
        assert (await later.event("joined", "a", 2))[3].proof == ""

    async def test_unknown_agent_is_unavailable(self, rig: Rig) -> None:
        hub, _, info = await rig.hub()
        with pytest.raises(errors.AgentUnavailable, match="nobody"):
            hub.send("nobody", request(info, "t1"))
        await expect(hub.drain("nobody"), "drain of an unknown agent returned")

    async def test_closed_agent_is_lost_at_once_and_unavailable(self, rig: Rig) -> None:
        port, _, agent_info = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await port.close()
        await sink.event("lost", "a", agent_info.incarnation)
        with pytest.raises(errors.AgentUnavailable):
            hub.send("a", request(info, "t1"))

    async def test_closed_hub_is_lost_at_its_agents(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        await hub.close()
        assert await agent.event("hub_lost", info.hub_id, info.incarnation)

    async def test_a_new_incarnation_replaces_the_old(self, rig: Rig) -> None:
        port, _, old = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a", old.incarnation)
        await port.close()
        _, _, new = await rig.port("a", echo)
        await sink.event("joined", "a", new.incarnation)
        kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
        assert kinds == [
            ("joined", "a", old.incarnation),
            ("lost", "a", old.incarnation),
            ("joined", "a", new.incarnation),
        ]
        hub.send("a", request(info, "t1", body="to the new"))
        assert (await sink.final("t1")).deltas == ("to the new",)

    async def test_of_two_lives_at_once_the_greater_counts(self, rig: Rig) -> None:
        hub, sink, info = await rig.hub()

        def told() -> list[tuple[str, int]]:
            return [(event[0], event[2]) for event in sink.events if event[0] in ("joined", "lost") and event[1] == "a"]

        await rig.port("a", incarnation=1000)
        await sink.event("joined", "a", 1000)
        greater, _, _ = await rig.port("a", echo, incarnation=3000)
        await sink.event("joined", "a", 3000)
        await sink.event("reported", "a", 3000)
        await rig.port("a", incarnation=2000)
        await rig.port("later")  # what the lesser one's coming would change has happened when this one is there
        await sink.event("reported", "later")
        hub.send("a", request(info, "t1", body="to the greater"))
        assert (await sink.final("t1")).deltas == ("to the greater",)
        assert told() == [("joined", 1000), ("lost", 1000), ("joined", 3000)]
        await greater.close()
        await sink.event("lost", "a", 3000)
        await rig.port("a", echo, incarnation=4000)
        await sink.event("joined", "a", 4000)
        hub.send("a", request(info, "t2", body="to the greatest"))
        assert (await sink.final("t2")).deltas == ("to the greatest",)

    async def test_of_two_lives_there_before_the_hub_the_greater_counts(self, rig: Rig) -> None:
        await rig.port("a", incarnation=1000)
        await rig.port("a", echo, incarnation=2000)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a", 2000)
        await sink.event("reported", "a", 2000)
        hub.send("a", request(info, "t1", body="to the greater"))
        assert (await sink.final("t1")).deltas == ("to the greater",)
        last = [event[:3] for event in sink.events if event[0] in ("joined", "lost")][-1]
        assert last == ("joined", "a", 2000)

    async def test_agent_joins_without_delay(self, rig: Rig) -> None:
        """Less than a second: of five, only the quickest counts, since this process may be kept from running."""
        _, sink, _ = await rig.hub()
        loop, delays = asyncio.get_running_loop(), []
        for number in range(5):
            await rig.port(f"a{number}")
            begin = loop.time()
            await sink.event("joined", f"a{number}")
            delays.append(loop.time() - begin)
            if delays[-1] < FACTOR:
                return
        raise AssertionError(f"agent_joined came late, in seconds after both ends were open: {delays}")

    async def test_late_hub_is_given_the_newest_status(self, rig: Rig) -> None:
        port, _, info = await rig.port("a")
        for number in range(5):
            port.report(status("a", info.incarnation, f"{number}"))
        _, sink, _ = await rig.hub()
        await sink.event("reported", "a")
        assert sink.named("reported")[0][3].detail == "4", "the first status a late hub is given is not the newest"

    async def test_each_status_arrives_when_nothing_follows_it(self, rig: Rig) -> None:
        port, _, info = await rig.port("a")
        _, sink, _ = await rig.hub()
        await sink.event("reported", "a")

        for number in range(10):
            newest = f"{number}"
            port.report(status("a", info.incarnation, newest))
            await sink.detail("a", newest)

    async def test_planes_are_apart(self, rig: Rig) -> None:
        await rig.port("agent", plane="agent")
        await rig.port("orchestrator", plane="client")
        _, clients, _ = await rig.hub(plane="client")
        _, agents, _ = await rig.hub(plane="agent")
        await clients.event("joined", "orchestrator")
        await agents.event("joined", "agent")
        for sink, name in ((clients, "orchestrator"), (agents, "agent")):
            joined = {event[1] for event in sink.named("joined")}
            assert joined == {name}, f"joined on the plane of {name}: {joined}"
