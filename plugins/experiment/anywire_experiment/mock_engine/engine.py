"""The pace of the mock engine: slots in the order of requests, and each token at its time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple, Protocol

from anywire_experiment.mock_engine.answers import Asked, Text


class Pace(NamedTuple):
    """Seconds to the first token and from token to token, requests that are answered at once, 0 for any number, and
    seconds to an answer that is asked for whole, None for as long as its tokens take."""

    first: float
    each: float
    slots: int = 0
    whole: float | None = None


class Reader(Protocol):
    """Who asked."""

    paused: bool
    """It takes no more for now."""

    def send(self, data: bytes) -> None: ...
    def end(self, data: bytes) -> None: ...


class Engine:
    """Gives slots to requests in the order in which they came."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._busy = 0
        self._waiting: deque[Answer] = deque()

    def enter(self, answer: Answer) -> None:
        if self.pace.slots and self._busy >= self.pace.slots:
            self._waiting.append(answer)
            return
        self._busy += 1
        answer.begin()

    def leave(self, answer: Answer) -> None:
        """It is over, or nobody reads it any more."""
        if not answer.began:
            self._waiting.remove(answer)
            return
        self._busy -= 1
        if self._waiting:
            self._busy += 1
            self._waiting.popleft().begin()


class Answer:
    """One answer under way."""

    def __init__(self, reader: Reader, asked: Asked, pace: Pace) -> None:
        self._reader, self._pace = reader, pace
        self._stream, self._text = bool(asked.stream), Text(asked)
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.Handle | None = None
        self.began = False

    def begin(self) -> None:
        self.began = True
        pace, now = self._pace, self._loop.time()
        self._due = now + pace.first
        if not self._stream:
            self._due = now + pace.whole if pace.whole is not None else self._due + pace.each * (self._text.tokens - 1)
        self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def go_on(self) -> None:
        """Its reader takes more again."""
        if self.began and self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_at(self._due, self._next)

    def _next(self) -> None:
        self._timer = None
        if not self._stream:
            self._reader.end(self._text.whole())
            return
        first = self._text.begin() if self._text.is_new else b""
        self._reader.send(first + self._text.token())
        if self._text.is_over:
            self._reader.end(self._text.end())
            return
        self._due += self._pace.each
        if not self._reader.paused:
            self._wait()
