"""A subscriber in the orchestrator of a cell: every ended task with its stages, and agents that join and are lost.

Loaded through ``plugins: [anywire_experiment.run.recorder]``; writes events (`anywire.events`) as JSON lines to the
file that the environment variable ``ANYWIRE_EXPERIMENT_RECORD`` names. A task costs one encoding into a buffer; the
file is written when that is full, when an agent comes or goes, and at the end of the process.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Literal

import msgspec
import pluggy

from anywire.event_bus import EventBus
from anywire.events import AgentJoined, AgentLost, TaskEnded
from anywire.hookspecs import PROJECT

VARIABLE = "ANYWIRE_EXPERIMENT_RECORD"
_FULL = 256 * 1024
_END = b"{}\n"

hookimpl = pluggy.HookimplMarker(PROJECT)


Recorded = TaskEnded | AgentJoined | AgentLost


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

    def add(self, event: Recorded) -> None:
        buffer = self._buffer
        self._encode_into(event, buffer, -1)
        buffer += b"\n"
        if len(buffer) >= _FULL:
            self.flush()

    def add_agent(self, event: AgentJoined | AgentLost) -> None:
        """Add it and write everything: it may be the last that is heard."""
        self.add(event)
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
def anywire_subscribe(events: EventBus) -> None:
    if _recorder is not None:
        events.subscribe("experiment recorder", _recorder.add, TaskEnded)
        events.subscribe("experiment recorder", _recorder.add_agent, AgentJoined, AgentLost)


def read(path: Path) -> tuple[list[TaskEnded], list[AgentChange], bool]:
    """What a recorder wrote, and whether that is all of it: it is not when its process was killed or the disk full."""
    decode = msgspec.json.Decoder(Recorded).decode
    tasks: list[TaskEnded] = []
    changes: list[AgentChange] = []
    if not path.exists():
        return tasks, changes, False
    with path.open("rb") as file:
        for line in file:
            if line == _END:
                return tasks, changes, True
            if not line.endswith(b"\n"):
                break
            match decode(line):
                case TaskEnded() as task:
                    tasks.append(task)
                case AgentJoined() as joined:
                    changes.append(AgentChange("agent_joined", joined.at_ns, joined.agent_id))
                case AgentLost() as lost:
                    changes.append(AgentChange("agent_lost", lost.at_ns, lost.agent_id, lost.reason))
    return tasks, changes, False
