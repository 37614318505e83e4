"""Probes: small tasks that the pipeline makes up to see whether a quarantined agent is well again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from anywire.caller import Caller
from anywire.clock import Clock
from anywire.messages import Kind
from anywire.pipeline.attempts import Attempts
from anywire.pipeline.health import Health
from anywire.pipeline.observation import Observation
from anywire.pipeline.registry import Registry
from anywire.pipeline.task import Task
from anywire.pipeline.task_ends import TaskEnds
from anywire.scheduler import QueuedTask, QueueKey
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.task_stream import TaskStream

PROBER = Caller("anywire:probe")
PROBE_DEADLINE = 30.0
"""Seconds in which a probe must be answered."""
BODIES: dict[Kind, dict[str, object]] = {
    "chat": {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1},
    "completion": {"prompt": "ping", "max_tokens": 1},
    "embedding": {"input": "ping"},
}

_encode = msgspec.json.Encoder().encode


class Probes:
    """Sends them. What they come to is told to `anywire.pipeline.health.Health.probed` where attempts end."""

    def __init__(
        self,
        registry: Registry,
        health: Health,
        attempts: Attempts,
        ends: TaskEnds,
        observation: Observation,
        task_ids: Iterator[str],
        clock: Clock,
    ) -> None:
        self._registry, self._health, self._attempts, self._ends = registry, health, attempts, ends
        self._observation, self._task_ids, self._clock = observation, task_ids, clock

    def send(self, agent_id: str) -> None:
        """Send one to an agent. One that is not there, or cannot take a task, has not passed."""
        agent = self._registry.agent(agent_id)
        found = _asked(agent) if agent is not None else None
        if agent is None or found is None:
            self._health.probed(agent_id, False)
            return
        kind, model = found
        body = _encode({"model": model, **BODIES[kind]}).decode()
        submission = Submission(kind, model, body, caller=PROBER, deadline_s=PROBE_DEADLINE)
        now = self._clock.now_ns()
        task_id = next(self._task_ids)
        due = now + int(PROBE_DEADLINE * 1e9)
        queued = QueuedTask(task_id, (QueueKey(model, kind),), 0, now, due, len(body), caller=PROBER)
        task = Task(task_id, submission, queued, TaskStream(task_id, now, self._ends.cancel))
        task.is_probe, task.attempts_left = True, 1
        self._ends.add(task, PROBE_DEADLINE)
        self._observation.task_admitted(task)
        self._attempts.send(task, agent, model)


def _asked(agent: AgentView) -> tuple[Kind, str] | None:
    """The kind and the model that a probe asks for; None where the agent can take none now."""
    if agent.status.state != "ready" or agent.free_slots <= 0:
        return None
    for model, offer in agent.offers.items():
        kinds = offer.kinds or agent.info.capabilities
        for kind in BODIES:
            if kind in kinds and offer.takes_tasks:
                return kind, model
    return None
