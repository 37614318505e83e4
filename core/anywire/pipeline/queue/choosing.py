"""The choice of an agent for a task: what is left out beforehand, the selector, and what it may answer."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import islice
from time import perf_counter_ns
from typing import Any

from anywire.boundary import Boundary, label
from anywire.decision import LeftOut
from anywire.pipeline.fleet.groups import Without, by_ordinal, least_loaded
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.health.health import Health
from anywire.pipeline.observation.kept_decisions import MAX_NAMED, note
from anywire.pipeline.tasks.task import Task
from anywire.scheduler import QueuedTask, QueueKey
from anywire.selector import MAX_REASON_CHARS, AgentView, CandidateList, Candidates, Choice, Selector
from anywire.submission import MAX_NAME_CHARS

TRIED = "the task was sent to it before"
DOUBTFUL = "it has failed lately, and so has the task"
AVOIDED = "the request avoids it"
NOT_PREFERRED = "the request prefers others"
CANNOT_RESUME = "it cannot resume the answer"
FILTERED = "a hook anywire_filter_candidates leaves it out"
MAX_REASONS = 32
"""Reasons why agents are no candidates that one decision tells."""


class Chooser:
    """``filters`` is the hook ``anywire_filter_candidates`` or None. Each choice is kept with its task
    (`anywire.pipeline.observation.kept_decisions`); ``registry`` says why agents are no candidates, for a task that
    asks for it: that costs a look at every agent."""

    def __init__(
        self,
        selector: Selector,
        boundary: Boundary,
        filters: Callable[..., Any] | None,
        now_ns: Callable[[], int],
        registry: Registry,
        health: Health,
    ) -> None:
        self._selector, self._boundary, self._filters = selector, boundary, filters
        self._name = label("selector", selector)
        self._now_ns, self._registry, self._health = now_ns, registry, health
        self._left_out: list[LeftOut] = []
        """Of the choice that is being made."""

    def choose(self, task: Task, free: Candidates, key: QueueKey) -> AgentView | None:
        """The agent of those ``free`` for a task as ``key``; None lets it wait. What the selector says of it is in
        ``task.choice``."""
        began = perf_counter_ns()
        queued, candidates = task.queued, free
        if self._left_out:
            self._left_out = []
        if task.tried or task.chunks or queued.avoid or queued.prefer or self._filters is not None:
            candidates = self._narrowed(task, free, key)
        task.choice = None
        count = len(candidates)
        agent = self._chosen(task, candidates) if count else None
        took = perf_counter_ns() - began
        if task.submission.explain:
            self._left_out += self._no_candidates(key)
        note(task, key.model, agent, candidates, count, tuple(self._left_out), self._now_ns(), took)
        return agent

    def _chosen(self, task: Task, candidates: Candidates) -> AgentView | None:
        queued = task.queued
        try:
            chosen = self._selector.select(queued, candidates)
            agent = chosen.agent if isinstance(chosen, Choice) else chosen
            # Views are equal to none but themselves, unlike what a selector may have made up.
            known = agent is None or (type(agent) is AgentView and candidates.get(agent.info.agent_id) is agent)
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
        reason = choice.reason
        if (
            type(choice.scores) is dict
            and not choice.scores
            and type(reason) is str
            and len(reason) <= MAX_REASON_CHARS
        ):
            return Choice(choice.agent, reason=reason)
        try:
            fault = choice_fault(choice, candidates)
            scores = {} if fault else {name: float(score) for name, score in choice.scores.items()}
        except Exception as error:
            fault = f"returned a Choice whose scores cannot be read: {type(error).__name__}: {error}"
        if fault:
            self._boundary.failed(self._name, "select", fault, task.task_id)
            return None
        return Choice(choice.agent, scores, choice.reason)

    def _narrowed(self, task: Task, free: Candidates, key: QueueKey) -> Candidates:
        """Without those that are out of the question; whom it has tried, and whom it is to avoid, as long as there are
        others; of those that it prefers, if one is free. A task that has failed goes to no agent that has failed
        lately as long as there are others, were they busy: its client would pay for one probe after the other. Only
        resuming and hooks look at all of them."""
        queued, candidates = task.queued, free
        if task.chunks:
            can_resume = CandidateList(agent for agent in candidates if task.resumes_on(agent))
            candidates = self._without(candidates, can_resume, CANNOT_RESUME)
        spared = task.losses > 0 and not task.chunks and self._filters is None
        doubtful = self._health.doubtful_agents(key.model) if spared else frozenset[str]()
        for avoided, why in ((task.tried, TRIED), (doubtful, DOUBTFUL), (queued.avoid, AVOIDED)):
            if avoided:
                others = Without(candidates, avoided)
                if others.left_out and len(others):
                    candidates = others
                    left_out = sorted(others.left_out.values(), key=by_ordinal)
                    first = tuple([agent.agent_id for agent in left_out[:MAX_NAMED]])
                    self._left_out.append(LeftOut(why, len(left_out), first))
        if doubtful and self._is_to_wait(task, candidates, key, doubtful):
            return self._without(candidates, CandidateList(()), DOUBTFUL)
        if queued.prefer:
            preferred = [agent for each in dict.fromkeys(queued.prefer) if (agent := candidates.get(each))]
            if preferred:
                chosen = CandidateList(sorted(preferred, key=by_ordinal))
                candidates = self._without(candidates, chosen, NOT_PREFERRED)
        if self._filters is not None:
            given = CandidateList(candidates)
            candidates = self._without(given, CandidateList(self._filtered(queued, list(given))), FILTERED)
        return candidates

    def _is_to_wait(self, task: Task, candidates: Candidates, key: QueueKey, doubtful: Set[str]) -> bool:
        """Whether the last attempt of every candidate has failed, while others that the task has not tried are busy."""
        if not all(agent.agent_id in doubtful for agent in candidates):
            return False
        return self._registry.serving.has_others(key, doubtful | task.tried)

    def _without(self, before: Candidates, after: CandidateList, why: str) -> Candidates:
        """``after``, once it is noted which of those ``before`` it leaves out."""
        count = len(before) - len(after)
        if count:
            first = islice((agent.agent_id for agent in before if after.get(agent.agent_id) is None), MAX_NAMED)
            self._left_out.append(LeftOut(why, count, tuple(first)))
        return after

    def _no_candidates(self, key: QueueKey) -> Iterator[LeftOut]:
        """The agents that could not take the task before anybody chose, by why."""
        found: dict[str, list[str]] = {}
        for agent_id, why in self._registry.no_candidates(key):
            found.setdefault(why, []).append(agent_id)
        for why, agents in islice(found.items(), MAX_REASONS):
            yield LeftOut(why, len(agents), tuple(agents[:MAX_NAMED]))

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
