"""What ``anywire watch`` knows: agents and tasks as they were listed, and what events have changed since."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from anywire.agent_health import counted
from anywire.cli.agent_state import agent_state, given, links, models, tried_again

Item = dict[str, Any]

REMEMBERED = 50
"""Tasks that ended, and agents that were lost, that are still shown."""
TAIL = 4096
"""Characters of a text that are kept to be shown."""
RATE_SECONDS = 10.0
"""Seconds over which tokens per second are counted."""
NEUTRAL = ("", "cancelled", "refused", "congested", "invalid_request")
"""Ends of attempts that are no errors of their agent."""


class Agent(msgspec.Struct):
    """``lost`` is why it is gone. ``order`` and ``health`` are as `anywire.agent_health.AgentHealth` has them,
    ``order_reason`` and ``failures`` the reasons, ``slow_start``, ``links`` and ``unwell_models`` too; ``tried_at`` is
    when it is tried again, on the clock of this process. ``tokens`` are when attempts ended on it, and their tokens;
    ``errors`` those that failed while it was watched."""

    agent_id: str
    state: str = ""
    detail: str = ""
    slots: int = 0
    models: Sequence[str] = ()
    host: str = ""
    engine: str = ""
    transport: str = ""
    lost: str = ""
    order: str = ""
    order_reason: str = ""
    health: str = "closed"
    failures: str = ""
    tried_at: float = 0.0
    slow_start: int = 0
    links: dict[str, str] = msgspec.field(default_factory=dict)
    unwell_models: dict[str, str] = msgspec.field(default_factory=dict)
    errors: int = 0
    tokens: deque[tuple[float, int]] = msgspec.field(default_factory=deque)

    def set_health(self, told: Item) -> None:
        """Take in what a list tells of its health; a server of an earlier version tells nothing."""
        self.order, self.health = told.get("order", ""), told.get("state", "closed")
        self.order_reason = told.get("reason", "") if self.order else ""
        self.slow_start, self.links = told.get("slow_start", 0), dict(told.get("links", {}))
        self.unwell_models = dict(told.get("models", {}))
        self._set_failures(told)

    def health_changed(self, event: Item) -> None:
        transport, model, state = event.get("transport", ""), event.get("model", ""), event["state"]
        if not transport and not model:
            self.health = state
            self._set_failures(event)
            return
        unwell, name = (self.unwell_models, model) if model else (self.links, transport)
        if state == "closed":
            unwell.pop(name, None)
        else:
            unwell[name] = state

    def ordered(self, event: Item) -> None:
        self.order, self.order_reason = event["order"], event["reason"]

    def told_state(self) -> str:
        """What it does, and why where it is not well."""
        if self.lost:
            return f"lost {self.lost}"
        state = agent_state(self.state, self.order, self.health, self.slow_start)
        tried = tried_again(self.tried_at - time.monotonic()) if self.failures else ""
        why = self.order_reason if self.order else "; ".join(filter(None, (self.failures, tried)))
        unwell = links(self.links), models(self.unwell_models)
        return " ".join(filter(None, (state, self.detail, why, given(self.slow_start), *unwell)))

    def _set_failures(self, told: Item) -> None:
        self.failures = counted(told.get("evidence", {})) if self.health != "closed" else ""
        self.tried_at = time.monotonic() + told.get("retry_in_ms", 0) / 1e3

    def tokens_per_second(self) -> float:
        """Of the attempts that ended within the last `RATE_SECONDS`."""
        since = time.monotonic() - RATE_SECONDS
        while self.tokens and self.tokens[0][0] < since:
            self.tokens.popleft()
        return sum(tokens for _, tokens in self.tokens) / RATE_SECONDS


class Task(msgspec.Struct):
    """``place`` is ``queued``, ``held``, ``running`` or ``ended``; ``began`` is on the clock of this process, in
    seconds; ``seconds`` is how long it took, once it has ended. ``agents`` has the agent of each open attempt."""

    task_id: str
    model: str
    began: float
    place: str = "queued"
    why: str = ""
    transport: str = ""
    tenant: str = ""
    chunks: int = 0
    error: str = ""
    seconds: float = 0.0
    agents: dict[int, str] = msgspec.field(default_factory=dict)
    last_agent: str = ""
    text: str = ""
    followed: bool = False
    missing: bool = False

    def age(self) -> float:
        return self.seconds if self.place == "ended" else time.monotonic() - self.began


class Picture:
    """``changed`` is called at every change. ``agent_id`` and ``task_id`` narrow it."""

    def __init__(self, agent_id: str = "", task_id: str = "") -> None:
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, Task] = {}
        self.ended: deque[Task] = deque(maxlen=REMEMBERED)
        self.ends: Counter[str] = Counter()
        """Tasks by how they ended: ``answered``, or a code."""
        self.state = ""
        """Of the connection or the orchestrator, where it is not as it should be."""
        self.missed = 0
        self.changed: Callable[[], None] = lambda: None
        self.began: Callable[[Task], None] = lambda task: None
        """Called with each task that has begun to run."""
        self._agent_id, self._task_id = agent_id, task_id

    def set(self, agents: Sequence[Item], tasks: Sequence[Item], stats: Item) -> None:
        """Begin with what is listed now."""
        before = self.agents
        self.agents = {}
        for each in agents:
            agent = self.agents[each["id"]] = before.get(each["id"]) or Agent(each["id"])
            agent.lost = ""
            for name in ("state", "detail", "slots", "models", "host", "engine", "transport"):
                setattr(agent, name, each[name])
            agent.set_health(each.get("health", {}))
        now, known = time.monotonic(), self.tasks
        self.tasks = {}
        for each in tasks:
            task = known.get(each["id"]) or Task(each["id"], each["model"], now - each["age_ms"] / 1e3)
            task.place, task.why, task.tenant = each["place"], each["why"], each["tenant"]
            task.chunks, task.transport, task.last_agent = each["chunks"], each["transport"], each["agent_id"]
            task.agents = {each["attempt"]: each["agent_id"]} if each["place"] == "running" else {}
            self.tasks[task.task_id] = task
            if task.agents:
                self.began(task)
        self.ends = Counter(stats["tasks"]["ended"])
        self.state = ""
        self.changed()

    def shown_agents(self) -> list[Agent]:
        """Those there first, then those lost."""
        found = (each for each in self.agents.values() if self._agent_id in ("", each.agent_id))
        return sorted(found, key=lambda each: (bool(each.lost), each.agent_id))

    def shown_tasks(self) -> list[Task]:
        """Those that have not ended, oldest first, then those that have, newest first."""
        return [task for task in (*self.tasks.values(), *reversed(self.ended)) if self.shows(task)]

    def shows(self, task: Task) -> bool:
        on = self._agent_id in ("", task.last_agent, *task.agents.values())
        return on and self._task_id in ("", task.task_id)

    def load(self, agent_id: str) -> int:
        """Attempts that are open on an agent."""
        return sum(list(task.agents.values()).count(agent_id) for task in self.tasks.values())

    def count(self, place: str) -> int:
        return sum(task.place == place for task in self.tasks.values())

    def add(self, event: Item) -> None:
        """Take in an event; those of a type that is not known change nothing."""
        handle = getattr(self, "_" + str(event.get("type", "")).replace(".", "_"), None)
        if handle is not None:
            handle(event)
            self.changed()

    def add_text(self, task_id: str, chunk: Item) -> None:
        task = self.tasks.get(task_id)
        if task is not None:
            task.text = (task.text + chunk["text"])[-TAIL:]
            self.changed()

    def _missed(self, event: Item) -> None:
        self.missed += event["count"]

    def _task_admitted(self, event: Item) -> None:
        task = Task(event["task_id"], event["model"], time.monotonic(), tenant=event["tenant"])
        self.tasks.setdefault(task.task_id, task)

    def _task_held(self, event: Item) -> None:
        self._place(event, "held", event["why"])

    def _task_requeued(self, event: Item) -> None:
        after = f" after {event['after_ms'] / 1e3:g} s" if event["after_ms"] else ""
        self._place(event, "queued", f"again{after}: {event['error']}")

    def _task_dispatched(self, event: Item) -> None:
        self._place(event, "running", "")

    def _attempt_sent(self, event: Item) -> None:
        task = self.tasks.get(event["task_id"])
        if task is not None:
            task.agents[event["attempt"]] = task.last_agent = event["agent_id"]
            task.transport = event["transport"]
            self.began(task)

    def _attempt_ended(self, event: Item) -> None:
        task = self.tasks.get(event["task_id"])
        if task is not None:
            task.agents.pop(event["attempt"], None)
        agent = self.agents.get(event["agent_id"])
        if agent is not None:
            agent.errors += event["error"] not in NEUTRAL
            agent.tokens.append((time.monotonic(), event["tokens"]))

    def _task_ended(self, event: Item) -> None:
        self.ends[event["error"] or "answered"] += 1
        task = self.tasks.pop(event["task_id"], None)
        if task is None:
            return
        task.place, task.why, task.seconds = "ended", event["message"], task.age()
        task.error, task.chunks, task.last_agent = event["error"], event["chunks"], event["agent_id"]
        task.agents.clear()
        self.ended.append(task)

    def _agent_joined(self, event: Item) -> None:
        info, before = event["info"], self.agents.get(event["agent_id"])
        agent = self.agents[event["agent_id"]] = Agent(
            event["agent_id"], "starting", host=info["host"], engine=info["engine"], transport=event["transport"]
        )
        if before is not None:  # orders and failures hold over its lives
            agent.order, agent.order_reason = before.order, before.order_reason
            agent.health, agent.failures, agent.tried_at = before.health, before.failures, before.tried_at

    def _health_changed(self, event: Item) -> None:
        agent = self.agents.get(event["agent_id"])
        if agent is not None:
            agent.health_changed(event)

    def _agent_slow_start(self, event: Item) -> None:
        agent = self.agents.get(event["agent_id"])
        if agent is not None:
            agent.slow_start = event["given"] if event["given"] < event["slots"] else 0

    def _agent_ordered(self, event: Item) -> None:
        agent = self.agents.get(event["agent_id"])
        if agent is not None:
            agent.ordered(event)

    def _task_preempted(self, event: Item) -> None:
        self._place(event, "queued", "gave its slot to an urgent task")

    def _agent_changed(self, event: Item) -> None:
        agent = self.agents.get(event["agent_id"])
        if agent is not None:
            for name in ("state", "detail", "slots", "models"):
                setattr(agent, name, event[name])

    def _agent_lost(self, event: Item) -> None:
        agent = self.agents.get(event["agent_id"])
        if agent is None:
            return
        agent.lost = event["reason"] or "gone"
        gone = [key for key, each in self.agents.items() if each.lost]
        for key in gone[: max(0, len(gone) - REMEMBERED)]:
            del self.agents[key]

    def _orchestrator_changed(self, event: Item) -> None:
        self.state = "" if event["state"] == "open" else f"the orchestrator is {event['state']}"

    def _interrupted(self, event: Item) -> None:
        self.state = f"not connected: {event['reason']}"

    def _place(self, event: Item, place: str, why: str) -> None:
        task = self.tasks.get(event["task_id"])
        if task is not None:
            task.place, task.why = place, why
