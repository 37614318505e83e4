"""Hears the answers of agents elsewhere, counts them, and publishes when a task has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.collected_answers import CollectedTask
from anywire.files.database_thread import taken_over
from anywire.metric import Metric
from anywire_service_nats.collector.database import Outcome
from anywire_service_nats.collector.heard import Heard, NotAnAnswer, read_heard
from anywire_service_nats.collector.store import Store
from anywire_service_nats.collector.told import is_completed, message_id, told, told_shorter
from anywire_service_nats.config_inbound import CollectorConfig
from anywire_service_nats.envelopes import Envelope, NotUnderstood, decode
from anywire_service_nats.listening.dead_letters import DeadLetters
from anywire_service_nats.listening.held import Held
from anywire_service_nats.listening.listener import Durable, Listener, Source
from anywire_service_nats.outgoing import Outgoing, Publisher
from anywire_service_nats.part import Part
from anywire_service_nats.subjects import COLLECTED_COMPLETED, COLLECTED_FAILED

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Answers that are written together at most."""
MARGIN = 1.0
"""Seconds after a task's time until it is ended: what was published in time may still be on its way."""
AGAIN = 1.0
"""Seconds until what could not be done is tried again."""
FULL_PAUSE = 5.0
"""Seconds after which an answer is delivered again for which there is no room."""
PURGE_S = 60.0
TOLD_AT_ONCE = 100
MAX_LISTED = 1000


class _Waiting(NamedTuple):
    heard: Heard
    done: asyncio.Future[Outcome]


class Collector(Part):
    """Implements `anywire.collected_answers.CollectedTasks`.

    An answer is acknowledged once it is counted on the disk. Its time is the one at which its stream took it: an
    orchestrator that was away counts as if it had been there. ``own`` are the producers whose answers are not counted:
    this orchestrator's members answer deliberations of its own.
    """

    def __init__(
        self,
        config: CollectorConfig,
        store: Store,
        source: Source,
        publisher: Publisher,
        letters: DeadLetters,
        clock: Clock,
        producer: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._store, self._publisher, self._letters = config, store, publisher, letters
        self._clock, self._producer, self._now = clock, producer, now
        self._owner = Caller("", config.tenant)
        self._listener = Listener(
            source, Durable(config.durable, config.subject, config.redelivery), self._handle, AT_ONCE
        )
        self._waiting: list[_Waiting] = []
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._counts: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._is_open = False
        self._kept = (0, 0)

    async def start(self) -> None:
        """Raises `ConfigError` when the folder cannot be used. Where another process has it, this one counts once that
        has ended."""
        is_open = await self._store.open()
        if not is_open:
            log.warning("another orchestrator counts the answers in this folder: this one does once that has ended")
        self._tasks.append(asyncio.create_task(self._run(is_open)))

    async def close(self) -> None:
        """Safe to call twice, and without `start`."""
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_open = False
        await self._store.close()

    # What gateways call

    async def get(self, task_id: str, caller: Caller) -> CollectedTask | None:
        if not self._is_open or not caller.may_look_up(self._owner):
            return None
        found = await self._store.get(task_id)
        return found if found is not None and not self._has_expired(found) else None

    async def list(self, caller: Caller, limit: int = 100) -> Sequence[CollectedTask]:
        if not self._is_open or not caller.sees(self._owner):
            return ()
        found = await self._store.list(max(1, min(limit, MAX_LISTED)))
        return [each for each in found if not self._has_expired(each)]

    def metrics(self) -> Iterable[Metric]:
        for what, count in self._counts.items():
            text = "Answers of agents elsewhere, by what became of them."
            yield Metric("heard_answers", text, count, {"outcome": what}, counter=True)
        for status, count in self._ended.items():
            text = "Tasks of agents elsewhere that have ended, by how they did."
            yield Metric("collected_tasks", text, count, {"status": status}, counter=True)
        running, kept = self._kept
        yield Metric("collecting_tasks", "Tasks of agents elsewhere that have not ended.", running)
        yield Metric("kept_tasks", "Tasks of agents elsewhere that are kept.", kept)

    # Answers

    async def _handle(self, held: Held) -> float | None:
        envelope = decode(held.data, held.subject, held.headers)
        if isinstance(envelope, NotUnderstood):
            return await self._letters.keep(held, envelope.reason, "collector")
        if envelope.producer == self._producer:
            self._counts["own"] += 1
            return None
        if held.at < self._now() - self._config.keep - self._config.time_limit:
            self._counts["too_old"] += 1
            return None
        try:
            heard = read_heard(envelope.payload, held.at, failed=_is_failure(held.subject, envelope))
        except NotAnAnswer as error:
            return await self._letters.keep(held, str(error), "collector")
        waiting = _Waiting(heard, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._changed.set()
        outcome = await waiting.done
        if not outcome.kept:
            self._counts["no_room"] += 1
            return FULL_PAUSE
        self._counts["counted" if outcome.new else "late" if outcome.late else "repeated"] += 1
        return None

    # Work

    async def _run(self, is_open: bool) -> None:
        try:
            if not is_open:
                await taken_over(self._store.open, self._clock)
        except (errors.ConfigError, errors.PluginFailed) as error:
            log.error("no answers are counted: %s", error)
            return
        self._is_open = True
        self._listener.start()
        self._tasks.append(asyncio.create_task(self._purge()))
        pause = 0.0
        while True:
            await self._change(pause)
            try:
                pause = await self._round()
            except errors.AnywireError as error:  # it is logged where it begins
                log.debug("answers are not counted now: %s", error)
                pause = AGAIN
            except Exception:
                log.exception("answers were not counted")
                pause = AGAIN

    async def _round(self) -> float:
        """Count what was heard, end what is late, tell what has ended. Seconds until there may be more to do."""
        self._changed.clear()
        waiting, self._waiting = self._waiting, []
        try:
            outcomes = await self._store.count([each.heard for each in waiting], self._config.time_limit)
        except BaseException:
            self._waiting = waiting + self._waiting
            raise
        for each, outcome in zip(waiting, outcomes, strict=True):
            if not each.done.done():
                each.done.set_result(outcome)
        pause = PURGE_S
        if deadline := await self._store.next_deadline():
            late = self._now() - MARGIN
            until = min(late, self._listener.handled_until)
            if deadline <= until:
                await self._store.end_late(until)
                deadline = await self._store.next_deadline()
            pause = min(pause, max(deadline - late, AGAIN)) if deadline else pause
        while ended := await self._store.untold(TOLD_AT_ONCE):
            await self._publisher.put([self._outgoing(each) for each in ended])
            await self._store.told([each.task_id for each in ended])
            self._ended.update(each.status for each in ended)
        self._kept = await self._store.counts()
        return pause

    async def _change(self, pause: float) -> None:
        """Until an answer was heard, at most ``pause`` seconds."""
        if pause > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _purge(self) -> None:
        while True:
            with suppress(errors.PluginFailed):  # it is logged
                await self._store.remove_expired(self._now() - self._config.keep)
            await self._clock.sleep(min(PURGE_S, self._config.keep))

    def _outgoing(self, task: CollectedTask) -> Outgoing:
        subject = COLLECTED_COMPLETED if is_completed(task) else COLLECTED_FAILED
        envelope = Envelope(
            type=subject,
            id=message_id(task),
            correlation=task.task_id,
            time=task.ended,
            payload=told(task),
            producer=self._producer,
        )
        shorter = msgspec.structs.replace(envelope, payload=told_shorter(task))
        return Outgoing(subject, envelope, order=task.task_id, instead=(subject, shorter))

    def _has_expired(self, task: CollectedTask) -> bool:
        return 0 < task.ended < self._now() - self._config.keep


def _is_failure(subject: str, envelope: Envelope) -> bool:
    """By the last part of the subject, else by the type. Raises `NotAnAnswer`."""
    for name in (subject, envelope.type):
        match name.rpartition(".")[2]:
            case "completed":
                return False
            case "failed":
                return True
    raise NotAnAnswer("it is neither completed nor failed")
