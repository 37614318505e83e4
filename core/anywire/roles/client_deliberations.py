"""One question to several agents, over the client plane: the service ``deliberation`` of an orchestrator asks them.

A deliberation is a task for the model ``deliberate:ROLE``, so it goes where any task goes: over every transport, and
down a tree of orchestrators to one that has the service. Its stream tells what happens, and then the whole result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec

from anywire.deliberation_terms import MEMBER, MODEL, Asked, Update, given, new_id
from anywire.deliberation_views import Whole
from anywire.errors import AgentLost, InvalidRequest, LimitReached, ModelNotFound, NoAgent, Refused, ShuttingDown
from anywire.not_understood import NotUnderstood
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.client_answers import Piece
from anywire.roles.client_requests import NO_OPTIONS, TaskOptions, submission_of
from anywire.submission import Submission

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""Seconds that the task has beyond the deliberation's own time, which the service holds."""
LONGEST_S = 86_400.0
"""Seconds of the longest deliberation. One that names no time has the service's, whatever the orchestrator's default
for tasks is."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Seconds before it is tried again to reach an orchestrator that has gone."""
MAX_RESULT_CHARS = 64 * 1024 * 1024
"""Characters of a result; a longer one is none of a deliberation."""

_GONE = (AgentLost, LimitReached, NoAgent, Refused, ShuttingDown)
"""An orchestrator that does not answer any more, and may be back. One that has gone on with the deliberation counts it
as a task of its key, whose limit may leave room for no second one until its end."""
_decode = msgspec.json.Decoder(Whole).decode


class Deliberating:
    """A deliberation that `Deliberates.deliberate` asks for. Await it for its result, or enter it to follow it:

        async with client.deliberate("How do I reverse a list?", members=3) as deliberation:
            print(deliberation.id)
            async for update in deliberation:
                print(update.name, update.data)
            result = await deliberation.result()

    Whoever began it and leaves before its end cancels it, with every task of it: by leaving the block, or by the cancel
    of the task that awaits it. It is read by one reader.

    An orchestrator that is gone after it has taken the question is asked again for ``patience`` seconds, by the id:
    what was answered before is not asked again, and each update is told once.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[], AsyncGenerator[Piece, None]],
        is_closed: Callable[[], bool],
        patience: float,
    ) -> None:
        self.id = name
        """Its name for who asks for it again, over the client plane or HTTP."""
        self._ask, self._is_closed, self._patience = ask, is_closed, patience
        self._last = 0
        self._first: Update | None = None
        self._result: Whole | None = None
        self._updates = self._read()

    def __await__(self) -> Generator[Any, None, Whole]:
        return self._whole().__await__()

    async def __aenter__(self) -> Self:
        """Once the question is stored. Raises what `Deliberates.deliberate` names."""
        try:
            self._first = await anext(self._updates, None)
        except BaseException:
            await self._updates.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._updates.aclose()

    def __aiter__(self) -> Self:
        """What happens in it, from its beginning to its end, each once."""
        return self

    async def __anext__(self) -> Update:
        first, self._first = self._first, None
        return first if first is not None else await anext(self._updates)

    async def result(self) -> Whole:
        """All that has come of it, once it has ended: with a winner or without one, as its ``status`` says."""
        async for _ in self._updates:
            pass
        if self._result is None:
            raise InvalidRequest("this deliberation was left before its end: ask for it again by its id", param="id")
        return self._result

    async def _whole(self) -> Whole:
        async with self:
            return await self.result()

    async def _read(self) -> AsyncGenerator[Update, None]:
        loop = asyncio.get_running_loop()
        gone_at, pause = -1.0, FIRST_PAUSE_S
        while True:
            texts, size = list[str](), 0
            try:
                async with aclosing(self._ask()) as pieces:
                    async for piece in pieces:
                        gone_at, pause = -1.0, FIRST_PAUSE_S
                        told = piece.members.get(MEMBER)
                        if told is not None and (update := _update(told)).number > self._last:
                            self._last = update.number
                            yield update
                        size += len(piece.text)
                        if size > MAX_RESULT_CHARS:
                            raise NotUnderstood(f"the result has more than {MAX_RESULT_CHARS} characters")
                        texts.append(piece.text)
                self._result = _whole("".join(texts))
                return
            except (*_GONE, ModelNotFound) as error:  # others may be seen while the one with the service is away
                gone_at = gone_at if gone_at >= 0 else loop.time()
                left = gone_at + self._patience - loop.time()
                if not self._last or left <= 0 or self._is_closed():
                    raise
                log.info("the orchestrator of the deliberation %s is gone and is tried again: %s", self.id, error)
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE_S)


class Deliberates:
    """What of a client asks for deliberations."""

    hub: Orchestrator
    _state: str

    def deliberate(
        self,
        task: str,
        *,
        priority: int = 0,
        trace: str = "",
        options: TaskOptions = NO_OPTIONS,
        patience: float = 60.0,
        **asked: Unpack[Asked],
    ) -> Deliberating:
        """Ask several agents one question: await what this returns for the result, or follow it (`Deliberating`).

            result = await client.deliberate("How do I reverse a list?", role="DEV", members=3, rubric="clean-code")
            print(result.answer)

        ``asked`` is what `anywire.deliberation_terms.Asked` names. ``priority``, ``trace`` and ``options`` are those of
        its task, see `anywire.Client.chat`. Nothing is sent before it is awaited or entered. Raises `ModelNotFound`
        where no orchestrator has the service ``deliberation``, `InvalidRequest` that names the member at fault,
        `QueueFull` when too many are under way, and what any task raises. One that ends without a winner raises
        nothing: its ``status`` and ``reason`` say why.
        """
        name, role = asked.get("id") or new_id(), asked.get("role") or ""
        own = {**given(asked), "id": name, "answer": "whole"}
        own.pop("role", None)
        timeout = asked.get("timeout")
        deadline = (timeout if isinstance(timeout, int | float) and timeout > 0 else LONGEST_S) + GRACE_S

        async def ask() -> AsyncGenerator[Piece, None]:
            await self._first_orchestrator()
            request = {
                "model": self._model(role),
                "messages": [{"role": "user", "content": task}],
                "stream": True,
                MEMBER: own,
            }
            submission = submission_of("chat", request, True, deadline, priority, trace, options)
            try:
                async with aclosing(self._pieces_of(submission)) as pieces:
                    async for piece in pieces:
                        yield piece
            except ModelNotFound as error:
                raise self._no_service(role, error) from error

        return Deliberating(name, ask, lambda: bool(self._state), patience)

    async def _first_orchestrator(self) -> None:
        raise NotImplementedError

    def _pieces_of(self, submission: Submission) -> AsyncGenerator[Piece, None]:
        raise NotImplementedError

    def _model(self, role: str) -> str:
        """The model that stands for deliberations of members in this role, as it is offered."""
        wanted = f"{MODEL}:{role}" if role else MODEL
        return next((each for each in self.hub.models() if each.casefold() == wanted.casefold()), wanted)

    def _no_service(self, role: str, error: ModelNotFound) -> InvalidRequest | ModelNotFound:
        """Says whether it is the service or the role that is missing."""
        models = self.hub.models()
        if role and MODEL in models:
            known = ", ".join(each.removeprefix(f"{MODEL}:") for each in models if each.startswith(f"{MODEL}:"))
            return InvalidRequest(f"there is no role {role[:64]!r}; there are: {known or 'none'}", param="role")
        return ModelNotFound(
            "no orchestrator that is seen has deliberations: configure the service deliberation at one "
            f"(services: {{deliberation: {{}}}}); {error.message}",
            param="model",
        )


def _update(told: Any) -> Update:
    """What a chunk tells. Raises `NotUnderstood`."""
    try:
        data = dict(told)
        number, name, at = data.pop("number"), data.pop("event"), data.pop("at")
        data.pop("id", None)
        return msgspec.convert({"number": number, "name": name, "at": at, "data": data}, Update)
    except (LookupError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise NotUnderstood(f"what the deliberation tells is no update of this version: {error}") from error


def _whole(text: str) -> Whole:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotUnderstood(f"the deliberation's result is none of this version: {error}") from error
