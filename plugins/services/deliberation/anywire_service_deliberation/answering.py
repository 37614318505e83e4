"""A deliberation as the answer of a model: the winner's text, so that every stock client can ask for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from anywire import errors
from anywire.engine import Delta
from anywire.errors import AnywireError, InvalidRequest
from anywire.submission import Submission
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.request import MODEL
from anywire_service_deliberation.running import Run
from anywire_service_deliberation.runs import CLIENT_GONE

MEMBER = "deliberation"
"""Member of a chat's request with a deliberation's own options (``members``, ``rounds``, ``rubric`` …), and of the
chunks of its stream that tell how it goes on."""

_encode = msgspec.json.Encoder().encode


async def answer(kept: KeptDeliberations, task_id: str, submission: Submission) -> AsyncGenerator[Delta, None]:
    """Answer a task for a model of the service: one that stands for a deliberation, or a client's chat, whose id
    becomes that of its deliberation. The deliberation is cancelled with the task, but not at the orchestrator's end."""
    run = kept.runs.of_task(task_id)
    if run is None:
        question = kept.question(request_of(task_id, submission), submission.caller)
        found = await kept.runs.take(question, task_id, submission.priority)
        if not isinstance(found, Run):
            yield _final(found)
            return
        run = found
    try:
        if submission.stream:
            async with aclosing(run.updates()) as updates:
                async for update in updates:
                    if update.name not in ("asked", "ended"):
                        yield Delta("", _progress(run.shown.question.id, update))
        await asyncio.shield(run.ended)
    except BaseException:
        if not run.ended.done() and not kept.runs.closing:
            kept.runs.cancel(run, CLIENT_GONE)
        raise
    if not run.shown.is_final:
        raise errors.ShuttingDown("the orchestrator shuts down: the deliberation goes on after its next start")
    yield _final(run.shown)


def request_of(task_id: str, submission: Submission) -> dict[str, Any]:
    """The request for a deliberation that a chat stands for. Raises `InvalidRequest`."""
    try:
        body = msgspec.json.decode(submission.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON: {error}") from None
    options = body.get(MEMBER, {}) if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(options, dict):
        raise InvalidRequest(f"{MEMBER} must be an object with the options of a deliberation", param=MEMBER)
    for taken in ("task", "id", "role"):
        if taken in options and (taken != "role" or ":" in submission.model):
            raise InvalidRequest(f"{MEMBER}.{taken} is not possible in a chat: leave it out", param=MEMBER)
    request: dict[str, Any] = {**options, "id": task_id, "task": _task(body.get("messages"))}
    role = submission.model.removeprefix(MODEL).removeprefix(":")
    if role:
        request["role"] = role
    if submission.deadline_s:
        request.setdefault("timeout", submission.deadline_s)
    tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    if tokens is not None:
        request.setdefault("max_tokens", tokens)
    return request


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


def _final(state: Deliberation) -> Delta:
    if not state.winner or state.status not in ("completed", "degraded"):
        raise failure_of(state)
    prompt = sum(each.prompt_tokens for each in state.answers.values())
    completion = sum(each.completion_tokens for each in state.answers.values())
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return Delta(newest(state, state.winner).text, "", "stop", _encode(usage).decode())


def _progress(question_id: str, update: Update) -> str:
    """A chunk without text, which clients that do not know the member pass over."""
    told = {"id": question_id, "number": update.number, "event": update.name, **update.data}
    return _encode({"choices": [{"index": 0, "delta": {}, "finish_reason": None}], MEMBER: told}).decode()


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
