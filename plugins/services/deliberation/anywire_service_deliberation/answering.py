"""A deliberation as the answer of a model: the winner's text, so that every stock client can ask for one, or the whole
of it as JSON (`anywire.deliberation_views.Whole`) for who wants more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, NamedTuple

import msgspec

from anywire import errors
from anywire.deliberation_terms import MEMBER, MODEL, Update
from anywire.engine import Delta
from anywire.errors import AnywireError, InvalidRequest
from anywire.submission import Submission
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.history import history
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.running import Run
from anywire_service_deliberation.runs import CLIENT_GONE
from anywire_service_deliberation.update_stream import end_reading
from anywire_service_deliberation.viewed import LARGE, whole

BASE = "/v1/deliberations"
"""Where the links of a whole one lead at an HTTP gateway."""
PIECE_CHARS = 16 * 1024
"""Characters of a whole one in one chunk of a stream."""
SILENCE_S = 15.0
"""Seconds without an update after which a stream has a chunk without one. Whoever sent the task from afar (a client of
the client plane, an orchestrator above) gives up a stream that is silent for its ``pipeline.next_token_timeout``."""

_encode = msgspec.json.Encoder().encode
_EMPTY = {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
_NOTHING_NEW = Delta("", _encode(_EMPTY).decode())


class Asking(NamedTuple):
    """What a chat asks for: the request for a deliberation, and whether its answer is the whole of it."""

    request: dict[str, Any]
    whole: bool


async def answer(kept: KeptDeliberations, task_id: str, submission: Submission) -> AsyncGenerator[Delta, None]:
    """Answer a task for a model of the service: one that stands for a deliberation, or a client's chat, whose id
    becomes that of its deliberation unless it names one. The deliberation is cancelled with the task that began it, but
    not at the orchestrator's end."""
    run, tells_whole = kept.runs.of_task(task_id), False
    if run is None:
        request, tells_whole = asked_by(task_id, submission)
        question = msgspec.structs.replace(
            kept.question(request, submission.caller), trace=submission.trace, priority=submission.priority
        )
        found = await kept.runs.take(question, task_id)
        if not isinstance(found, Run):
            if tells_whole and submission.stream:
                for update in history(found):
                    yield _progress(found.question.id, update)
            async for delta in _final(found, tells_whole):
                yield delta
            return
        run = found
        if run.parent != task_id:
            run.followers.add(task_id)
    updates = run.updates()
    newest: asyncio.Future[Update | None] | None = None
    try:
        while submission.stream:
            newest = newest or asyncio.ensure_future(anext(updates, None))
            await asyncio.wait((newest,), timeout=SILENCE_S)
            if not newest.done():
                yield _NOTHING_NEW
                continue
            new, newest = newest.result(), None
            if new is None:
                break
            if tells_whole or new.name not in ("asked", "ended"):
                yield _progress(run.shown.question.id, new)
        await asyncio.shield(run.ended)
    except BaseException:
        if not run.ended.done() and not kept.runs.closing and run.ends_with(task_id):
            # At once: its works are cancelled with the task, and are no failures of members.
            kept.runs.cancel(run, CLIENT_GONE)
        raise
    finally:
        run.followers.discard(task_id)
        await end_reading(updates, newest)
    if not run.shown.is_final:
        raise errors.ShuttingDown("the deliberation goes on in another orchestrator, or after the next start")
    async for delta in _final(run.shown, tells_whole):
        yield delta


def asked_by(task_id: str, submission: Submission) -> Asking:
    """What a chat asks for. Raises `InvalidRequest`."""
    try:
        body = msgspec.json.decode(submission.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON: {error}") from None
    given = body.get(MEMBER, {}) if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(given, dict):
        raise InvalidRequest(f"{MEMBER} must be an object with the options of a deliberation", param=MEMBER)
    options = dict(given)
    for taken in ("task", "role"):
        if taken in options and (taken != "role" or ":" in submission.model):
            raise InvalidRequest(f"{MEMBER}.{taken} is not possible in a chat: leave it out", param=MEMBER)
    form = options.pop("answer", "winner")
    if form not in ("winner", "whole"):
        raise InvalidRequest(f"{MEMBER}.answer is 'winner' or 'whole', not {str(form)[:40]!r}", param=MEMBER)
    request: dict[str, Any] = {**options, "task": _task(body.get("messages"))}
    role = submission.model.removeprefix(MODEL).removeprefix(":")
    if role:
        request["role"] = role
    if options.get("id") is None:
        request["id"] = task_id
        # Asked again by its id it must be the same request, and the time that is left is another one by then.
        if submission.deadline_s:
            request.setdefault("timeout", submission.deadline_s)
    tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    if tokens is not None:
        request.setdefault("max_tokens", tokens)
    return Asking(request, form == "whole")


def failure_of(state: Deliberation) -> AnywireError:
    """The error of one that has ended without a winner."""
    told = f"the deliberation {state.question.id} has {state.status.replace('_', ' ')}: {state.reason}"
    match state.status:
        case "cancelled":
            return errors.TaskCancelled(told)
        case "timed_out":
            return errors.DeadlineExceeded(told)
        case _:
            return errors.EngineFailed(told)


async def _final(state: Deliberation, tells_whole: bool) -> AsyncGenerator[Delta, None]:
    """The answer, once it has ended. Raises what `failure_of` makes of one without a winner, unless the whole is told,
    which says so itself."""
    if not tells_whole:
        if not state.winner or state.status not in ("completed", "degraded"):
            raise failure_of(state)
        yield Delta(newest(state, state.winner).text, "", "stop", _usage(state))
        return
    text = await asyncio.to_thread(_whole, state) if len(state.answers) >= LARGE else _whole(state)
    for piece in _pieces(text):
        yield Delta(piece)
    yield Delta("", "", "stop", _usage(state))


def _whole(state: Deliberation) -> str:
    return _encode(whole(state, BASE)).decode()


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))


def _usage(state: Deliberation) -> str:
    prompt = sum(each.prompt_tokens for each in state.answers.values())
    completion = sum(each.completion_tokens for each in state.answers.values())
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return _encode(usage).decode()


def _progress(question_id: str, update: Update) -> Delta:
    """A chunk without text, which clients that do not know the member pass over."""
    told = {"id": question_id, "number": update.number, "event": update.name, "at": update.at, **update.data}
    return Delta("", _encode({**_EMPTY, MEMBER: told}).decode())


def _task(messages: Any) -> str:
    """The text of a lone message, or the conversation with who says what."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise InvalidRequest("messages must be a list of objects", param="messages")
    said = [(str(each.get("role", "user")), _text(each.get("content"))) for each in messages]
    said = [(role, text) for role, text in said if text.strip()]
    if not said:
        raise InvalidRequest("there is no text in messages", param="messages")
    if len(said) == 1:
        return said[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in said)


def _text(content: Any) -> str:
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise InvalidRequest("a deliberation is about text alone: leave other parts out", param="messages")
        return "\n".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else ""
