"""Clients of 100 tenants: what they ask for, how they read it, and what they have seen at the end."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import suppress

from tests.simulation.agents import MODELS

from anywire import errors
from anywire.caller import OPERATOR, Caller, Limits
from anywire.messages import Chunk
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.clock import SimulatedClock

TENANTS = 100
READERS = {
    "reads": 81.0,
    "reads_slowly": 6.0,
    "cancels": 4.0,
    "is_cancelled": 2.0,
    "stops_reading": 4.0,
    "is_followed": 3.0,
}
READER_TIMEOUT = 2.0


def _caller(number: int) -> Caller:
    limits = Limits(concurrency=20) if number % 10 == 0 else Limits()
    if number % 10 == 1:
        limits = Limits(requests_per_minute=600, tokens_per_day=10**9, max_priority=1)
    return Caller(f"key{number}", f"tenant{number}", limits=limits)


CALLERS = [_caller(number) for number in range(TENANTS)]
WEIGHTS = [1 / (1 + number) for number in range(TENANTS)]
"""Few of them send much."""
BEGINNINGS = [f"You are assistant {number}. ".ljust(1500, "x") for number in range(40)]


class Client:
    """One task, from its submission to what its reader has seen: ``texts``, and the error's code, empty for an answer,
    None before the end."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number, self.length = number, min(40, 1 + int(rng.expovariate(1 / 5)))
        self.task_id = f"t{number}.{self.length}"
        (self.way,) = rng.choices(list(READERS), list(READERS.values()))
        self.pause = rng.expovariate(1 / 0.3)
        self.submission = self._submission(rng)
        self.texts: list[str] = []
        self.followed: list[str] = []
        self.end: str | None = None

    def _submission(self, rng: random.Random) -> Submission:
        (caller,) = rng.choices(CALLERS, WEIGHTS)
        model, *more = rng.sample(MODELS, rng.choice([1, 1, 1, 2]))
        beginning = rng.choice(BEGINNINGS) if rng.random() < 0.3 else ""
        asked = rng.choice(["", f',"max_tokens":{self.length}'])
        models = f',"models":["{more[0]}"]' if more else ""
        text = f"{beginning}{'q' * int(rng.paretovariate(1.2) * 20 % 2000)}"
        return Submission(
            "chat",
            model,
            f'{{"messages":[{{"role":"user","content":"{text}"}}]{asked}{models}}}',
            rng.random() < 0.6,
            rng.choice([0, 0, 0, 0, 1, -1, 5, -5]),
            rng.choice([0.0, 0.0, 0.0, rng.uniform(0.05, 5.0), 20.0]),
            caller=caller,
            session=f"s{rng.randrange(50)}" if rng.random() < 0.4 else "",
            hints={"urgency": rng.random(), "complexity": rng.random()} if rng.random() < 0.2 else {},
            prefer=(f"a{rng.randrange(12)}",) if rng.random() < 0.05 else (),
            avoid=(f"a{rng.randrange(12)}",) if rng.random() < 0.05 else (),
        )

    @property
    def expected(self) -> str:
        """The whole answer."""
        return "".join(f"{number};" for number in range(self.length))

    def fault(self) -> str:
        """What is wrong with what the reader, and who follows, has seen; empty when nothing is."""
        text = "".join(self.texts)
        if self.end == "" and text != self.expected:
            return f"the answer is {text!r}"
        if not self.expected.startswith(text):
            return f"the reader was shown {text!r} before {self.end}"
        followed = "".join(self.followed)
        if self.way == "is_followed" and followed and followed != text:
            return f"who follows was shown {followed!r}, and the reader {text!r}"
        return ""

    async def read(self, stream: TaskStream, clock: SimulatedClock) -> None:
        """Read to the end, and beyond it: nothing more comes."""
        if self.way == "stops_reading":
            await clock.sleep(10 * READER_TIMEOUT)
        try:
            while chunks := await stream.take():
                for chunk in chunks:
                    self.texts.extend(chunk.deltas)
                if chunks[-1].final:
                    break
                if self.way == "reads_slowly":
                    await clock.sleep(self.pause / 3)
            else:
                self.end = "a stream that ended without a final chunk"
                return
        except errors.AnywireError as error:
            self.end = error.code
            with suppress(errors.AnywireError):
                if await stream.take():
                    self.end = "something after its error"
            return
        self.end = ""
        if await stream.take():
            self.end = "something after the final chunk"

    def act(self, stream: TaskStream, orchestrator: Orchestrator, clock: SimulatedClock) -> None:
        """Set about what it does beside reading."""
        if self.way == "cancels":
            clock.call_later(self.pause, stream.cancel, "the client has gone")
        elif self.way == "is_cancelled":
            by = OPERATOR if self.number % 2 else self.submission.caller
            clock.call_later(self.pause, orchestrator.cancel, self.task_id, "by its id", by)

    async def follow(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        """Follow the task, from its beginning."""
        with suppress(errors.AnywireError):
            async for chunk in chunks:
                self.followed.extend(chunk.deltas)
