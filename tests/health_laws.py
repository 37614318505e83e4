"""What must hold of health whatever happens, looked at before each attempt that a pipeline sends."""

from __future__ import annotations

from collections import Counter

from anywire import events
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.task import Task
from anywire.selector import AgentView


class HealthLaws:
    """Watches an orchestrator from now on. ``faults`` are the laws that were broken.

    - An agent under an order gets nothing, one in quarantine nothing but one probe at a time, others no such probe.
    - An agent that is open gets nothing, one that is half-open ``probes`` tasks at once, while another agent that is
      ready serves the model.
    - A link that rests is not used while there is another one.
    - Quarantine ends with a probe that was passed and with nothing else. What a probe came to is told once.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.faults: list[str] = []
        self.probes_sent: Counter[str] = Counter()
        self.probes_ended: Counter[str] = Counter()
        self.states: dict[str, list[str]] = {}
        """Of each agent, every state that was told."""
        self._passed = ""
        self._send, self._probe_ended = orchestrator.attempts.send, orchestrator.health.probe_ended
        orchestrator.attempts.send = self._sent  # type: ignore[method-assign]
        orchestrator.health.probe_ended = self._ended  # type: ignore[method-assign]
        orchestrator.events.subscribe("laws", self._changed, events.HealthChanged)

    def state(self, agent_id: str) -> str:
        """The state that was told last."""
        return self.states.get(agent_id, ["closed"])[-1]

    def _sent(self, task: Task, agent: AgentView, model: str) -> None:
        self._check(task, agent, model)
        self.probes_sent[agent.agent_id] += task.is_probe
        self._send(task, agent, model)

    def _check(self, task: Task, agent: AgentView, model: str) -> None:
        agent_id, health = agent.agent_id, self.orchestrator.health
        report = self.orchestrator.agent_health(agent_id)
        where = f"{task.task_id} to {agent_id}, which is {report}"
        if report.order:
            self.faults.append(f"{where}: it is under an order")
        if task.is_probe != (report.state == "quarantined"):
            self.faults.append(f"{where}: a client's task and quarantine, or a probe without")
        if task.is_probe and self.probes_sent[agent_id] != self.probes_ended[agent_id]:
            self.faults.append(f"{where}: a probe is under way")
        member = self.orchestrator.registry._members[agent_id]
        rested = [link for link in member.links if not health.resting((agent_id, link))]
        if member.link not in rested and rested:
            self.faults.append(f"{where}: its link {member.link} rests, and there is {rested}")
        room = member.room
        if room is not None and agent.in_flight >= room and not task.is_probe:
            self.faults.append(f"{where}: it begins slowly, and has {agent.in_flight} of {room}")
        record = health._records.get(agent_id)
        if record is None or record.breaker.state == "closed" or task.is_probe:
            return
        breaker = record.breaker
        under_way = sum(
            attempt.epoch >= breaker._began and not attempt.task.is_probe
            for attempt in self.orchestrator.attempts.open.values()
            if attempt.agent_id == agent_id and (not attempt.cancelled or attempt.code == "cancelled")
        )
        is_full = breaker.state == "open" or under_way >= self.orchestrator.config.breaker.probes
        if is_full and (others := self._others(agent, model, task)):
            self.faults.append(f"{where}, with {under_way} under way, and there is {others}")

    def _others(self, agent: AgentView, model: str, task: Task) -> list[str]:
        """The other agents to which the task could go, be they busy."""
        orchestrator, kind = self.orchestrator, task.submission.kind
        return [
            other.agent_id
            for other in orchestrator.agents()
            if other is not agent
            and other.status.state == "ready"
            and other.status.slots
            and not orchestrator.agent_health(other.agent_id).order
            and not orchestrator.health.is_quarantined(other.agent_id)
            and not orchestrator.health.resting(other.agent_id)
            and (offer := other.offers.get(model)) is not None
            and offer.takes_tasks
            and kind in (offer.kinds or other.info.capabilities)
        ]

    def _ended(self, agent_id: str, passed: bool | None) -> None:
        self.probes_ended[agent_id] += 1
        if self.probes_ended[agent_id] > self.probes_sent[agent_id]:
            self.faults.append(f"{agent_id}: more probes ended than were sent")
        self._passed = agent_id if passed else ""
        self._probe_ended(agent_id, passed)

    def _changed(self, event: events.HealthChanged) -> None:
        if event.transport or event.model:
            return
        before = self.state(event.agent_id)
        self.states.setdefault(event.agent_id, []).append(event.state)
        if before == "quarantined" and (event.state != "closed" or self._passed != event.agent_id):
            self.faults.append(f"{event.agent_id} left quarantine for {event.state}, and has passed no probe")
