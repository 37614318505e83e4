"""The choice of an agent for a task: what is left out beforehand, the selector, and what it may answer."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anywire.boundary import Boundary, label
from anywire.pipeline.groups import Without, least_loaded
from anywire.pipeline.task import Task
from anywire.scheduler import QueuedTask
from anywire.selector import MAX_REASON_CHARS, AgentView, CandidateList, Candidates, Choice, Selector
from anywire.submission import MAX_NAME_CHARS


class Chooser:
    """``filters`` is the hook ``anywire_filter_candidates`` or None."""

    def __init__(self, selector: Selector, boundary: Boundary, filters: Callable[..., Any] | None) -> None:
        self._selector, self._boundary, self._filters = selector, boundary, filters
        self._name = label("selector", selector)

    def choose(self, task: Task, free: Candidates) -> AgentView | None:
        """The agent of those ``free`` for a task; None lets it wait. What the selector says of it is in
        ``task.choice``."""
        queued, candidates = task.queued, free
        if task.tried or task.chunks or queued.avoid or queued.prefer or self._filters is not None:
            candidates = self._narrowed(task, free)
            if not len(candidates):
                return None
        task.choice = None
        try:
            chosen = self._selector.select(queued, candidates)
            agent = chosen.agent if isinstance(chosen, Choice) else chosen
            # Views are equal to none but themselves, unlike what a selector may have made up.
            known = agent is None or (type(agent) is AgentView and candidates.get(agent.agent_id) is agent)
        except Exception as error:
            self._boundary.failed(self._name, "select", error, task.task_id)
            return least_loaded(candidates)
        if not known:
            what = f"returned {type(chosen).__name__} {reprlib.repr(chosen)}, which is none of the candidates"
            self._boundary.failed(self._name, "select", what, task.task_id)
            return least_loaded(candidates)
        if isinstance(chosen, Choice):
            task.choice = self._checked(chosen, task, len(candidates))
        return agent

    def _checked(self, choice: Choice, task: Task, candidates: int) -> Choice | None:
        """A copy of it, or None where its scores or its reason are nonsense: the agent chosen gets the task without."""
        try:
            fault = choice_fault(choice, candidates)
            scores = {} if fault else {name: float(score) for name, score in choice.scores.items()}
        except Exception as error:
            fault = f"returned a Choice whose scores cannot be read: {type(error).__name__}: {error}"
        if fault:
            self._boundary.failed(self._name, "select", fault, task.task_id)
            return None
        return Choice(choice.agent, scores, choice.reason)

    def _narrowed(self, task: Task, free: Candidates) -> Candidates:
        """Without those that are out of the question; whom it has tried, and whom it is to avoid, as long as there are
        others; of those that it prefers, if one is free."""
        queued, candidates = task.queued, free
        if task.chunks:
            candidates = CandidateList(agent for agent in candidates if task.resumes_on(agent))
        for left_out in (task.tried, queued.avoid):
            if left_out:
                others = Without(candidates, left_out)
                candidates = others if len(others) else candidates
        if queued.prefer:
            preferred = [agent for each in dict.fromkeys(queued.prefer) if (agent := candidates.get(each))]
            if preferred:
                candidates = CandidateList(sorted(preferred, key=lambda agent: agent.ordinal))
        if self._filters is not None:
            candidates = CandidateList(self._filtered(queued, list(candidates)))
        return candidates

    def _filtered(self, queued: QueuedTask, candidates: Sequence[AgentView]) -> Sequence[AgentView]:
        """The candidates that every filter hook leaves."""
        assert self._filters is not None
        results = self._filters(task=queued, candidates=candidates)
        # Only a wrapper can make something else of pluggy's list.
        for narrowed in results if isinstance(results, list) else [results] if results is not None else []:
            try:
                kept = {id(agent) for agent in narrowed}
            except Exception as error:
                self._boundary.failed("hook anywire_filter_candidates", "result", error, queued.task_id)
                continue
            candidates = tuple(agent for agent in candidates if id(agent) in kept)
        return candidates


def choice_fault(choice: Choice, candidates: int) -> str:
    """What is wrong with its scores or its reason; empty when nothing is."""
    scores, reason = choice.scores, choice.reason
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS:
        return f"returned a Choice whose reason is no text of at most {MAX_REASON_CHARS} characters"
    if not isinstance(scores, Mapping) or len(scores) > candidates:
        return f"returned a Choice whose scores are no mapping with a member for each of {candidates} candidates"
    for name, score in scores.items():
        if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
            return "returned a Choice with a score for what is no agent's id"
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            return f"returned a Choice whose score {reprlib.repr(score)} for {name[:80]!r} is no finite number"
    return ""
