"""The answers of `peers.engine` as an engine of Anywire, for agents that answer by themselves: for ``plugins``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest
from anywire.offers import offers
from peers.engine import decode_asked
from peers.workload import ANSWER, MODEL, WORDS, pace_of, token, usage_of

NAME = "at_once"
WHOLE = Delta(ANSWER, "", "stop", msgspec.json.encode(usage_of(len(WORDS))).decode())


class NoSettings(pydantic.BaseModel):
    """There is nothing to set."""


class AtOnce(Engine):
    """Answers at once, and a paced stream at its pace."""

    name: ClassVar[str] = NAME
    Config = NoSettings
    capabilities = ("chat",)

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(MODEL))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if not task.stream:
            yield WHOLE
            return
        tokens = decode_asked(task.body).tokens
        pace, loop = pace_of(tokens), asyncio.get_running_loop()
        due = loop.time()
        for _ in range(tokens):
            yield Delta(token())
            if pace:
                due += pace
                await asyncio.sleep(due - loop.time())
        yield Delta("", "", "length", msgspec.json.encode(usage_of(tokens)).decode())


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {NAME: AtOnce} if kind == "engines" else None
