"""The engine ``noted``: the synthetic one, which writes down each task that it begins and ends; a plugin file for tests
between processes."""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest


class Note(msgspec.Struct, frozen=True):
    """``hub`` is another one in each life of an orchestrator; ``session`` names the question and its member; ``pid`` is
    the agent's. A task has ended for its agent before its last word is sent."""

    what: Literal["begun", "ended"]
    hub: str
    tenant: str
    session: str
    task: str
    pid: int

    @property
    def question(self) -> str:
        return self.session.rpartition("/")[0]

    @property
    def member(self) -> str:
        return self.session.rpartition("/")[2]


class NotedConfig(SyntheticConfig):
    notes: Path


class NotedEngine(SyntheticEngine):
    name: ClassVar[str] = "noted"
    Config = NotedConfig  # type: ignore[assignment]
    config: NotedConfig

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        self._note("begun", task)
        async with aclosing(super().run(task)) as deltas:
            async for delta in deltas:
                if isinstance(delta, Delta) and delta.finish_reason:
                    self._note("ended", task)
                yield delta

    def _note(self, what: Literal["begun", "ended"], task: TaskRequest) -> None:
        note = Note(what, task.hub_id, task.tenant, task.session, task.task_id, os.getpid())
        # One write to a file that is open for appending: the lines of several agents do not mix.
        with self.config.notes.open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(note) + b"\n")


def read_notes(path: Path) -> list[Note]:
    """All that is written there, the earliest first."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Note) for line in lines]


@hookimpl
def anywire_register(kind: str) -> dict[str, Any] | None:
    return {"noted": NotedEngine} if kind == "engines" else None
