"""The engine ``recording``: another engine, whose answers are written to a file for the engine ``recorded``.

An answer is in the file before its client has the end of it. One that fails, is cancelled, or goes on from a text is
not written. Where the file cannot be written the task fails: a record with gaps is worth little.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pydantic

from anywire.clock import SystemClock
from anywire.engine import Create, Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import TaskRequest
from anywire.recorded_answers import AnswerFile, RecordedAnswer, RecordedDelta, request_of

log = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 32 * 1024 * 1024
"""Characters of the longest answer that is recorded."""


class RecordedInner(pydantic.BaseModel):
    """Further members are the engine's own settings."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str = pydantic.Field(min_length=1, description="Engine that answers.")


class RecordingConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    file: Path = pydantic.Field(description="File that answers are added to.")
    inner: RecordedInner = pydantic.Field(
        default=RecordedInner(name="synthetic"),
        description="Engine that answers: its name, or `name` and the settings of that engine beside it.",
    )

    @pydantic.field_validator("inner", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class RecordingEngine(Engine):
    name: ClassVar[str] = "recording"
    Config = RecordingConfig
    config: RecordingConfig

    def __init__(self, config: RecordingConfig) -> None:
        super().__init__(config)
        self.clock = SystemClock()
        self.written = 0
        """Answers that were written since the start."""
        self._inner: Engine | None = None
        self._file = AnswerFile(config.file)

    def assemble(self, create: Create) -> None:
        inner = self.config.inner
        if inner.name == self.name:
            raise ConfigError("engine.inner must be another engine than recording: the one that answers")
        self.stand_around(create(inner.name, inner.model_extra or {}, "engine.inner"))

    def stand_around(self, inner: Engine) -> None:
        """Record what this engine answers."""
        self._inner = inner
        self.capabilities = tuple(inner.capabilities)

    @property
    def inner(self) -> Engine:
        if self._inner is None:
            raise ConfigError("the engine recording was made without its inner engine")
        return self._inner

    async def start(self, changed: Callable[[], None]) -> None:
        await self.inner.start(changed)

    async def close(self) -> None:
        if self._inner is not None:
            await self._inner.close()

    def status(self) -> EngineStatus:
        return self.inner.status()

    def resumable(self, task: TaskRequest) -> bool:
        return self.inner.resumable(task)

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        return self.inner.command(name, arguments)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        request = request_of(task.body) if not task.resume else None
        began, size = self.clock.now(), 0
        deltas: list[RecordedDelta] = []
        async with contextlib.aclosing(self.inner.run(task)) as answer:
            async for step in answer:
                if isinstance(step, Delta) and request is not None and size <= MAX_ANSWER_CHARS:
                    after_ms = round((self.clock.now() - began) * 1000, 3)
                    *first, last = step.parts or (step.text,)
                    deltas += [RecordedDelta(text, after_ms=after_ms) for text in first]
                    deltas.append(RecordedDelta(last, step.extra, step.finish_reason, step.usage, after_ms))
                    size += len(step.text) + len(step.extra)
                yield step
        if request is None or size > MAX_ANSWER_CHARS:
            if not task.resume:
                what = "its body is no JSON object of at most 1 MiB" if request is None else "it is too long"
                log.warning("the answer to a %s of %r is not recorded: %s", task.kind, task.model[:80], what)
        else:
            recorded = RecordedAnswer(task.kind, task.model, request, tuple(deltas), task.stream)
            try:
                await asyncio.to_thread(self._file.append, recorded)
            except (OSError, ValueError) as error:
                raise EngineFailed(f"the answer cannot be written to {self.config.file}: {error}") from error
            self.written += 1
