"""One piece of work as a task of the pipeline: how it is submitted, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.submission import MAX_NAME_CHARS, MAX_NAMES, Submission
from anywire.task_stream import TaskStream
from anywire_service_deliberation.checks import TIMEOUT, ProposalCheck, checked
from anywire_service_deliberation.effects import Ask
from anywire_service_deliberation.prompts import ROOM, body
from anywire_service_deliberation.reading import read_score
from anywire_service_deliberation.record import Answer, Check, Deliberation, Failure
from anywire_service_deliberation.served_models import ServedModels

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds until work that nobody can take yet is offered again, if no refusal says when."""
LEAST_TIME = 0.05
"""Seconds that a task has at least."""
MAX_ANSWER_CHARS = 200_000
"""Characters of an answer that are kept; engines bound answers by tokens."""
MAX_MESSAGE_CHARS = 1000
"""Characters of an error's message that are kept."""

CHARS_PER_TOKEN = 3
"""Of a prompt that must fit into a model's context: fewer than usual, so that it does fit."""
MESSAGE_TOKENS = 10
"""What a model puts around each message, by its template."""
LEAST_ROOM = 500
"""Characters of others' texts, however small the context is."""

_NOT_YET = (errors.QueueFull, errors.NoAgent, errors.LimitReached, errors.DeadlineTooShort)
_GONE = (errors.ModelNotFound, errors.ModelStopped)
_FOR_GOOD = (
    errors.InvalidRequest,
    errors.PayloadTooLarge,
    errors.Forbidden,
    errors.Unauthenticated,
    errors.TaskCancelled,
    errors.PluginFailed,
    *_GONE,
)
"""Errors after which no other agent does better."""


class Failed(NamedTuple):
    failure: Failure
    again: bool


class Errand:
    """One try of a piece of work. `submit` it, then await `outcome` once."""

    def __init__(
        self,
        context: Context,
        served: ServedModels,
        checks: Sequence[ProposalCheck],
        now: Callable[[], float],
        state: Deliberation,
        ask: Ask,
        parent: str,
        avoid: Sequence[str],
        *,
        patient: bool,
    ) -> None:
        """``patient``: a model that nobody serves is waited for, since agents may still be to come back."""
        self.ask, self.stopped = ask, False
        self._context, self._served, self._checks, self._now, self._state = context, served, checks, now, state
        self._parent, self._patient = parent, patient
        self._avoid = tuple(dict.fromkeys(name for name in avoid if name and len(name) <= MAX_NAME_CHARS))[-MAX_NAMES:]
        self._member = next(member for member in state.question.members if member.name == ask.work.member)
        self._began = now()
        self._stream: TaskStream | None = None
        self._refusal: AnywireError | None = None
        self._attempts = 0
        self._waits = asyncio.Event()
        self._is_left = False

    @property
    def agent(self) -> str:
        """Who has it now, or had it last; empty when nobody did."""
        if self._stream is None:
            return ""
        if self._stream.agent_id:
            return self._stream.agent_id
        record = self._context.explain(self._stream.task_id)
        return record.view.agent_id if record is not None else ""

    @property
    def question_id(self) -> str:
        return self._state.question.id

    def submit(self, caller: Caller) -> None:
        """Hand it to the pipeline; what that refuses it with is told by `outcome`."""
        work, question = self.ask.work, self._state.question
        if self._is_unknown():
            told = f"no agent that serves the model {self._member.model!r} has come back since the restart"
            self._stream, self._refusal = None, errors.ModelNotFound(told)
            return
        try:
            submission = Submission(
                "chat",
                self._member.model,
                self._body(),
                priority=question.priority,
                trace=question.trace,
                deadline_s=max(LEAST_TIME, self.ask.deadline - self._now()),
                caller=caller,
                session=f"{question.id}/{work.member}"[:MAX_NAME_CHARS],
                parent=self._parent,
                avoid=self._avoid,
            )
            self._stream, self._refusal = self._context.submit(submission), None
        except AnywireError as error:
            self._stream, self._refusal = None, error
        except Exception as error:
            log.exception("the work %s of the deliberation %s cannot be asked for", work, question.id)
            self._stream = None
            self._refusal = errors.PluginFailed(f"it could not be asked for: {type(error).__name__}")

    def stop(self, reason: str) -> None:
        """Cancel it. What it has brought by then is still its `outcome`."""
        self.stopped = True
        if self._stream is not None:
            self._stream.cancel(reason)
        self._waits.set()

    def leave(self) -> None:
        """Submit it no more: what it has not brought by the end of this process is for the next one to find out."""
        self._is_left = True
        self._waits.set()

    async def outcome(self, caller: Caller) -> Answer | Failed | None:
        """What came of it; None where that is for the next process to find out."""
        pause = FIRST_PAUSE
        while True:
            error = self._refusal
            if self._stream is not None:
                try:
                    return await self._read(await self._stream.result())
                except AnywireError as failed:
                    error = failed
                except BaseException:
                    self._stream.cancel("the deliberation is not run here any more")
                    raise
                self._attempts += self._stream.attempts
            assert error is not None
            if self._goes_on_elsewhere():
                return None
            left = self.ask.deadline - self._now()
            if self.stopped or not self._is_not_yet(error) or left <= 0:
                return self._failed(error)
            seconds = min(max(error.retry_after, pause), LONGEST_PAUSE, left)
            with self._served.waking(self._waits.set) if isinstance(error, _GONE) else nullcontext():
                await self._pause(seconds)
            pause = min(2 * pause, LONGEST_PAUSE)
            if self._goes_on_elsewhere():
                return None
            if self.stopped or self.ask.deadline <= self._now():
                return self._failed(error)
            self.submit(caller)

    def _goes_on_elsewhere(self) -> bool:
        return self._is_left or self._context.closing

    def _is_unknown(self) -> bool:
        """After a restart: nobody has told yet what the model offers, so that the form in which it is asked would be
        another one than before."""
        return self._patient and bool(self._member.model) and not self._served.offers(self._member.model)

    def _body(self) -> str:
        offers = self._served.offers(self._member.model)
        context = min((offer.context for offer in offers if offer.context), default=0)
        structured = any(offer.features.get("json") for offer in offers)
        made = partial(body, self.ask.work, self._state, structured=structured)
        room = ROOM if not context else min(ROOM, max(LEAST_ROOM, _room(made(room=0), context)))
        return msgspec.json.encode({**made(room=room), "stream": False}).decode()

    async def _read(self, chunk: Chunk) -> Answer | Failed:
        assert self._stream is not None
        stream, work = self._stream, self.ask.work
        text = _kept("".join(chunk.deltas), MAX_ANSWER_CHARS)
        points: dict[str, float] = {}
        score: float | None = None
        checks: tuple[Check, ...] = ()
        if work.kind == "score":
            read = read_score(text, self._state.question.rubric)
            if read.score is None:
                return Failed(Failure("nonsense", read.reason, stream.agent_id, self.ask.tries), again=True)
            points, score = read.points, read.score
        elif work.kind in ("proposal", "revision") and self._checks:
            left = min(TIMEOUT, max(LEAST_TIME, self.ask.deadline - self._now()))
            checks = await checked(self._checks, self._state.question, self._member, text, timeout=left)
        prompt, completion = _tokens(chunk.usage)
        return Answer(
            text,
            points,
            score,
            stream.agent_id,
            stream.transport,
            stream.model or self._member.model,
            self._attempts + max(1, stream.attempts),
            prompt,
            completion,
            self._began,
            checks=checks,
        )

    def _failed(self, error: AnywireError) -> Failed:
        agent = error.agent_id or self.agent
        again = not isinstance(error, _FOR_GOOD)
        message = _kept(error.message, MAX_MESSAGE_CHARS)
        return Failed(Failure(error.code, message, agent, self.ask.tries), again)

    def _is_not_yet(self, error: AnywireError) -> bool:
        return isinstance(error, _NOT_YET) or (self._patient and isinstance(error, _GONE))

    async def _pause(self, seconds: float) -> None:
        timer = self._context.clock.call_later(seconds, self._waits.set)
        try:
            await self._waits.wait()
        finally:
            timer.cancel()
            if not self.stopped:
                self._waits.clear()


def _kept(text: str, chars: int) -> str:
    """What is kept of an agent's words: they stand in each state of the deliberation, and can always be encoded."""
    return text[:chars].encode(errors="replace").decode()


def _room(without_texts: dict[str, Any], context: int) -> int:
    """The characters that others' texts may have in a prompt, which is given without them, so that it and its answer
    fit into ``context`` tokens. Less than 0 where not even that fits."""
    messages = without_texts["messages"]
    tokens = context - without_texts["max_tokens"] - MESSAGE_TOKENS * len(messages)
    return CHARS_PER_TOKEN * int(tokens) - sum(len(message["content"]) for message in messages)


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


def _tokens(usage: str) -> tuple[int, int]:
    """Those of the prompt and of the answer; 0 where the engine does not say them."""
    try:
        told = msgspec.json.decode(usage, type=_Usage) if usage else _Usage()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0, 0
    return max(0, told.prompt_tokens), max(0, told.completion_tokens)
