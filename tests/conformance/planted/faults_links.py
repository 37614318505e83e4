"""Faults of joining and losing, of incarnations and of statuses."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.messages import HubInfo
from anywire.testing.patience import FACTOR


class ChunkAfterLoss(Fault):
    """A chunk is delivered after agent_lost."""

    class AroundHubSink(Around):
        chunk: Any = None

        def chunk_received(self, *chunk: Any) -> None:
            self.chunk = chunk
            self.inner.chunk_received(*chunk)

        def agent_lost(self, *link: Any) -> None:
            self.inner.agent_lost(*link)
            if self.chunk is not None:
                self.inner.chunk_received(*self.chunk)


class StaleIncarnation(Fault):
    """Chunks are reported with the incarnation that was there before."""

    class AroundHubSink(Around):
        first = 0

        def agent_joined(self, info: Any) -> None:
            self.first = self.first or info.incarnation
            self.inner.agent_joined(info)

        def chunk_received(self, agent_id: str, incarnation: int, chunk: Any) -> None:
            self.inner.chunk_received(agent_id, self.first, chunk)


class ChunkOfAnEarlierLink(Fault):
    """A chunk of the link before comes again by the new one."""

    class AroundHubSink(Around):
        chunk: Any = None

        def chunk_received(self, agent_id: str, incarnation: int, chunk: Any) -> None:
            self.chunk = chunk
            self.inner.chunk_received(agent_id, incarnation, chunk)

        def agent_reported(self, agent_id: str, incarnation: int, status: Any) -> None:
            self.inner.agent_reported(agent_id, incarnation, status)
            chunk, self.chunk = self.chunk, None
            if chunk is not None:
                self.inner.chunk_received(agent_id, incarnation, chunk)


class BothLivesAlive(Fault):
    """Links are kept by id and incarnation, so that two lives of one agent are alive at once."""

    def agent_info(self, info: Any) -> Any:
        return msgspec.structs.replace(info, agent_id=f"{info.agent_id}#{info.incarnation}")

    class AroundHubSink(Around):
        def agent_joined(self, info: Any) -> None:
            self.inner.agent_joined(msgspec.structs.replace(info, agent_id=info.agent_id.split("#")[0]))

        def agent_reported(self, agent_id: str, *more: Any) -> None:
            self.inner.agent_reported(agent_id.split("#")[0], *more)

        def agent_lost(self, agent_id: str, *more: Any) -> None:
            self.inner.agent_lost(agent_id.split("#")[0], *more)


class _Upside(Around):
    def agent_joined(self, info: Any) -> None:
        self.inner.agent_joined(msgspec.structs.replace(info, incarnation=2**62 - info.incarnation))

    def agent_reported(self, agent_id: str, incarnation: int, status: Any) -> None:
        self.inner.agent_reported(agent_id, 2**62 - incarnation, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self.inner.agent_lost(agent_id, 2**62 - incarnation, reason)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Any) -> None:
        self.inner.chunk_received(agent_id, 2**62 - incarnation, chunk)


class OlderLifeWins(Fault):
    """Incarnations are compared the wrong way round."""

    AroundHubSink = _Upside

    def agent_info(self, info: Any) -> Any:
        return msgspec.structs.replace(info, incarnation=2**62 - info.incarnation)


class NewLifeWithoutLoss(Fault):
    """The old life is not reported lost when the new one joins."""

    class AroundHubSink(Around):
        def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
            if "later life" not in reason:
                self.inner.agent_lost(agent_id, incarnation, reason)


class LostTwice(Fault):
    """agent_lost is called for the goodbye and for the broken connection."""

    class AroundHubSink(Around):
        def agent_lost(self, *link: Any) -> None:
            self.inner.agent_lost(*link)
            self.inner.agent_lost(*link)


class JoinedLate(Fault):
    """agent_joined comes a second and a half late, and everything else behind it."""

    class AroundHubSink(Around):
        def __getattr__(self, name: str) -> Any:
            def later(*arguments: Any) -> None:
                asyncio.get_running_loop().call_later(1.5 * FACTOR, getattr(self.inner, name), *arguments)

            return later


class FirstReportLate(Fault):
    """The first status of a link comes two seconds after the link."""

    class AroundHubSink(Around):
        def agent_reported(self, *report: Any) -> None:
            asyncio.get_running_loop().call_later(2.0 * FACTOR, self.inner.agent_reported, *report)


class HubGoodbyeLeftOut(Fault):
    """A hub that closes does not tell its agents, and its connections stay."""

    class AroundHub(Around):
        async def close(self) -> None:
            if self.inner.guard.closed:  # the rig closes it once more
                await self.inner.close()
            self.inner.guard.close()


class StatusOneBehind(Fault):
    """Each report sends the status before."""

    class AroundPort(Around):
        newest: Any = None

        def report(self, status: Any) -> None:
            self.inner.report(self.newest or status)
            self.newest = status


class OnlyTheFirstStatus(Fault):
    """Every status after the first is dropped."""

    class AroundPort(Around):
        first = True

        def report(self, status: Any) -> None:
            if self.first:
                self.inner.report(status)
            self.first = False


class FirstStatusForLateHubs(Fault):
    """A hub that comes late is given the first status, and the newest after it."""

    class AroundPort(Around):
        first: Any = None

        def report(self, status: Any) -> None:
            self.first = self.first or status
            if self.inner.links._by_id:
                self.inner.report(status)
            else:
                self.inner.report(self.first)


class OldStatusAfterNew(Fault):
    """Statuses are not kept in order: each comes once more after the next one."""

    class AroundHubSink(Around):
        before: Any = None

        def agent_reported(self, *report: Any) -> None:
            self.inner.agent_reported(*report)
            if self.before is not None:
                self.inner.agent_reported(*self.before)
            self.before = report


class ProofsForgotten(Fault):
    """The proof of a hub is not told to its agents."""

    class AroundAgentSink(Around):
        def hub_joined(self, info: HubInfo) -> None:
            self.inner.hub_joined(msgspec.structs.replace(info, proof=""))


class PlanesMixed(Fault):
    """Everybody is on one plane."""

    def plane(self, plane: Any) -> Any:
        return "agent"


class HubJoinedAfterItsTask(Fault):
    """hub_joined is put off to the next turn of the loop, tasks are not."""

    class AroundAgentSink(Around):
        def hub_joined(self, *link: Any) -> None:
            asyncio.get_running_loop().call_later(0.01, self.inner.hub_joined, *link)


class LossOnlyAtTheHub(Fault):
    """An agent is not told that its link is lost, and goes on."""

    class AroundAgentSink(Around):
        def hub_lost(self, *link: Any) -> None:
            pass


CLOSED = "test_accepted_chunks_come_before_the_goodbye_of_a_closing_agent"
CASES = [
    Case(ChunkAfterLoss, CLOSED, "after it was lost"),
    Case(StaleIncarnation, "test_a_new_incarnation_replaces_the_old", "named incarnation"),
    Case(
        ChunkOfAnEarlierLink,
        "test_broken_wire_is_lost_at_both_ends_and_joins_again",
        "not sent on this link",
        "broker",
    ),
    Case(BothLivesAlive, "test_of_two_lives_at_once_the_greater_counts", "before the old one was reported lost"),
    Case(OlderLifeWins, "test_of_two_lives_at_once_the_greater_counts", "('joined', 'a', 3000)"),
    Case(NewLifeWithoutLoss, "test_of_two_lives_at_once_the_greater_counts", "before the old one was reported lost"),
    Case(LostTwice, "test_closed_agent_is_lost_at_once_and_unavailable", "agent_lost came by the link of a after"),
    Case(JoinedLate, "test_agent_joins_without_delay", "agent_joined came late"),
    Case(FirstReportLate, "test_late_joiners_see_each_other", "first report"),
    Case(HubGoodbyeLeftOut, "test_closed_hub_is_lost_at_its_agents", "hub_lost"),
    Case(StatusOneBehind, "test_each_status_arrives_when_nothing_follows_it", "status 0 is reported"),
    Case(OnlyTheFirstStatus, "test_each_status_arrives_when_nothing_follows_it", "status 0 is reported"),
    Case(FirstStatusForLateHubs, "test_late_hub_is_given_the_newest_status", "not the newest"),
    Case(OldStatusAfterNew, "test_each_status_arrives_when_nothing_follows_it", "older status"),
    Case(
        ProofsForgotten,
        "test_proofs_come_to_the_other_end_as_they_were_sent",
        "proof of a hub",
        arguments={"plane": "agent"},
    ),
    Case(PlanesMixed, "test_planes_are_apart", "joined on the plane"),
    Case(HubJoinedAfterItsTask, "test_joined_means_that_both_directions_work", "before it joined"),
    Case(LossOnlyAtTheHub, "test_closed_hub_is_lost_at_its_agents", "hub_lost"),
]
