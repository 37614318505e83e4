"""Which events become which entries, and how many of what strangers can cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from anywire import events
from anywire.caller import Caller
from anywire.events import Event
from anywire.stages import Stages
from anywire.this_system import user_id
from anywire_service_audit.chain import Actor, Entry, actor

PERIOD = 60.0
MAX_OF_ONE = 10
"""Entries of one action that one stranger may cause in `PERIOD` seconds; more are counted."""
MAX_OF_ACTION = {"access.refused": 60, "admission.refused": 60, "agent.joined": 1000, "agent.lost": 1000}
"""Actions that strangers can cause, with the entries of all of them in `PERIOD` seconds."""


class RateBound:
    """Lets so many entries through that nobody can fill the log; tells how many others there were."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._passed: Counter[str] = Counter()
        self._of_one: Counter[tuple[str, str]] = Counter()
        self._left_out: Counter[str] = Counter()

    def pass_on(self, entry: Entry, who: str) -> list[Entry]:
        """What to write now: the entry unless there were too many of its action lately, caused by ``who`` or by all;
        before it, when a new period begins, what was left out in the last one."""
        if entry.action not in MAX_OF_ACTION:
            return [entry]
        told: list[Entry] = []
        if not 0 <= entry.at - self._since < PERIOD:
            told = self.left_out(entry.at)
            self._since = entry.at
            self._passed.clear()
            self._of_one.clear()
        one = (entry.action, who)
        if self._passed[entry.action] >= MAX_OF_ACTION[entry.action] or self._of_one[one] >= MAX_OF_ONE:
            self._left_out[entry.action] += 1
            return told
        self._passed[entry.action] += 1
        self._of_one[one] += 1
        return [*told, entry]

    def left_out(self, at: float) -> list[Entry]:
        """An entry for each action of which some were left out, told at the time ``at``; they are told once."""
        told = [
            Entry(at, action, outcome="left out", detail={"count": count}) for action, count in self._left_out.items()
        ]
        self._left_out.clear()
        return told


THIS_USER = Actor(f"uid:{user_id()}", "", "operate")
"""Who changes files that this user alone can write."""


def _command_begun(event: events.CommandBegun) -> Entry:
    return command_begun(event.time, event.target, event.name, Actor(event.caller, event.tenant, event.role))


def command_begun(at: float, target: Any, name: str, who: Actor) -> Entry:
    return Entry(at, "command.begun", who, "/".join(map(str, target)), "begun", {"command": name})


def _command_ended(event: events.CommandEnded) -> Entry:
    who = Actor(event.caller, event.tenant, event.role)
    return Entry(event.time, "command.ended", who, "/".join(event.target), event.error or "ok", {"command": event.name})


def _task_cancelled(event: events.TaskCancelledBy) -> Entry | None:
    if event.by == event.caller and (event.by or event.by_tenant == event.tenant):
        return None  # its own: an id names one caller
    who = Actor(event.by, event.by_tenant, event.by_role)
    owner = {"owner": event.caller, "owner_tenant": event.tenant}
    return Entry(event.time, "task.cancelled", who, event.task_id, detail=owner)


def _access_refused(event: events.AccessRefused) -> Entry:
    detail = {"peer": event.peer, "presented": event.presented, "reason": event.message}
    return Entry(event.time, "access.refused", outcome="refused", detail=detail)


def _key_changed(event: events.KeyChanged) -> Entry:
    who = Actor() if event.state == "expired" else THIS_USER
    detail = {"tenant": event.key_tenant, "role": event.key_role}
    return Entry(event.time, f"key.{event.state}", who, event.key_id, detail=detail)


def _admission_changed(event: events.AdmissionChanged) -> Entry:
    who = THIS_USER if event.state in ("admitted", "revoked") else Actor()
    detail = {"end": event.end, "id": event.end_id, "reason": event.reason}
    return Entry(
        event.time,
        f"admission.{event.state}",
        who,
        event.fingerprint,
        "refused" if event.state == "refused" else "ok",
        detail,
    )


def _agent_joined(event: events.AgentJoined) -> Entry:
    detail = {"transport": event.transport, "incarnation": event.info.incarnation}
    return Entry(event.time, "agent.joined", target=event.agent_id, detail=detail)


def _agent_lost(event: events.AgentLost) -> Entry:
    detail = {"reason": event.reason, "incarnation": event.incarnation}
    return Entry(event.time, "agent.lost", target=event.agent_id, detail=detail)


def _agent_ordered(event: events.AgentOrdered) -> Entry:
    who = Actor(event.caller, event.tenant, "operate")  # nobody else may
    return Entry(event.time, f"agent.{event.order or 'restored'}", who, event.agent_id, detail={"reason": event.reason})


def _config_reloaded(event: events.ConfigReloaded) -> Entry:
    outcome = "failed" if event.error else "ok"
    return Entry(event.time, "config.reloaded", target=event.what, outcome=outcome, detail={"error": event.error})


def _orchestrator_changed(event: events.OrchestratorChanged) -> Entry:
    return Entry(event.time, f"orchestrator.{event.state}", target=event.hub_id)


def _task_ended(event: events.TaskEnded) -> Entry:
    detail = {
        "kind": event.kind,
        "model": event.model,
        "agent": event.agent_id,
        "attempts": event.attempts,
        "prompt_chars": event.prompt_chars,
        "prompt_tokens": event.prompt_tokens,
        "tokens": event.tokens,
        "ms": _milliseconds(event.stages),
    }
    return Entry(
        event.time, "task.ended", actor(Caller(event.caller, event.tenant)), event.task_id, event.error or "ok", detail
    )


def _milliseconds(stages: Stages) -> float:
    return round((stages.delivered - stages.received) / 1e6, 1) if stages.delivered else 0.0


_Told = Callable[[Any], Entry | None]

ALWAYS: dict[type[Event], _Told] = {
    events.CommandBegun: _command_begun,
    events.CommandEnded: _command_ended,
    events.TaskCancelledBy: _task_cancelled,
    events.AccessRefused: _access_refused,
    events.KeyChanged: _key_changed,
    events.AdmissionChanged: _admission_changed,
    events.AgentJoined: _agent_joined,
    events.AgentLost: _agent_lost,
    events.AgentOrdered: _agent_ordered,
    events.ConfigReloaded: _config_reloaded,
    events.OrchestratorChanged: _orchestrator_changed,
}
TASKS: dict[type[Event], _Told] = {events.TaskEnded: _task_ended}


def who_caused(event: Event) -> str:
    """Whom `RateBound` counts an event for."""
    return str(getattr(event, "peer", "") or getattr(event, "agent_id", "") or getattr(event, "fingerprint", ""))
