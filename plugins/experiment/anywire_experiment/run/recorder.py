"""Hooks in the orchestrator of a cell: every ended task with its stages, and agents that join and are lost.

Loaded through ``plugins: [anywire_experiment.run.recorder]``; writes JSON lines to the file that the environment
variable ``ANYWIRE_EXPERIMENT_RECORD`` names. A task costs one encoding into a buffer; the file is written when that is
full, when an agent comes or goes, and at the end of the process.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Literal

import msgspec
import pluggy

from anywire.hookspecs import PROJECT
from anywire.selector import AgentView
from anywire.stages import TaskRecord

VARIABLE = "ANYWIRE_EXPERIMENT_RECORD"
_FULL = 256 * 1024
_END = b"{}\n"

hookimpl = pluggy.HookimplMarker(PROJECT)


class AgentChange(msgspec.Struct, frozen=True):
    """An incarnation of an agent became known, or was lost, in CLOCK_MONOTONIC ns."""

    what: Literal["agent_joined", "agent_lost"]
    at_ns: int
    agent: str
    detail: str = ""


class Recorder:
    """Appends what it is told to a file that `read` reads."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._buffer = bytearray()
        self._encode_into = msgspec.json.Encoder().encode_into

    def add(self, what: TaskRecord | AgentChange) -> None:
        buffer = self._buffer
        self._encode_into(what, buffer, -1)
        buffer += b"\n"
        if len(buffer) >= _FULL:
            self.flush()

    def flush(self) -> None:
        """Raises OSError, as of a full disk."""
        while self._buffer:
            del self._buffer[: os.write(self._file, self._buffer)]

    def close(self) -> None:
        """Write the rest, and last the mark that all of it is there."""
        self._buffer += _END
        self.flush()


_recorder = Recorder(os.environ[VARIABLE]) if VARIABLE in os.environ else None
if _recorder is not None:
    atexit.register(_recorder.close)


@hookimpl
def anywire_task_finished(record: TaskRecord) -> None:
    if _recorder is not None:
        _recorder.add(record)


@hookimpl
def anywire_agent_joined(agent: AgentView) -> None:
    _note("agent_joined", agent.agent_id)


@hookimpl
def anywire_agent_lost(agent: AgentView, reason: str) -> None:
    _note("agent_lost", agent.agent_id, reason)


def _note(what: Literal["agent_joined", "agent_lost"], agent_id: str, reason: str = "") -> None:
    if _recorder is not None:
        _recorder.add(AgentChange(what, time.monotonic_ns(), agent_id, reason))
        _recorder.flush()


def read(path: Path) -> tuple[list[TaskRecord], list[AgentChange], bool]:
    """What a recorder wrote, and whether that is all of it: it is not when its process was killed or the disk full."""
    task, change = msgspec.json.Decoder(TaskRecord), msgspec.json.Decoder(AgentChange)
    tasks: list[TaskRecord] = []
    changes: list[AgentChange] = []
    if not path.exists():
        return tasks, changes, False
    with path.open("rb") as file:
        for line in file:
            if line == _END:
                return tasks, changes, True
            if not line.endswith(b"\n"):
                break
            if line.startswith(b'{"what"'):
                changes.append(change.decode(line))
            else:
                tasks.append(task.decode(line))
    return tasks, changes, False
