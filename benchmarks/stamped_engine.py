"""An engine whose tokens tell when they were made, for `budget.py`; a plugin file (``plugins: [stamped_engine.py]``).

A token is ``@`` and the microsecond of the monotonic clock, which all processes of a machine share. The model ``paced``
makes one each 5 ms, every other model all of them at once. Whole answers are always the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest
from anywire.offers import offers

BURST, PACED = "burst", "paced"
PACE = 0.005
"""Seconds between two tokens of the model ``paced``."""
ANSWER = " ".join(f"word{number}" for number in range(20))
USAGE = '{"prompt_tokens":75,"completion_tokens":20,"total_tokens":95}'


class _Body(msgspec.Struct):
    max_tokens: int = 20


_decode = msgspec.json.Decoder(_Body).decode
_READY = EngineStatus("ready", offers(BURST, PACED))


def stamp() -> str:
    return f"@{time.perf_counter_ns() // 1000} "


class _NoConfig(pydantic.BaseModel):
    pass


class StampedEngine(Engine):
    name: ClassVar[str] = "stamped"
    Config = _NoConfig

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return _READY

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if not task.stream:
            yield Delta(ANSWER, "", "stop", USAGE)
            return
        pace = PACE if task.model == PACED else 0.0
        due = time.perf_counter()
        for _ in range(_decode(task.body).max_tokens):
            if pace:
                due += pace
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            yield Delta(stamp())
        yield Delta("", "", "length", USAGE)


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {StampedEngine.name: StampedEngine} if kind == "engines" else None
