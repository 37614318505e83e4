"""What an engine answers as Ollama tells it, whole or line by line: pure functions of chunks and times."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from anywire.messages import Chunk
from anywire_gateway_openai.answers import encodable
from anywire_gateway_openai.first_choice import (
    CallNumbers,
    call_id,
    called,
    first_choices,
    piece_of,
    token_counts,
)
from anywire_gateway_openai.ollama.messages import Object
from anywire_gateway_openai.sse import one_line

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_THOUGHT = ("reasoning_content", "reasoning")
"""Members in which servers tell what a model thought; there is no standard for it."""
UNREADABLE = "unreadable"
"""The one argument of a call whose arguments are no JSON object: their text."""


class Step(NamedTuple):
    """What one line tells."""

    text: str = ""
    thought: str = ""
    logprobs: tuple[Object, ...] = ()


class Answer:
    """Takes the chunks of an answer in order. ``finish`` is why it ends, empty as long as it does not."""

    def __init__(self) -> None:
        self.finish = ""
        self._calls: dict[int, _Call] = {}
        self._numbers = CallNumbers()

    def add(self, chunk: Chunk) -> list[Step]:
        """What a chunk says, without the calls of tools. Raises `StreamCorrupted`."""
        self.finish = chunk.finish_reason or self.finish
        if not chunk.extra:
            return [Step(encodable(text)) for text in chunk.deltas if text]
        steps = []
        for choice in first_choices(chunk.extra):
            piece = piece_of(choice)
            self.finish = self.finish or str(choice.get("finish_reason") or "")
            thought = next((text for name in _THOUGHT if isinstance(text := piece.get(name), str) and text), "")
            said = next((text for text in _texts(choice, piece) if isinstance(text, str) and text), "")
            step = Step(encodable(said), encodable(thought), tuple(_logprobs(choice.get("logprobs"))))
            if any(step):
                steps.append(step)
            calls = piece.get("tool_calls")
            found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
            for call, number in zip(found, self._numbers.of(found), strict=True):
                self._call(call, number)
        return steps

    def calls(self) -> list[Object]:
        """The calls of tools, each with its arguments as an object."""
        return [call.whole(at) for at, call in enumerate(self._calls.values())]

    def _call(self, given: Mapping[str, Any], number: int) -> None:
        call, name, own_id = self._calls.setdefault(number, _Call()), called(given), call_id(given)
        if not own_id or own_id != call.id or name != call.name:  # else it says the same again
            call.name += name
        call.id = call.id or own_id
        function = given.get("function")
        if isinstance(function, dict):
            arguments = function.get("arguments")
            # Some servers send the object, and not its text.
            call.arguments += arguments if isinstance(arguments, str) else _text(arguments) if arguments else ""


class _Call:
    def __init__(self) -> None:
        self.id = self.name = self.arguments = ""

    def whole(self, at: int) -> Object:
        function: Object = {"index": at, "name": self.name, "arguments": self._read()}
        return {"id": self.id, "function": function} if self.id else {"function": function}

    def _read(self) -> Object:
        if not self.arguments.strip():
            return {}
        try:
            read = _decode(self.arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            read = None
        return read if isinstance(read, dict) else {UNREADABLE: self.arguments}


class Form(NamedTuple):
    """How one of the two endpoints tells its answer: under ``message`` of a chat, or ``response``."""

    is_chat: bool

    def said(self, text: str, thought: str, calls: list[Object]) -> Object:
        thinking = {"thinking": thought} if thought else {}
        told = {"tool_calls": calls} if calls else {}
        if self.is_chat:
            return {"message": {"role": "assistant", "content": text, **thinking, **told}}
        return {"response": text, **thinking, **told}


CHAT, GENERATED = Form(True), Form(False)


class Lines:
    """Makes the lines of one streamed answer of ``model``, whose request came at ``began_ns``; ``ended`` once the last
    one is made."""

    def __init__(self, form: Form, model: str, began_ns: int) -> None:
        self.ended = False
        self._form, self._model, self._began_ns = form, model, began_ns
        self._answer = Answer()

    def encode(self, chunks: list[Chunk]) -> bytes:
        """The lines of these chunks, which have come just now."""
        return b"".join([self.lines(chunk, time.monotonic_ns()) for chunk in chunks])

    def lines(self, chunk: Chunk, now_ns: int) -> bytes:
        """The lines of a chunk. Raises `StreamCorrupted`."""
        out = [self._line(step) for step in self._answer.add(chunk)]
        if chunk.final:
            self.ended = True
            calls = self._answer.calls()
            if calls:
                out.append(self._line(Step(), calls))
            ending = ending_of(chunk, self._answer.finish, now_ns - self._began_ns)
            out.append(line({**self._head(), **self._form.said("", "", []), **ending}))
        return b"".join(out)

    def silence(self) -> bytes:
        """A line that says nothing, for a client or proxy that would not wait without any."""
        return self._line(Step())

    def _line(self, step: Step, calls: list[Object] | None = None) -> bytes:
        told = {**self._head(), **self._form.said(step.text, step.thought, calls or []), "done": False}
        return line({**told, "logprobs": step.logprobs} if step.logprobs else told)

    def _head(self) -> Object:
        return {"model": self._model, "created_at": now_text()}


def whole(form: Form, model: str, chunk: Chunk, taken_ns: int) -> bytes:
    """A whole answer, ``taken_ns`` after its request. Raises `StreamCorrupted`."""
    answer = Answer()
    steps = answer.add(chunk)
    said = form.said("".join([each.text for each in steps]), "".join([each.thought for each in steps]), answer.calls())
    told = {"model": model, "created_at": now_text(), **said, **ending_of(chunk, answer.finish, taken_ns)}
    logprobs = [each for step in steps for each in step.logprobs]
    return line({**told, "logprobs": logprobs} if logprobs else told)


def ending_of(chunk: Chunk, finish: str, taken_ns: int) -> Object:
    """How an answer has ended, its tokens, and how long it took, in nanoseconds. Raises `StreamCorrupted`."""
    counts = token_counts(chunk.usage)
    ending: Object = {
        "done": True,
        "done_reason": "stop" if finish in ("", "tool_calls", "function_call") else finish,
        "total_duration": taken_ns,
        "load_duration": _between(chunk.received_ns, chunk.started_ns),
        "prompt_eval_duration": _between(chunk.started_ns, chunk.first_ns),
        "eval_duration": _between(chunk.first_ns, chunk.last_ns),
    }
    if counts is not None:
        ending |= {"prompt_eval_count": counts.given, "eval_count": counts.made}
    return ending


def line(told: Mapping[str, Any]) -> bytes:
    """A line of JSON."""
    return one_line(_text(told).encode()) + b"\n"


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _texts(choice: Mapping[str, Any], piece: Mapping[str, Any]) -> Iterator[object]:
    """Where the text of a choice may be: a chat's, a refusal, a completion's."""
    yield from (piece.get("content"), piece.get("refusal"), choice.get("text"))


def _logprobs(given: object) -> Iterator[Object]:
    """The log probabilities of a chat's tokens, or of a completion's."""
    if not isinstance(given, dict):
        return
    content = given.get("content")
    if isinstance(content, list):
        yield from (each for each in content if isinstance(each, dict))
        return
    tokens, values, others = (given.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if isinstance(tokens, list) and isinstance(values, list):
        for at, (token, value) in enumerate(zip(tokens, values, strict=False)):
            told: Object = {"token": token, "logprob": value}
            top = others[at] if isinstance(others, list) and at < len(others) else None
            if isinstance(top, dict):
                told["top_logprobs"] = [{"token": name, "logprob": each} for name, each in top.items()]
            yield told


def _between(begin_ns: int, end_ns: int) -> int:
    return max(0, end_ns - begin_ns) if begin_ns and end_ns else 0


def _text(value: object) -> str:
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value)
