"""Probes: small tasks that the pipeline makes up to see whether a quarantined agent is well again."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.messages import Kind
from anywire.offers import Offer
from anywire.pipeline.attempts.attempts import Attempts
from anywire.pipeline.attempts.task_ends import TaskEnds
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import QUARANTINED, Health
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.scheduler import QueuedTask, QueueKey
from anywire.selector import AgentView
from anywire.silent_wave import silent_wave
from anywire.submission import Submission
from anywire.task_stream import TaskStream

PROBER = Caller("anywire:probe")
PROBE_DEADLINE = 30.0
"""Seconds in which a probe must be answered."""
BODIES: Mapping[Kind, Mapping[str, object]] = {
    "chat": {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1},
    "completion": {"prompt": "ping", "max_tokens": 1},
    "embedding": {"input": "ping"},
    "rerank": {"query": "ping", "documents": ["ping"]},
    "tokenize": {"prompt": "ping"},
    "detokenize": {"tokens": [1]},
    "speech": {"input": "ping", "voice": "alloy"},
    "transcription": {"file": base64.b64encode(silent_wave(0.1)).decode(), "filename": "ping.wav"},
    "image": {"prompt": "ping", "n": 1},
}

_encode = msgspec.json.Encoder().encode


class Probes:
    """Sends them, and tells `Health.probe_ended` once what each came to, when its task ends: whatever became of its
    attempt, each task ends once."""

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
        self._closed = False
        ends.probe_ended = self._ended

    def send(self, agent_id: str, served: tuple[str, str]) -> bool:
        """Send one to an agent, for ``served``, a model and a kind, if that is ready, else for another one. False when
        the agent is not there, or can take no task now."""
        agent = self._registry.agent(agent_id)
        found = _asked(agent, served) if agent is not None and not self._closed else None
        if agent is None or found is None:
            return False
        model, kind = found
        body = _encode({"model": model, **BODIES[kind]}).decode()
        submission = Submission(kind, model, body, caller=PROBER, deadline_s=PROBE_DEADLINE)
        now = self._clock.now_ns()
        task_id = next(self._task_ids)
        due = now + int(PROBE_DEADLINE * 1e9)
        queued = QueuedTask(task_id, (QueueKey(model, kind),), 0, now, due, len(body), caller=PROBER)
        task = Task(task_id, submission, queued, TaskStream(task_id, now, self._ends.cancel))
        task.is_probe, task.attempts_left = True, 1
        self._observation.hold()  # whoever is told of it may cancel it, when it is sent
        try:
            self._ends.add(task, PROBE_DEADLINE)
            self._observation.task_admitted(task)
            self._attempts.send(task, agent, model)
        finally:
            self._observation.release()
        return True

    def close(self) -> None:
        """Send none any more, and wait for none."""
        self._closed = True
        for task in [each for each in self._ends.tasks.values() if each.is_probe]:
            self._ends.give_up(task, errors.ShuttingDown("the orchestrator shuts down"))

    def _ended(self, task: Task, attempt: Attempt | None, error: AnywireError | None) -> None:
        is_blameless = attempt is not None and (attempt.is_blameless or attempt.is_from_below)
        self._health.probe_ended(task.agent_id, None if is_blameless else _passed(error))


def _passed(error: AnywireError | None) -> bool | None:
    """Whether a probe that ends so was passed: it was answered, or its engine has found that it is no good request, or
    that the model alone is at fault, which has a breaker of its own. None where nothing was learnt of the agent."""
    if error is None or error.blames == "model":
        return True
    if isinstance(error, errors.InvalidRequest) and error.status in (0, 400, 422):
        return True
    if error.blames == "agent" or isinstance(error, errors.DeadlineExceeded):
        return False
    return None


def _asked(agent: AgentView, served: tuple[str, str]) -> tuple[str, Kind] | None:
    """The model and the kind that a probe asks for: a model that is ready rather than one that would have to be
    started, and ``served`` rather than others. None where the agent can take none now."""
    if agent.status.state != "ready" or agent.free_slots <= 0 or agent.unavailable - {QUARANTINED}:
        return None
    taking = [
        ((offer.model, kind), offer)
        for offer in agent.offers.values()
        if offer.takes_tasks
        for kind in BODIES
        if kind in (offer.kinds or agent.info.capabilities)
    ]

    def rank(each: tuple[tuple[str, Kind], Offer]) -> tuple[bool, bool]:
        return each[1].state != "ready", each[0] != served

    return min(taking, key=rank)[0] if taking else None
