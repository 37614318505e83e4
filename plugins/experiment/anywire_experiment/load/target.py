"""Where requests go: the two ways to the system have this in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from anywire_experiment.exercises.exercise import Exercise
from anywire_experiment.load.rows import Answer
from anywire_experiment.plan.traffic import CANCELLED
from anywire_experiment.plan.workload import Workload


class Question(msgspec.Struct):
    """A request made ready before its time. ``body`` is OpenAI's chat request, JSON. Its client gives it up
    ``give_up_s`` after sending, or once ``give_up_pieces`` of a stream are there; 0 for never. ``session`` and ``turn``
    are numbers from 0, None where it depends on no other one; ``session_name`` is what the system is told."""

    model: str
    body: bytes
    stream: bool
    priority: int
    timeout_s: float
    prompt_chars: int
    tenant: str = ""
    deadline_s: float = 0.0
    exercise: Exercise | None = None
    give_up_s: float = 0.0
    give_up_pieces: int = 0
    session: int | None = None
    turn: int | None = None
    session_name: str = ""

    @property
    def is_given_up(self) -> bool:
        return bool(self.give_up_s or self.give_up_pieces)

    @property
    def patience_s(self) -> float:
        """Seconds until its client gives it up, or it counts as failed."""
        return min(self.timeout_s, self.give_up_s or self.timeout_s)

    def ended_early(self) -> str:
        """The outcome of an answer that was not there in time."""
        return CANCELLED if 0 < self.give_up_s <= self.timeout_s else "timeout"


class Target(ABC):
    """The system as its clients see it."""

    @abstractmethod
    async def first_model(self) -> str:
        """Raises `anywire.errors.AnywireError` when the system offers none."""

    @abstractmethod
    async def connect(self, clients: int) -> None:
        """Have connections ready for so many clients, so that no measured request pays for one."""

    @abstractmethod
    async def ask(self, question: Question) -> Answer:
        """Send it and read all of the answer. A failure is an answer too: never raises but when cancelled."""

    @abstractmethod
    async def close(self) -> None: ...


def chat(
    model: str,
    messages: list[dict[str, Any]],
    workload: Workload,
    max_tokens: int,
    request: Mapping[str, Any],
    stream: bool | None = None,
) -> bytes:
    """A chat request of ``workload``, with the members of ``request`` over what that says; a stream is asked to tell
    its usage. ``stream`` goes before what the workload says."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": workload.temperature,
    }
    if workload.stream if stream is None else stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body | dict(request))
