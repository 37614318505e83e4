"""What ``anywire watch`` has seen: events as they are printed, and the picture they add up to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.observer import HubSeen, TaskSeen

Event = dict[str, Any]
"""Plain JSON types; ``event`` names it. The how-to *Watch a fleet* lists them all."""

REMEMBERED = 50
"""Tasks that ended, and agents and hubs that were lost, that are still shown."""

TAIL = 4096
"""Characters of a stream that are kept to be shown."""


class Events:
    """An `anywire.observer.ObserverSink` that hands on events, those of one agent or task only when so wanted."""

    def __init__(self, transport: str, emit: Callable[[Event], None], *, task_id: str, agent_id: str) -> None:
        self._transport, self._emit = transport, emit
        self._task_id, self._agent_id = task_id, agent_id

    def agent_joined(self, info: AgentInfo) -> None:
        self._agent("agent_joined", info.agent_id, msgspec.to_builtins(info))

    def agent_reported(self, status: AgentStatus) -> None:
        self._agent("agent_reported", status.agent_id, msgspec.to_builtins(status))

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        self._agent("agent_lost", agent_id, {"incarnation": incarnation, "reason": reason})

    def hub_joined(self, info: HubInfo) -> None:
        self._hub("hub_joined", info.hub_id, msgspec.to_builtins(info))

    def hub_reported(self, hub: HubSeen) -> None:
        self._hub("hub_reported", hub.hub_id, msgspec.to_builtins(hub))

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self._hub("hub_lost", hub_id, {"incarnation": incarnation, "reason": reason})

    def task_seen(self, task: TaskSeen) -> None:
        if self._task_id not in ("", task.task_id) or self._agent_id not in ("", task.agent_id):
            return
        members = msgspec.to_builtins(task)
        members["error"] = _error(task.error)
        self._hand_on("task", {"hub": "hub_id", "task": "task_id", "agent": "agent_id"}, members)

    def _agent(self, event: str, agent_id: str, members: Event) -> None:
        if self._agent_id in ("", agent_id):
            self._hand_on(event, {"agent": "agent_id"}, {"agent_id": agent_id} | members)

    def _hub(self, event: str, hub_id: str, members: Event) -> None:
        self._hand_on(event, {"hub": "hub_id"}, {"hub_id": hub_id} | members)

    def _hand_on(self, event: str, names: dict[str, str], members: Event) -> None:
        told = {short: members.pop(name) for short, name in names.items()}
        self._emit({"event": event, "at": round(time.time(), 3), "transport": self._transport} | told | members)


def _error(text: str) -> Event | None:
    """``code`` and ``message`` of an error as it travels; None when there is none."""
    if not text:
        return None
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"code": "error", "message": text}
    return {"code": str(found.get("code", "error")), "message": str(found.get("message", ""))}


class Agent(msgspec.Struct):
    """An agent in the picture: what it said of itself and newest of its state; ``lost`` is why it is gone."""

    joined: Event
    reported: Event = msgspec.field(default_factory=dict)
    lost: str = ""


class Hub(msgspec.Struct):
    joined: Event
    reported: Event = msgspec.field(default_factory=dict)


class Task(msgspec.Struct):
    """The newest event of an attempt, the end of its text, whether that lacks a part, and when it began on the clock of
    this process, in seconds."""

    newest: Event
    began: float
    text: str = ""
    missing: bool = False

    def seconds(self) -> float:
        """Its age, or how long it took."""
        ended = self.newest["state"] != "running"
        return float(self.newest["age_ms"]) / 1e3 if ended else time.monotonic() - self.began


class Picture:
    """What is known now. ``arrived`` is called when something new came into it, ``changed`` at every event."""

    def __init__(self) -> None:
        self.agents: dict[tuple[str, str], Agent] = {}
        self.hubs: dict[tuple[str, str], Hub] = {}
        self.running: dict[tuple[str, str, str, int], Task] = {}
        self.ended: deque[Task] = deque(maxlen=REMEMBERED)
        self.arrived: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None

    def add(self, event: Event) -> None:
        getattr(self, f"_{event['event']}")(event)
        self.changed()

    @property
    def complete(self) -> bool:
        """Whether every agent has reported and every hub has told what it has."""
        return all(each.reported or each.lost for each in self.agents.values()) and all(
            each.reported for each in self.hubs.values()
        )

    def _agent_joined(self, event: Event) -> None:
        self.agents[event["transport"], event["agent"]] = Agent(event)
        self.arrived()

    def _agent_reported(self, event: Event) -> None:
        agent = self.agents.get((event["transport"], event["agent"]))
        if agent is not None:
            first = not agent.reported
            agent.reported = event
            if first:
                self.arrived()

    def _agent_lost(self, event: Event) -> None:
        agent = self.agents.get((event["transport"], event["agent"]))
        if agent is None:
            return
        agent.lost = event["reason"]
        gone = [key for key, each in self.agents.items() if each.lost]
        for key in gone[: max(0, len(gone) - REMEMBERED)]:
            del self.agents[key]

    def _hub_joined(self, event: Event) -> None:
        self.hubs[event["transport"], event["hub"]] = Hub(event)
        self.arrived()

    def _hub_reported(self, event: Event) -> None:
        hub = self.hubs.get((event["transport"], event["hub"]))
        if hub is not None:
            first = not hub.reported
            hub.reported = event
            if first:
                self.arrived()

    def _hub_lost(self, event: Event) -> None:
        self.hubs.pop((event["transport"], event["hub"]), None)

    def _task(self, event: Event) -> None:
        key = (event["transport"], event["hub"], event["task"], event["attempt"])
        began = time.monotonic() - event["age_ms"] / 1e3
        task = self.running.get(key)
        if task is None:
            task = self.running[key] = Task(event, began)
            self.arrived()
        task.newest, task.began = event, min(task.began, began)
        task.missing = task.missing or event["missing"]
        whole = task.text + ("" if not (event["missing"] and task.text) else " … ") + event["text"]
        task.text = whole[-TAIL:]
        if event["state"] != "running":
            self.ended.append(self.running.pop(key))
