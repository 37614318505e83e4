"""Asking an agent of the predecessor: a POST to its ``/chat``, and what it may answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import aiohttp
import msgspec

from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest

PASSED_ON = ("messages", "max_tokens", "temperature", "top_p", "stop")
MAX_QUOTED = 200
"""Characters of an agent's answer that an error shows."""
_object = msgspec.json.Decoder(dict[str, Any])


class Unreachable(Exception):
    """The agent takes no connection: it has got nothing."""


class Answered(NamedTuple):
    """``usage`` is JSON text, empty where the agent tells none."""

    text: str
    finish_reason: str
    usage: str


async def ask(session: aiohttp.ClientSession, url: str, task: TaskRequest, timeout: float, limit: int) -> Answered:
    """Ask for a chat. Raises `Unreachable`, `InvalidRequest`, and `EngineFailed` for everything that goes wrong after
    the agent was reached."""
    try:
        async with session.post(
            f"{url}/chat",
            json=_request(task),
            timeout=aiohttp.ClientTimeout(total=timeout, connect=min(timeout, 5.0)),
            allow_redirects=False,
        ) as response:
            data = await _read(response, limit)
            status = response.status
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unreachable(str(error)) from error
    except TimeoutError as error:
        raise EngineFailed(f"the agent did not answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise EngineFailed(f"the agent did not answer: {error or type(error).__name__}") from error
    return answered(data, status)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    data = bytearray()
    while chunk := await response.content.readany():
        data += chunk
        if len(data) > limit:
            raise EngineFailed(f"the agent's answer has more than {limit} bytes (max_message_bytes)")
    return bytes(data)


def _request(task: TaskRequest) -> dict[str, Any]:
    try:
        body = _object.decode(task.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON object: {error}", status=400) from error
    asked = {name: body[name] for name in PASSED_ON if body.get(name) is not None}
    if body.get("max_completion_tokens") is not None:
        asked["max_tokens"] = body["max_completion_tokens"]
    return asked | {"model": task.model, "task_id": task.task_id, "stream": False}


def answered(data: bytes, status: int) -> Answered:
    """What an agent has answered: ``response``, ``content`` or ``text``, or a chat completion in OpenAI's form. Raises
    `EngineFailed` for an error, and for what is none of these."""
    try:
        found = _object.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EngineFailed(f"the agent answered {status} with what is no JSON object: {_quoted(data)}") from error
    told = found.get("error") or found.get("error_message")
    if status >= 400 or told or found.get("success") in (False, 0):
        reason = told.get("message") if isinstance(told, dict) else told
        raise EngineFailed(f"the agent says: {str(reason or _quoted(data))[:MAX_QUOTED]}", status=status)
    text: object = None
    reason = found.get("finish_reason")
    for name in ("response", "content", "text"):
        if isinstance(found.get(name), str):
            text = found[name]
            break
    else:
        try:
            choice = found["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            reason = choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            pass
    if not isinstance(text, str):
        raise EngineFailed(f"the agent answered without a text: {_quoted(data)}")
    return Answered(text, "length" if reason == "length" else "stop", _usage(found))


def _usage(found: dict[str, Any]) -> str:
    usage = found.get("usage")
    told = usage if isinstance(usage, dict) else found
    counts = [told.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (
        each if isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31 else 0 for each in counts
    )
    if not prompt and not completion:
        return ""
    total = prompt + completion
    return f'{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}'


def _quoted(data: bytes) -> str:
    return repr(data[:MAX_QUOTED].decode(errors="replace"))
