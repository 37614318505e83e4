"""A subscriber in the orchestrator of a cell: every ended task with its stages, what becomes of agents, and tasks that
were preempted.

Loaded through ``plugins: [anywire_experiment.run.recorder]``; writes events (`anywire.events`) as JSON lines to the
file that the environment variable ``ANYWIRE_EXPERIMENT_RECORD`` names. A task costs one encoding into a buffer; the
file is written when that is full, when something happens to an agent, and at the end of the process.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Literal, get_args

import msgspec
import pluggy

from anywire.agent_health import counted
from anywire.errors import TaskCancelled
from anywire.event_bus import EventBus
from anywire.events import (
    AgentJoined,
    AgentLost,
    AgentOrdered,
    AttemptEnded,
    HealthChanged,
    LinkLost,
    TaskEnded,
    TaskPreempted,
    TaskRequeued,
)
from anywire.hookspecs import PROJECT

VARIABLE = "ANYWIRE_EXPERIMENT_RECORD"
NOTICES = "ANYWIRE_EXPERIMENT_NOTICES"
"""Set where faults are inflicted: attempts that fail, links that are lost and tasks that wait again are told too."""
_FULL = 256 * 1024
_END = b"{}\n"

hookimpl = pluggy.HookimplMarker(PROJECT)


OfAgent = AgentJoined | AgentLost | AgentOrdered | HealthChanged
OfFault = AttemptEnded | LinkLost | TaskRequeued
Recorded = TaskEnded | TaskPreempted | OfAgent | OfFault


class Change(msgspec.Struct, frozen=True):
    """Something that the orchestrator told beside ended tasks, in CLOCK_MONOTONIC ns. ``detail`` is why an agent was
    lost, what was ordered of it, its new state, the id of the task that was preempted, or the code with which an
    attempt failed. ``tokens`` is what that had brought."""

    what: Literal[
        "agent_joined",
        "agent_lost",
        "agent_ordered",
        "health_changed",
        "task_preempted",
        "attempt_failed",
        "link_lost",
        "task_requeued",
    ]
    at_ns: int
    agent: str = ""
    detail: str = ""
    tokens: int = 0


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

    def add_agent(self, event: OfAgent) -> None:
        """Add it and write everything: it may be the last that is heard."""
        self.add(event)
        self.flush()

    def add_of_fault(self, event: OfFault) -> None:
        """Add it if it tells of a failure."""
        if not isinstance(event, AttemptEnded) or event.error not in ("", TaskCancelled.code):
            self.add(event)

    def flush(self) -> None:
        """Raises OSError, as of a full disk."""
        while self._buffer:
            del self._buffer[: os.write(self._file, self._buffer)]

    def close(self) -> None:
        """Write the rest, and last the mark that all of it is there."""
        self._buffer += _END
        self.flush()


# Taken away: agents that a launcher starts from here load the same plugins, and record nothing.
_path = os.environ.pop(VARIABLE, "")
_notices = bool(os.environ.pop(NOTICES, ""))
_recorder = Recorder(_path) if _path else None
if _recorder is not None:
    atexit.register(_recorder.close)


@hookimpl
def anywire_subscribe(events: EventBus) -> None:
    if _recorder is not None:
        events.subscribe("experiment recorder", _recorder.add, TaskEnded, TaskPreempted)
        events.subscribe("experiment recorder", _recorder.add_agent, *get_args(OfAgent))
        if _notices:
            events.subscribe("experiment recorder", _recorder.add_of_fault, *get_args(OfFault))


def read(path: Path) -> tuple[list[TaskEnded], list[Change], bool]:
    """What a recorder wrote, and whether that is all of it: it is not when its process was killed or the disk full."""
    decode = msgspec.json.Decoder(Recorded).decode
    tasks: list[TaskEnded] = []
    changes: list[Change] = []
    if not path.exists():
        return tasks, changes, False
    with path.open("rb") as file:
        for line in file:
            if line == _END:
                return tasks, changes, True
            if not line.endswith(b"\n"):
                break
            event = decode(line)
            if isinstance(event, TaskEnded):
                tasks.append(event)
            else:
                changes.append(_change(event))
    return tasks, changes, False


def _change(event: OfAgent | OfFault | TaskPreempted) -> Change:
    match event:
        case AttemptEnded():
            return Change("attempt_failed", event.at_ns, event.agent_id, event.error, event.tokens)
        case LinkLost():
            return Change("link_lost", event.at_ns, event.agent_id, event.reason)
        case TaskRequeued():
            return Change("task_requeued", event.at_ns, detail=event.error)
        case AgentJoined():
            return Change("agent_joined", event.at_ns, event.agent_id)
        case AgentLost():
            return Change("agent_lost", event.at_ns, event.agent_id, event.reason)
        case AgentOrdered():
            return Change("agent_ordered", event.at_ns, event.agent_id, _told(event.order or "restored", event.reason))
        case HealthChanged():
            state = " ".join(filter(None, (event.transport or event.model, event.state)))
            return Change("health_changed", event.at_ns, event.agent_id, _told(state, counted(event.evidence)))
        case TaskPreempted():
            return Change("task_preempted", event.at_ns, detail=event.task_id)


def _told(state: str, why: str) -> str:
    return f"{state}: {why}" if why else state
