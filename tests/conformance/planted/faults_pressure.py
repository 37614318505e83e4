"""Faults of back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tests.conformance.planted.fault import Around, Case, Fault

from anywire.errors import AgentUnavailable, Congested
from anywire.messages import Credit, TaskRequest


class NoBound(Fault):
    """What finds no room waits in a list without a bound."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            self.waiting: deque[Any] = getattr(self, "waiting", deque())
            try:
                self.inner.send(agent_id, message)
            except Congested:
                self.waiting.append(message)


class HelloTakesTheRoom(Fault):
    """What an end says of itself counts as waiting, so that a large task finds no room right after it."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, TaskRequest) and len(message.body) > 1024 * 1024:
                raise Congested("a hello waits")
            self.inner.send(agent_id, message)


class NoBoundOfReplies(Fault):
    """Chunks that find no room wait in a list without a bound."""

    class AroundReply(Around):
        def send(self, chunk: Any) -> None:
            self.waiting: deque[Any] = getattr(self, "waiting", deque())
            try:
                self.inner.send(chunk)
            except Congested:
                self.waiting.append(chunk)


class DrainNeverWaits(Fault):
    """``drain`` returns at once."""

    class AroundHub(Around):
        async def drain(self, agent_id: str) -> None:
            await asyncio.sleep(0)


class ReplyDrainNeverWaits(Fault):
    """``Reply.drain`` returns at once."""

    class AroundReply(Around):
        async def drain(self) -> None:
            await asyncio.sleep(0)


class DrainHangsAfterLoss(Fault):
    """``drain`` does not return when the peer is lost meanwhile."""

    class AroundHub(Around):
        async def drain(self, agent_id: str) -> None:
            await self.inner.drain(agent_id)
            if self.inner.links.find(agent_id) is None:
                await asyncio.get_running_loop().create_future()


class ReplyDrainHangsAfterLoss(Fault):
    """``Reply.drain`` does not return when the hub is lost meanwhile."""

    class AroundReply(Around):
        async def drain(self) -> None:
            await self.inner.drain()
            if self.inner.over:
                await asyncio.get_running_loop().create_future()


class OneBufferForAll(Fault):
    """All peers share one buffer: while one is congested, messages to the others wait behind."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if getattr(self, "full", agent_id) != agent_id:
                return  # it waits; that it never leaves makes no difference here
            try:
                self.inner.send(agent_id, message)
            except Congested:
                self.full = agent_id
                raise


class RefusedAfterDrain(Fault):
    """A message larger than the buffer is refused, also after ``drain``."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, TaskRequest) and len(message.body) > 1024 * 1024:
                raise Congested("the message is larger than the buffer")
            self.inner.send(agent_id, message)


class CreditCongested(Fault):
    """Small messages count like large ones."""

    class AroundHub(Around):
        full = False

        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, Credit) and self.full:
                raise Congested("no room")
            try:
                self.inner.send(agent_id, message)
            except Congested:
                self.full = True
                raise


class DroppedWhenUnavailable(Fault):
    """A message to an agent that is lost is dropped silently."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            try:
                self.inner.send(agent_id, message)
            except AgentUnavailable:
                return


PAUSED = "test_a_paused_agent_congests_its_link_and_no_other"
PAUSED_HUB = "test_a_paused_hub_congests_the_replies_to_it_and_no_other"
CASES = [
    Case(NoBound, PAUSED, "Hub.send never raised Congested"),
    Case(HelloTakesTheRoom, "test_the_first_task_of_a_link_has_room_as_its_agent_joins", "found no room"),
    Case(NoBoundOfReplies, PAUSED_HUB, "Reply.send never raised Congested"),
    Case(DrainNeverWaits, PAUSED, "though drain had returned"),
    Case(ReplyDrainNeverWaits, PAUSED_HUB, "though drain had returned"),
    Case(DrainHangsAfterLoss, "test_drain_returns_when_the_agent_is_lost", "drain returned after its agent was lost"),
    Case(ReplyDrainHangsAfterLoss, "test_reply_drain_returns_when_the_hub_is_lost", "drain returned after its hub"),
    Case(OneBufferForAll, PAUSED, "event ('chunk', 'o"),
    Case(RefusedAfterDrain, PAUSED, "though drain had returned"),
    Case(CreditCongested, PAUSED, "which is small"),
    Case(DroppedWhenUnavailable, "test_closed_agent_is_lost_at_once_and_unavailable", "which is not joined"),
]
