"""An engine's answer in OpenAI's form, whole and as events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.extra import split
from anywire_engine_models.local_api.writing import event, json_of

DONE = b"data: [DONE]\n\n"
_HEAD = frozenset(("id", "object", "created", "model", "choices", "usage"))


class AnswerForm:
    """Puts the deltas of one chat answer into OpenAI's form. Each method raises `EngineFailed` for what the engine says
    as JSON and is none."""

    def __init__(self, task_id: str, model: str, *, include_usage: bool = False) -> None:
        self._head: dict[str, Any] = {"id": f"chatcmpl-{task_id}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._introduced: set[int] = set()
        """The choices whose role has been said."""
        self._finished = False
        self._usage: Any = None

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        """The answer of a request that is not streamed."""
        choices: list[dict[str, Any]] = []
        others: dict[str, Any] = {}
        for delta in deltas:
            self._note_usage(delta)
            if delta.extra:
                choices, others = _parts(delta.extra)
        if not choices:
            text = "".join(delta.text for delta in deltas)
            reason = next((delta.finish_reason for delta in reversed(deltas) if delta.finish_reason), "stop")
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}]
        told = {**self._head, "object": "chat.completion", "choices": choices, **_beside(others)}
        return json_of(told if self._usage is None else told | {"usage": self._usage})

    def event(self, delta: Delta) -> bytes:
        """The event of one step of a streamed answer, or the events of its parts; empty where the step says nothing to
        a client."""
        if delta.parts and not delta.extra:
            *first, last = delta.parts
            alone = msgspec.structs.replace(delta, text=last, parts=())
            return b"".join([self.event(each) for each in (*map(Delta, first), alone)])
        self._note_usage(delta)
        if delta.extra:
            choices, others = _parts(delta.extra)
        elif delta.text or delta.finish_reason:
            said = {"content": delta.text} if delta.text else {}
            choices, others = [{"index": 0, "delta": said, "finish_reason": delta.finish_reason or None}], {}
        else:
            return b""
        return self._event([self._choice(choice) for choice in choices], others) if choices else b""

    def last(self) -> bytes:
        """The events that end a stream."""
        out = b"" if self._finished else self._event([self._choice({"index": 0, "delta": {}, "finish_reason": "stop"})])
        if self._include_usage and self._usage is not None:
            out += self._event([], {}, {"usage": self._usage})
        return out + DONE

    def _event(
        self, choices: list[dict[str, Any]], others: dict[str, Any] | None = None, usage: dict[str, Any] | None = None
    ) -> bytes:
        told = {**self._head, "object": "chat.completion.chunk", "choices": choices, **_beside(others or {})}
        return event(json_of({**told, **(usage or {})}))

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The role is said in the first delta of each choice, and only there."""
        index = choice.get("index", 0)
        delta = {name: value for name, value in (choice.get("delta") or {}).items() if name != "role"}
        if index not in self._introduced:
            self._introduced.add(index)
            delta = {"role": "assistant", **delta}
        self._finished |= index == 0 and bool(choice.get("finish_reason"))
        return choice | {"delta": delta}

    def _note_usage(self, delta: Delta) -> None:
        if delta.usage:
            try:
                self._usage = msgspec.json.decode(delta.usage)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise EngineFailed(f"the engine told usage that cannot be read: {error}") from error


def _parts(extra: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    try:
        choices, others = split(extra)
        if not all(isinstance(each, dict) for each in choices):
            raise msgspec.DecodeError("a choice is no object")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EngineFailed(f"the engine told choices that cannot be read: {error}") from error
    return choices, others


def _beside(others: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in others.items() if name not in _HEAD}
