"""How agents were chosen, kept so that somebody may ask: for tasks that run, and for the newest that have ended.

Every choice is noted as it is made, as a tuple of what is at hand; what a reader gets is made of it when one asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from anywire.context import TaskRecord, TaskView
from anywire.decision import MAX_CONSIDERED, MAX_DECISIONS, MAX_EXPLAINED, Decision, LeftOut
from anywire.pipeline.fleet.groups import some
from anywire.pipeline.tasks.noted_choice import Noted
from anywire.pipeline.tasks.task import Task, task_view
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates
from anywire.stages import Stages

MAX_NAMED = 16
"""Agents that one `LeftOut` names."""
NO_SCORES: Mapping[str, float] = {}

_Ended = tuple[QueuedTask, str, str, int, str, str, int, int, tuple[Noted, ...], str, str, Stages]
"""A task as it is kept: what was queued, its model, why it was held last, when it ended, its agent and transport, the
attempts sent, the chunks, its choices, its error's code and message, its stages. A `TaskView` is made of it when one
asks."""


def note(
    task: Task,
    model: str,
    agent: AgentView | None,
    candidates: Candidates,
    count: int,
    left_out: tuple[LeftOut, ...],
    now_ns: int,
    took_ns: int,
) -> None:
    """Keep a choice among ``count`` candidates with its task. ``task.choice`` is what the selector said of it."""
    most = MAX_EXPLAINED if task.submission.explain else MAX_CONSIDERED
    agent_id = agent.info.agent_id if agent is not None else ""
    considered: tuple[tuple[str, int, int], ...]
    if agent is not None and count == 1:
        considered = ((agent_id, agent.in_flight, agent.status.slots),)
    else:
        considered = _considered(candidates, most, agent)
    choice, scores, reason = task.choice, NO_SCORES, ""
    if choice is not None:
        scores, reason = choice.scores, choice.reason
        if len(scores) > most:  # a fleet's, kept for each task, would be too much
            scores = {each[0]: scores[each[0]] for each in considered if each[0] in scores}
    noted = Noted(now_ns, took_ns, model, agent_id, count, considered, left_out, scores, reason)
    decisions = task.decisions
    if not decisions:
        task.decisions = (noted,)
        return
    last = decisions[-1]
    if not agent_id and noted.repeats(last):
        task.decisions = (*decisions[:-1], msgspec.structs.replace(last, repeated=last.repeated + 1))
    else:
        task.decisions = (*decisions[1 - MAX_DECISIONS :], noted)


def _considered(candidates: Candidates, most: int, chosen: AgentView | None) -> tuple[tuple[str, int, int], ...]:
    """At most ``most`` of the candidates, the one ``chosen`` among them."""
    agents = list(some(candidates, most))
    if chosen is not None and len(agents) == most and chosen not in agents:
        agents[-1] = chosen
    return tuple([(each.info.agent_id, each.in_flight, each.status.slots) for each in agents])


class KeptDecisions:
    """Keeps ``size`` tasks that have ended. ``selector`` is the name of the one in use."""

    def __init__(self, size: int, selector: str) -> None:
        self._size, self._selector = size, selector
        self._ended: OrderedDict[str, _Ended] = OrderedDict()

    def task_ended(self, task: Task, code: str, message: str, now_ns: int) -> None:
        """Keep a task that has ended with the error ``code``, empty for an answer."""
        if self._size:
            kept, stream = self._ended, task.stream
            asked = task.submission.model
            kept[task.task_id] = (
                task.queued,
                asked,
                task.why,
                now_ns,
                stream.agent_id,
                stream.transport,
                task.sent,
                task.chunks,
                task.decisions,
                code,
                message,
                stream.stages,
            )
            if len(kept) > self._size:
                kept.popitem(last=False)

    def ended(self, task_id: str) -> TaskRecord | None:
        """A task that has ended, None when it is not kept."""
        found = self._ended.get(task_id)
        if found is None:
            return None
        queued, model, why, now_ns, agent_id, transport, sent, chunks, noted, code, message, stages = found
        view = TaskView(
            task_id,
            queued.key.kind,
            model,
            "ended",
            why,
            (now_ns - queued.received_ns) / 1e6,
            agent_id,
            transport,
            sent,
            chunks,
            queued.priority,
            queued.session,
            queued.parent,
            queued.caller,
        )
        return TaskRecord(view, self._decisions(noted, queued.received_ns), code, message, stages)

    def running(self, task: Task, now_ns: int) -> TaskRecord:
        """A task that has not ended."""
        decisions = self._decisions(task.decisions, task.queued.received_ns)
        return TaskRecord(task_view(task, now_ns), decisions, stages=task.stream.stages)

    def newest(self, task: Task) -> Decision | None:
        """The newest choice for a task."""
        noted = task.decisions
        return noted[-1].decision(self._selector, task.queued.received_ns) if noted else None

    def _decisions(self, noted: tuple[Noted, ...], received_ns: int) -> tuple[Decision, ...]:
        return tuple([each.decision(self._selector, received_ns) for each in noted])
