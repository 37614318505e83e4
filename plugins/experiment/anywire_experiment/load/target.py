"""Where requests go: the two ways to the system have this in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from anywire_experiment.exercises.exercise import Exercise
from anywire_experiment.load.rows import Answer
from anywire_experiment.workload import Workload


class Question(msgspec.Struct):
    """A request made ready before its time. ``body`` is OpenAI's chat request, JSON."""

    model: str
    body: bytes
    stream: bool
    priority: int
    timeout_s: float
    prompt_chars: int
    tenant: str = ""
    deadline_s: float = 0.0
    exercise: Exercise | None = None


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
    model: str, messages: list[dict[str, Any]], workload: Workload, max_tokens: int, request: Mapping[str, Any]
) -> bytes:
    """A chat request of ``workload``, with the members of ``request`` over what that says; a stream is asked to tell
    its usage."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": workload.temperature,
    }
    if workload.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body | dict(request))
