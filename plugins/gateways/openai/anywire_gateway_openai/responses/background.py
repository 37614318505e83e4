"""Responses in the background: the service ``background`` runs them, the service ``conversations`` keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from anywire import background, conversations
from anywire.background import BackgroundTasks
from anywire.caller import Caller
from anywire.context import Context
from anywire.conversations import Conversations, KeptResponse
from anywire.errors import AnywireError, InvalidRequest, PluginFailed, ShuttingDown, TaskCancelled, TaskError
from anywire.submission import Submission
from anywire_gateway_openai.answers import task_id_of
from anywire_gateway_openai.errors import as_anywire
from anywire_gateway_openai.responses.answer import answered, failed_response
from anywire_gateway_openai.responses.request import Object
from anywire_gateway_openai.tasks import nothing

log = logging.getLogger(__name__)

WAIT_S = 60.0
PAUSE_S = 1.0
"""Seconds until what could not be read or written is tried again."""


class BackgroundResponses:
    """Waits for the end of each response that runs in the background, those of an earlier process too, and keeps its
    answer."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._work: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Go on with what an earlier process has left."""
        if self._kept is not None:
            self._begin(self._resume(self._kept))

    async def close(self) -> None:
        """Safe to call twice. What has not ended is left to the next process."""
        for each in self._work:
            each.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def take(
        self,
        submission: Submission,
        begun: Callable[[str], KeptResponse],
        key: str,
        digest: bytes,
        release: Callable[[], None],
    ) -> Object:
        """Take a response in: its object, once it is kept. ``begun`` makes it from the id of its task; ``release`` is
        called when it has ended, or when it is not taken in. A client that goes away before it has the id takes its
        response back, unless it gave a ``key`` with which it may come again. Raises what `BackgroundTasks.submit` and
        `Conversations.begin` raise."""
        try:
            tasks, kept = self._tasks, self._kept
            if tasks is None or kept is None:
                raise InvalidRequest(
                    "background: nothing runs in the background here: configure the service background (services: "
                    "[background, conversations])",
                    param="background",
                )
            task_id, _ = await tasks.submit(submission)
            response = begun(task_id)
        except BaseException:
            release()
            raise
        beginning = asyncio.ensure_future(self._keep_begun(response, tasks, kept, key, digest, release))
        self._work.add(beginning)
        beginning.add_done_callback(self._work.discard)
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # Its client has gone and knows no id. What is being written is written first.
            if not key:
                self._begin(self._withdraw(beginning, response, tasks, kept))
            raise

    async def cancel(self, response: KeptResponse, caller: Caller) -> None:
        """End one that has not ended."""
        if self._kept is not None:
            ended = _ended(response, failed_response(response.response, TaskCancelled("cancelled")))
            if await self._kept.end(ended):
                await self.forget(response, caller)

    async def forget(self, response: KeptResponse, caller: Caller) -> None:
        """Nobody wants the answer of one any more."""
        if self._tasks is not None:
            await self._tasks.forget(task_id_of(response.response_id), caller)

    def as_it_is(self, response: KeptResponse) -> Object:
        """The object of a response now."""
        if response.ended:
            return response.response
        record = self._context.explain(task_id_of(response.response_id))
        runs = record is not None and record.view.place == "running"
        return {**response.response, "status": "in_progress" if runs else "queued"}

    # Inside

    @property
    def _tasks(self) -> BackgroundTasks | None:
        tasks: BackgroundTasks | None = self._context.services.get(background.SERVICE)
        return tasks

    @property
    def _kept(self) -> Conversations | None:
        kept: Conversations | None = self._context.services.get(conversations.SERVICE)
        return kept

    async def _resume(self, kept: Conversations) -> None:
        while True:
            try:
                left = await kept.running()
                break
            except PluginFailed:
                await self._context.clock.sleep(PAUSE_S)
        tasks = self._tasks
        for each in left:
            if tasks is None:
                log.error("the response %s waits until the service background is configured again", each.response_id)
                continue
            release: Callable[[], None] = nothing
            if each.conversation:
                with suppress(InvalidRequest):  # one that has begun since then: it comes after this one
                    release = kept.occupy(each.conversation)
            self._begin(self._watch(each, tasks, kept, release))

    async def _keep_begun(
        self,
        response: KeptResponse,
        tasks: BackgroundTasks,
        kept: Conversations,
        key: str,
        digest: bytes,
        release: Callable[[], None],
    ) -> Object:
        try:
            await kept.begin(response, key=key, digest=digest)
        except BaseException:
            release()
            with suppress(AnywireError):
                await tasks.forget(task_id_of(response.response_id), response.caller)
            raise
        self._begin(self._watch(response, tasks, kept, release))
        return response.response

    async def _withdraw(
        self, beginning: asyncio.Future[Object], response: KeptResponse, tasks: BackgroundTasks, kept: Conversations
    ) -> None:
        """Keep nothing of a response whose id nobody was told."""
        with suppress(AnywireError):
            await beginning
            await kept.remove(response.response_id, response.caller)
            await tasks.forget(task_id_of(response.response_id), response.caller)

    async def _watch(
        self, response: KeptResponse, tasks: BackgroundTasks, kept: Conversations, release: Callable[[], None]
    ) -> None:
        try:
            while not await self._ended(response, tasks, kept):
                pass
        finally:
            release()

    async def _ended(self, response: KeptResponse, tasks: BackgroundTasks, kept: Conversations) -> bool:
        """Wait for the end, and keep how it ended; False when it has not."""
        task_id, head = task_id_of(response.response_id), response.response
        try:
            task = await tasks.get(task_id, response.caller, WAIT_S)
            if task is None:
                whole = failed_response(head, TaskError("the task of this response is not kept any more"))
            elif task.error is not None:
                whole = failed_response(head, task.error)
            elif task.chunk is not None:
                try:
                    whole = answered(head, task_id, task.model or head["model"], task.chunk, task.ended)
                except Exception as error:  # also what nobody has thought of: it must not wait for ever
                    whole = failed_response(head, as_anywire(error, task_id))
            else:
                if self._context.closing:  # it is not waited for any more: perhaps it ends within the grace
                    await self._context.clock.sleep(PAUSE_S)
                return False
            await self._keep(response, whole, kept)
            return True
        except (PluginFailed, ShuttingDown):
            await self._context.clock.sleep(PAUSE_S)
            return False

    async def _keep(self, response: KeptResponse, whole: Object, kept: Conversations) -> None:
        try:
            await kept.end(_ended(response, whole))
        except (PluginFailed, ShuttingDown):
            raise
        except Exception as error:  # there is no room for it, say
            fault = as_anywire(error, task_id_of(response.response_id))
            await kept.end(_ended(response, failed_response(response.response, fault)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a response in the background is not kept: %s", error, exc_info=error)


def _ended(response: KeptResponse, whole: Object) -> KeptResponse:
    return msgspec.structs.replace(response, response=whole, ended=True)
