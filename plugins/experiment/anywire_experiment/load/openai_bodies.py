"""What the bodies of OpenAI's API say, as far as it is looked at."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire_experiment.load.rows import Answer
from anywire_experiment.plan.traffic import LONGEST_ANSWER


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta = msgspec.field(default_factory=Delta)
    message: Delta = msgspec.field(default_factory=Delta)
    finish_reason: Any = None


class Usage(msgspec.Struct):
    """What an answer says of its length, -1 when it does not."""

    completion_tokens: int = -1


class Event(msgspec.Struct):
    """A piece of a stream, or a whole answer."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: dict[str, Any] | None = None


class Model(msgspec.Struct):
    id: str
    agents: Any = 1


class Models(msgspec.Struct):
    data: list[Model]


event_of = msgspec.json.Decoder(Event).decode
models_of = msgspec.json.Decoder(Models).decode


def read_whole(answer: Answer, body: bytes) -> None:
    """Fill ``answer`` with what a body says that is no stream."""
    try:
        said = event_of(body)
    except msgspec.DecodeError:
        answer.outcome = "bad_json"
        return
    answer.text = "".join(choice.message.content or "" for choice in said.choices)
    answer.tokens = counted(said.usage)


def counted(usage: Usage | None) -> int:
    """The tokens of an answer, -1 where nothing that can be was said."""
    return usage.completion_tokens if usage is not None and 0 <= usage.completion_tokens <= LONGEST_ANSWER else -1


def error_code(body: bytes) -> str:
    """The code of an error, or its type; empty when the body is none."""
    try:
        error = event_of(body).error or {}
    except msgspec.DecodeError:
        return ""
    return str(error.get("code") or error.get("type") or "")
