"""Who is told of what happened: the selector and the hooks, after the reader of the task concerned has its end."""

from __future__ import annotations

from anywire.pipeline.boundary import Boundary, label
from anywire.pipeline.task import Task
from anywire.plugins import Plugins
from anywire.selector import AgentView, Outcome, Selector
from anywire.stages import TaskRecord


class Observation:
    """An observer that raises is that observer's failure: the others are told all the same."""

    def __init__(self, plugins: Plugins, selector: Selector, boundary: Boundary) -> None:
        self._boundary, self._selector = boundary, selector
        self._selector_name = label("selector", selector)
        self.observes = type(selector).observed is not Selector.observed
        """Whether the selector wants to know how attempts end."""
        self._finished = plugins.call("anywire_task_finished")
        self._joined = plugins.call("anywire_agent_joined")
        self._lost = plugins.call("anywire_agent_lost")

    def attempt_ended(self, outcome: Outcome) -> None:
        if self.observes:
            self._boundary.call(
                self._selector_name,
                "observed",
                self._selector.observed,
                outcome,
                otherwise=None,
                task_id=outcome.task_id,
            )

    def task_ended(self, task: Task, code: str) -> None:
        if self._finished is None:
            return
        submission, stream = task.submission, task.stream
        record = TaskRecord(
            task.task_id,
            submission.kind,
            submission.model,
            stream.agent_id,
            stream.transport,
            task.sent,
            code,
            task.chunks,
            task.queued.prompt_chars,
            stream.stages,
        )
        self._finished(record=record)

    def agent_joined(self, agent: AgentView) -> None:
        if self._joined is not None:
            self._joined(agent=agent)

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        if self._lost is not None:
            self._lost(agent=agent, reason=reason)
