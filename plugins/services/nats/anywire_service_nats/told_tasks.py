"""Puts into the outbox what is to be published of the pipeline's tasks, as they are given to agents and end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from anywire.context import Context
from anywire.errors import AnywireError
from anywire.events import TaskDispatched, TaskEnded
from anywire.metric import Metric
from anywire.once_log import OnceLog
from anywire_service_nats import payloads, subjects
from anywire_service_nats.envelopes import Envelope
from anywire_service_nats.outgoing import Outgoing, Publisher
from anywire_service_nats.part import Part

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Events that wait for the outbox; what is over it is lost, counted and told."""
MOST_TOGETHER = 256
PAUSE = 1.0
"""Seconds until it is tried again when the outbox is full, or its disk fails."""
LAST_SECONDS = 1.0


class ToldTasks(Part):
    """What a process that is killed has not put yet, the events of some milliseconds, is not published."""

    def __init__(self, context: Context, publisher: Publisher, producer: str) -> None:
        self._context, self._publisher, self._producer = context, publisher, producer
        self._waiting: deque[TaskDispatched | TaskEnded] = deque()
        self._filled, self._empty = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._once = OnceLog(log)
        self.lost = 0
        """Events that are not published because too many waited."""

    async def start(self) -> None:
        self._unsubscribe = self._context.events.subscribe("nats", self._heard, TaskDispatched, TaskEnded)
        self._task = asyncio.create_task(self._put_all())

    async def close(self) -> None:
        self._unsubscribe()
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d events of tasks are not published", len(self._waiting))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def metrics(self) -> Iterable[Metric]:
        yield Metric("waiting_events", "Events of tasks that wait for the outbox.", len(self._waiting))
        yield Metric("lost_events", "Events of tasks that found no room.", self.lost, counter=True)

    def _heard(self, event: TaskDispatched | TaskEnded) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            self._once.warn("lost", "over %d events of tasks wait for the outbox: others are lost", MOST_WAITING)
            return
        self._waiting.append(event)
        self._empty.clear()
        self._filled.set()

    async def _put_all(self) -> None:
        alone = 0  # so many are put one by one
        while True:
            self._filled.clear()
            if not self._waiting:
                self._empty.set()
                await self._filled.wait()
            batch = [self._waiting[index] for index in range(min(len(self._waiting), 1 if alone else MOST_TOGETHER))]
            try:
                await self._publisher.put([task_message(each, self._producer) for each in batch])
            except AnywireError as error:
                self._once.warn(error.code, "events of tasks wait: %s", error)
                await self._context.clock.sleep(PAUSE)
                continue
            except Exception as error:
                if len(batch) > 1:  # one of them is at fault: it harms no other
                    alone = len(batch)
                    continue
                self._once.warn("form", "an event of the task %s is not published: %s", batch[0].task_id, error)
                self.lost += 1
            else:
                self._once.reset()
            alone = max(0, alone - len(batch))
            for _ in batch:
                self._waiting.popleft()


def task_message(event: TaskDispatched | TaskEnded, producer: str) -> Outgoing:
    """What is published of an event. Texts of tasks are in none. Its id is made of the event's: a background task that
    is run again under its id, here or by the next process, is sent and ends again."""
    payload: dict[str, Any]
    if isinstance(event, TaskDispatched):
        subject, name = subjects.TASK_DISPATCHED, f"{event.task_id}:dispatched:{event.id}"
        payload = payloads.task_dispatched(
            task_id=event.task_id, story_id="", agent=event.agent_id, role="", time=event.time
        )
        payload |= {"model": event.model, "attempt": event.attempt, "transport": event.transport}
    else:
        subject = subjects.TASK_FAILED if event.error else subjects.TASK_COMPLETED
        name = f"{event.task_id}:ended:{event.id}"
        payload = {
            "task_id": event.task_id,
            "status": "failed" if event.error else "completed",
            "agent_id": event.agent_id,
            "kind": event.kind,
            "model": event.model,
            "transport": event.transport,
            "attempts": event.attempts,
            "error": event.message if event.error else "",
            "error_type": event.error,
            "metrics": {"tokens_in": event.prompt_tokens, "tokens_out": event.tokens},
            "session": event.session,
            "parent": event.parent,
            "tenant": event.tenant,
            "caller": event.caller,
        }
    envelope = Envelope(
        type=subject,
        id=name,
        correlation=event.task_id,
        time=event.time,
        payload=payload,
        producer=producer,
        trace=event.trace,
        priority=event.priority,
    )
    return Outgoing(subject, envelope, event.task_id)
