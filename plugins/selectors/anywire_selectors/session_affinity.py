"""The agent that had the conversation before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig


class SessionAffinityConfig(SelectorConfig):
    remembered: int = pydantic.Field(default=10_000, ge=1, description="Conversations whose agent is kept.")


class SessionAffinity(Selector):
    """The agent to which the conversation's newest task went, as long as it has a free slot; else the least loaded one,
    which has the conversation from then on.

    A session's name is its tenant's own: equal names of two tenants are two conversations. The one that was silent
    longest is forgotten when more than ``remembered`` are known. Method: the sticky sessions of HTTP load balancers
    (nginx ``sticky``, HAProxy ``stick-table``).
    """

    name: ClassVar[str] = "session_affinity"
    Config = SessionAffinityConfig
    config: SessionAffinityConfig

    def __init__(self, config: SessionAffinityConfig) -> None:
        super().__init__(config)
        self._homes: OrderedDict[tuple[str, str], str] = OrderedDict()

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | Choice:
        for agent in self.proposed(task, candidates):
            self.chosen(task, agent)
            return Choice(agent, reason="it had the conversation before")
        agent = next(candidates.by_load())
        if not task.session:
            return agent
        known = (task.caller.tenant, task.session) in self._homes
        self.chosen(task, agent)
        return Choice(agent, reason="its agent is no candidate" if known else "the conversation is new")

    def proposed(self, task: QueuedTask, candidates: Candidates) -> Iterable[AgentView]:
        """The candidate that had the conversation before, if there is one."""
        home = self._homes.get((task.caller.tenant, task.session), "") if task.session else ""
        agent = candidates.get(home) if home else None
        return (agent,) if agent is not None else ()

    def chosen(self, task: QueuedTask, agent: AgentView) -> None:
        """Remember that ``agent`` gets the task."""
        if not task.session:
            return
        session = (task.caller.tenant, task.session)
        self._homes[session] = agent.agent_id
        self._homes.move_to_end(session)
        if len(self._homes) > self.config.remembered:
            self._homes.popitem(last=False)

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """1.0 for the agent that had the conversation before, 0.0 for all others."""
        return float(bool(task.session) and self._homes.get((task.caller.tenant, task.session)) == agent.agent_id)
