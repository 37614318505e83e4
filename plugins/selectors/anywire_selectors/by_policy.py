"""The selector that the request asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pydantic

from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import MAX_REASON_CHARS, AgentView, Candidates, Choice, Create, Selector, SelectorConfig

MAX_POLICY_CHARS = 256


class PolicySelector(pydantic.BaseModel):
    """Further members are the selector's own settings."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str = pydantic.Field(min_length=1)


def _as_selector(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


_Selector = Annotated[PolicySelector, pydantic.BeforeValidator(_as_selector)]


class ByPolicyConfig(SelectorConfig):
    default: _Selector = pydantic.Field(
        default=PolicySelector(name="least_loaded"),
        description="Selector of tasks that ask for no policy: its name, or `name` and its settings.",
    )
    policies: dict[Annotated[str, pydantic.Field(min_length=1, max_length=MAX_POLICY_CHARS)], _Selector] = (
        pydantic.Field(
            default_factory=dict,
            max_length=64,
            description="Policies that requests may ask for, each with its selector. Another one is refused (400).",
        )
    )


class ByPolicy(Selector):
    """The selector of the policy that a request asks for (header ``x-anywire-policy``), else that of ``default``.

    A request for a policy that is not configured is refused when it arrives, with the names of those that are. A task
    that another orchestrator passed on is not: the default decides. Each selector learns from all tasks.
    """

    name: ClassVar[str] = "by_policy"
    Config = ByPolicyConfig
    config: ByPolicyConfig

    def __init__(self, config: ByPolicyConfig) -> None:
        super().__init__(config)
        self._selectors: dict[str, tuple[Selector, str]] = {}
        """The selector of each policy, and what a choice of it says; that of none is the default's."""
        self._learning: list[Callable[[Outcome], None]] = []

    def assemble(self, create: Create) -> None:
        choices = {f"policies.{name}": choice for name, choice in self.config.policies.items()}
        for where, choice in ({"default": self.config.default} | choices).items():
            options = {"seed": self.config.seed} | (choice.model_extra or {})
            part: Any = create(choice.name, options, f"selector.{where}")
            policy = where.removeprefix("policies.") if where != "default" else ""
            self._selectors[policy] = part, f"policy {policy}: {choice.name}" if policy else f"default: {choice.name}"
            self.wants_prefix = self.wants_prefix or part.wants_prefix
            self._learning.append(part.observed)
        self.policies = tuple(self.config.policies)

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | Choice | None:
        selector, name = self._selectors.get(task.policy) or self._selectors[""]
        chosen = selector.select(task, candidates)
        if isinstance(chosen, AgentView):
            return Choice(chosen, reason=name)
        if isinstance(chosen, Choice):
            reason = f"{name}, {chosen.reason}" if chosen.reason else name
            return Choice(chosen.agent, chosen.scores, reason[:MAX_REASON_CHARS])
        return chosen

    def observed(self, outcome: Outcome) -> None:
        for observed in self._learning:
            observed(outcome)
