"""A subscriber in the orchestrator of a cell: what the pipeline notices of a fault, and when.

Loaded through ``plugins: [anywire_experiment.fault_table.notes]``; writes events (`anywire.events`) as JSON lines to
the file that the environment variable ``ANYWIRE_FAULT_NOTES`` names, each as it happens.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pluggy

from anywire.event_bus import EventBus
from anywire.events import AgentChanged, AgentJoined, AgentLost, AttemptEnded, HealthChanged, LinkLost, TaskRequeued
from anywire.hookspecs import PROJECT

VARIABLE = "ANYWIRE_FAULT_NOTES"
TYPES = (AgentChanged, AgentJoined, AgentLost, AttemptEnded, HealthChanged, LinkLost, TaskRequeued)
Noted = AgentChanged | AgentJoined | AgentLost | AttemptEnded | HealthChanged | LinkLost | TaskRequeued

hookimpl = pluggy.HookimplMarker(PROJECT)


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that the pipeline noticed, in CLOCK_MONOTONIC ns. ``what`` is the event's type, ``why`` the code or
    state that it tells. ``trouble``: it is a sign that something is wrong. ``clock`` is by how many seconds the time of
    day was ahead of CLOCK_MONOTONIC."""

    at_ns: int
    what: str
    agent: str = ""
    why: str = ""
    trouble: bool = False
    clock: float = 0.0


@hookimpl
def anywire_subscribe(events: EventBus) -> None:
    if VARIABLE not in os.environ:
        return
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    events.subscribe("fault table", lambda event: os.write(file, msgspec.json.encode(event) + b"\n"), *TYPES)


def read(path: Path) -> list[Note]:
    """What was noted, in order; none where the orchestrator did not get so far."""
    decode = msgspec.json.Decoder(Noted).decode
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    # The last one is cut off when its process is killed.
    events = [decode(line) for line in lines if line.endswith(b"\n")]
    return [msgspec.structs.replace(_note(each), clock=round(each.time - each.at_ns / 1e9, 3)) for each in events]


def _note(event: Noted) -> Note:
    what = str(event.__struct_config__.tag)
    match event:
        case AttemptEnded():
            return Note(event.at_ns, what, event.agent_id, event.error, event.error not in ("", "cancelled"))
        case TaskRequeued():
            return Note(event.at_ns, what, "", event.error, True)
        case LinkLost() | AgentLost():
            return Note(event.at_ns, what, event.agent_id, event.reason, True)
        case AgentChanged():
            return Note(event.at_ns, what, event.agent_id, event.state, event.state != "ready")
        case HealthChanged():
            return Note(event.at_ns, what, event.agent_id, event.state, event.state != "closed")
        case AgentJoined():
            return Note(event.at_ns, what, event.agent_id)
