"""Faults of opening and closing."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from tests.conformance.planted.fault import Around, Case, Fault

from anywire.errors import TransportError
from anywire.messages import Cancel, HubInfo


class CallbacksBeforeOpened(Fault):
    """Peers are reported while the end is still being opened."""

    async def opened(self) -> None:
        await asyncio.sleep(0.2)


class CallbacksAfterClose(Fault):
    """Statuses wait 50 ms in a queue that a close does not empty."""

    class AroundHubSink(Around):
        def agent_reported(self, *report: Any) -> None:
            asyncio.get_running_loop().call_later(0.05, self.inner.agent_reported, *report)


class TasksAfterClose(Fault):
    """A task that waits in a queue is given to an agent's end that is closed."""

    class AroundAgentSink(Around):
        def hub_joined(self, info: HubInfo) -> None:
            self.inner.hub_joined(info)
            late = (info.hub_id, info.incarnation, Cancel(info.hub_id, "late", 1))
            self.fault.late = lambda: self.inner.cancel_received(*late)

    class AroundPort(Around):
        async def close(self) -> None:
            await self.inner.close()
            asyncio.get_running_loop().call_later(0.05, getattr(self.fault, "late", list))


class ChunksDroppedAtClose(Fault):
    """What waits in the agent's own buffer is dropped when it closes."""

    class AroundReply(Around):
        count = 0

        def send(self, chunk: Any) -> None:
            self.count += 1
            if self.count < 10:
                self.inner.send(chunk)
            else:
                self.fault.waiting = [*getattr(self.fault, "waiting", []), (self.inner, chunk)]

    class AroundPort(Around):
        async def close(self) -> None:
            self.fault.waiting = []
            await self.inner.close()


class TasksDroppedAtClose(Fault):
    """What waits in the hub's own buffer is dropped when it closes."""

    class AroundHub(Around):
        count = 0

        def send(self, agent_id: str, message: Any) -> None:
            self.count += 1
            if self.count < 10:
                self.inner.send(agent_id, message)


class ReplyRaisesAfterLoss(Fault):
    """``Reply.send`` raises when its hub is lost."""

    class AroundReply(Around):
        def send(self, chunk: Any) -> None:
            if self.inner.over:
                raise TransportError("the hub is gone")
            self.inner.send(chunk)


class EmptySettings(Fault):
    """``effective_settings`` says nothing."""

    def settings(self, settings: Any) -> Any:
        return {}


class CloseNeverReturns(Fault):
    """``close`` of a hub waits for something that does not come."""

    class AroundHub(Around):
        async def close(self) -> None:
            await self.inner.close()
            await asyncio.get_running_loop().create_future()


class TaskLeftBehind(Fault):
    """A task of the event loop is not ended by ``close``."""

    left: ClassVar[list[Any]] = []

    async def opened(self) -> None:
        self.left.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))


CLOSING = "test_accepted_{}_come_before_the_goodbye_of_a_closing_{}"
CASES = [
    Case(CallbacksBeforeOpened, "test_late_joiners_see_each_other", "before the end's open had returned"),
    Case(CallbacksAfterClose, "test_nothing_is_called_after_close", "after close was called"),
    Case(TasksAfterClose, "test_nothing_is_called_after_close", "cancel_received was called after close"),
    Case(ChunksDroppedAtClose, CLOSING.format("chunks", "agent"), "of 301 accepted chunks were delivered"),
    Case(TasksDroppedAtClose, CLOSING.format("tasks", "hub"), "of 100 accepted tasks were delivered"),
    Case(ReplyRaisesAfterLoss, "test_reply_after_the_hub_was_lost_is_silent", "after its hub was lost"),
    Case(EmptySettings, "test_effective_settings_name_the_bounds", "effective_settings does not name"),
    Case(CloseNeverReturns, "test_unknown_agent_is_unavailable", "a hub's close returned"),
    Case(TaskLeftBehind, "test_nothing_is_left_behind", "closed ends left tasks of the event loop"),
]
