"""What is kept of a background task, and how it is written."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from anywire.messages import Chunk
from anywire.submission import Submission


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task ended: a chunk, or an error as it travels (`anywire.errors.to_wire`)."""

    chunk: Chunk | None = None
    error: str = ""
    model: str = ""
    agent_id: str = ""
    transport: str = ""
    attempts: int = 0
    ignored: tuple[str, ...] = ()


class Kept(NamedTuple):
    """One task. ``starts`` is how often it was given to the pipeline; ``received`` and ``ended`` are Unix times in
    seconds, ``ended`` is 0 and ``answer`` None before its end."""

    task_id: str
    submission: Submission
    received: float
    starts: int
    ended: float
    answer: Answer | None


class Left(NamedTuple):
    """A task that has not ended, without its body. ``due`` is the Unix time of its deadline, 0 when it has none;
    ``attempts`` is how often this process has sent it."""

    task_id: str
    model: str
    caller_id: str
    received: float
    due: float
    attempts: int = 0


_encode = msgspec.msgpack.Encoder().encode
_submission = msgspec.msgpack.Decoder(Submission)
_answer = msgspec.msgpack.Decoder(Answer)
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What `read_submission` and `read_answer` raise for what they cannot read."""


def left(task_id: str, submission: Submission, received: float) -> Left:
    due = received + submission.deadline_s if submission.deadline_s else 0.0
    return Left(task_id, submission.model, submission.caller.id, received, due)


def encoded_submission(submission: Submission) -> bytes:
    """Raises `UnicodeEncodeError` for text that has half a character."""
    return _encode(msgspec.structs.replace(submission, hints=dict(submission.hints)))


def encoded_answer(answer: Answer) -> bytes:
    """Raises `UnicodeEncodeError` for text that has half a character."""
    return _encode(answer)


def read_submission(data: bytes) -> Submission:
    return _submission.decode(data)


def read_answer(data: bytes) -> Answer:
    return _answer.decode(data)
