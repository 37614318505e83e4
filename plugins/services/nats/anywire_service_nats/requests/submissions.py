"""Takes tasks and deliberations that are submitted by message, and tells their ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec

from anywire import errors
from anywire.background import SERVICE as BACKGROUND
from anywire.background import BackgroundTasks
from anywire.caller import OPERATOR, Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.metric import Metric
from anywire_service_deliberation.offered import LONGEST_WAIT, Deliberations
from anywire_service_deliberation.viewed import whole
from anywire_service_nats.config_inbound import SubmissionsConfig
from anywire_service_nats.listening.callers import Callers
from anywire_service_nats.listening.dead_letters import DeadLetters
from anywire_service_nats.listening.held import Held
from anywire_service_nats.listening.listener import Durable, Listener, Source
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.part import Part
from anywire_service_nats.requests.ledger import Ledger
from anywire_service_nats.requests.ledger_file import Place
from anywire_service_nats.requests.serving import FIRST_PAUSE, LONGEST_PAUSE, MOST_PUT_OFF, OtherRequest, Serving
from anywire_service_nats.requests.submission_message import (
    NAME_HEADER,
    NotASubmission,
    Origin,
    SubmissionMessage,
    deliberation_completed,
    deliberation_of,
    read_submission,
    refused,
    reply_subject,
    task_completed,
    task_of,
)
from anywire_service_nats.subjects import SUBMIT

log = logging.getLogger(__name__)

DELIBERATION = "deliberation"
PATH = "/v1/deliberations"


class Submissions(Part):
    """A deliberation is acknowledged once the service deliberation has it on its disk, a task once the service
    background has. Without the latter a task is acknowledged after its end."""

    def __init__(
        self,
        config: SubmissionsConfig,
        context: Context,
        source: Source,
        serving: Serving,
        ledger: Ledger,
        letters: DeadLetters,
        producer: str,
    ) -> None:
        self._config, self._context, self._serving, self._ledger = config, context, serving, ledger
        self._letters, self._producer = letters, producer
        self._callers = Callers(context.access, config, "services.nats.submissions")
        self._listener = Listener(
            source,
            Durable(config.durable, f"{SUBMIT}.*", config.redelivery, MOST_PUT_OFF),
            self._handle,
            config.at_once,
        )
        self._awaited: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(self) -> None:
        """Wait for the ends that an earlier process has waited for."""
        for each in await self._ledger.open_requests():
            self._await_end(each.key, each.place)
        self._listener.start()

    def gate_closed(self) -> None:
        self._closing = True
        self._listener.stop()

    async def close(self) -> None:
        self._closing = True
        await self._listener.close()
        tasks = list(self._awaited.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def metrics(self) -> Iterable[Metric]:
        for outcome, count in self._serving.counts.items():
            text = "Submissions by message, by what became of them."
            yield Metric("submissions", text, count, {"outcome": outcome}, counter=True)
        running = self._listener.running + len(self._awaited)
        yield Metric("open_submissions", "Submissions by message that have not ended.", running)

    async def _handle(self, held: Held) -> float | None:
        try:
            message = read_submission(held, self._config.reply_prefix)
        except NotASubmission as error:
            reply = reply_subject(held.headers, self._config.reply_prefix)
            return await self._not_understood(held, {"id": held.headers.get(NAME_HEADER, "")}, reply, error)
        caller, refusal = Caller(), None
        try:
            caller = self._callers.of(held.headers)
        except errors.Unauthenticated as error:
            refusal = error
        # Who shows no key cannot take a name away from who does.
        key = message.key(caller) if refusal is None else f"refused:{held.stream}:{held.sequence}:{held.at}"
        origin = _origin(message, caller)

        async def work() -> Outgoing | Place:
            if refusal is not None:
                raise refusal
            if message.kind == DELIBERATION:
                return await self._deliberate(message, caller)
            return await self._run(message, caller, key)

        def failed(error: AnywireError) -> Outgoing:
            return refused(origin, error, key=key, producer=self._producer, now=time.time())

        try:
            place, again = await self._serving.serve(key, message.digest, work, failed, message.reply)
        except OtherRequest as error:
            return await self._not_understood(held, {"id": message.name, "kind": message.kind}, message.reply, error)
        if place is not None:
            if place.reply:
                accepted = {"id": place.name, "kind": place.kind, "status": "accepted", f"{place.kind}_id": place.id}
                await self._serving.reply(place.reply, msgspec.json.encode(accepted))
            self._await_end(key, place)
        return again

    async def _not_understood(self, held: Held, head: dict[str, str], reply: str, error: Exception) -> float | None:
        again = await self._letters.keep(held, str(error), "submissions")
        if reply and again is None:
            told = head | {"status": "refused", "error": str(error)}
            await self._serving.reply(reply, msgspec.json.encode(told))
        return again

    async def _deliberate(self, message: SubmissionMessage, caller: Caller) -> Place:
        deliberations: Deliberations | None = self._context.services.get(DELIBERATION)
        if deliberations is None:
            raise errors.TaskError("the service deliberation does not run here: add it under services")
        state = await deliberations.submit(deliberations.question(deliberation_of(message), caller))
        return self._place(DELIBERATION, state.question.id, message, caller)

    async def _run(self, message: SubmissionMessage, caller: Caller, key: str) -> Outgoing | Place:
        submission = task_of(message, caller)
        background: BackgroundTasks | None = self._context.services.get(BACKGROUND)
        if background is not None:
            task_id, _ = await background.submit(submission, f"nats:{key}", message.digest)
            return self._place(BACKGROUND, task_id, message, caller)
        stream = self._context.submit(submission)
        try:
            chunk = await stream.result()
        except BaseException:
            stream.cancel("the submission is given back")
            raise
        return task_completed(
            _origin(message, caller),
            chunk,
            key=key,
            producer=self._producer,
            now=time.time(),
            task_id=stream.task_id,
            model=stream.model or submission.model,
            agent=stream.agent_id,
        )

    @staticmethod
    def _place(service: str, its_id: str, message: SubmissionMessage, caller: Caller) -> Place:
        return Place(
            service, its_id, message.kind, message.name, caller, message.reply, message.trace, message.priority
        )

    # Ends

    def _await_end(self, key: str, place: Place) -> None:
        if key in self._awaited or self._closing:
            return
        awaiting = self._end_of_deliberation if place.service == DELIBERATION else self._end_of_task
        task = asyncio.create_task(self._awaiting(key, awaiting(key, place)))
        self._awaited[key] = task
        task.add_done_callback(partial(self._forget, key))

    def _forget(self, key: str, _: asyncio.Task[None]) -> None:
        self._awaited.pop(key, None)

    async def _awaiting(self, key: str, awaiting: Coroutine[Any, Any, None]) -> None:
        try:
            await awaiting
        except Exception:
            log.exception("the end of the submission %s is not told before the next start", key[:200])

    async def _end_of_task(self, key: str, place: Place) -> None:
        origin = _origin(place, place.caller)
        found = await self._ended(place, lambda: self._task(place))
        now = time.time()
        if found is None:
            error: AnywireError = errors.TaskError("its task is kept no more: it was removed, or has expired")
            answer = refused(origin, error, key=key, producer=self._producer, now=now)
        elif found.chunk is None:
            error = found.error or errors.TaskError("it has no answer")
            answer = refused(origin, error, key=key, producer=self._producer, now=now)
        else:
            answer = task_completed(
                origin,
                found.chunk,
                key=key,
                producer=self._producer,
                now=now,
                task_id=found.task_id,
                model=found.model,
                agent=found.agent_id,
            )
        await self._serving.answer(key, answer, place.reply)

    async def _end_of_deliberation(self, key: str, place: Place) -> None:
        origin = _origin(place, place.caller)
        found = await self._ended(place, lambda: self._deliberation(place))
        now = time.time()
        if found is None:
            error = errors.TaskError("its deliberation is kept no more: it has expired")
            answer = refused(origin, error, key=key, producer=self._producer, now=now)
        else:
            view = await asyncio.to_thread(lambda: msgspec.to_builtins(whole(found, PATH)))
            answer = deliberation_completed(origin, view, key=key, producer=self._producer, now=now)
        await self._serving.answer(key, answer, place.reply)

    async def _task(self, place: Place) -> tuple[bool, Any]:
        """Whether it has ended, or is not known, and what it is."""
        background: BackgroundTasks | None = self._context.services.get(BACKGROUND)
        if background is None:
            raise errors.ShuttingDown("the service background does not run")
        # What was taken in for whoever sent the message is this service's own to look at.
        found = await background.get(place.id, OPERATOR, LONGEST_WAIT)
        return found is None or bool(found.ended), found

    async def _deliberation(self, place: Place) -> tuple[bool, Any]:
        deliberations: Deliberations | None = self._context.services.get(DELIBERATION)
        if deliberations is None:
            raise errors.ShuttingDown("the service deliberation does not run")
        found = await deliberations.get(place.id, place.caller, LONGEST_WAIT)
        return found is None or found.is_final, found

    async def _ended(self, place: Place, look: Any) -> Any:
        """What there is of it once it has ended; None where nothing is known of it. Services start after this one, and
        end before it."""
        clock, pause = self._context.clock, FIRST_PAUSE
        while True:
            began = clock.now()
            try:
                is_over, found = await look()
                if is_over:
                    return found
            except (errors.ShuttingDown, errors.PluginFailed) as error:
                log.debug("the submission %s is not looked at now: %s", place.name[:200], error)
            if clock.now() - began >= FIRST_PAUSE:
                pause = FIRST_PAUSE  # it was waited for
                continue
            await clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _origin(asked: SubmissionMessage | Place, caller: Caller) -> Origin:
    return Origin(asked.kind, asked.name, asked.trace, asked.priority, caller.tenant)
