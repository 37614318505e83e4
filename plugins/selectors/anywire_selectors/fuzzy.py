"""Agents by fuzzy rules over load, latency, urgency and complexity."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig
from anywire.submission import Hints
from anywire_selectors.fuzzy_rules import FuzzyRules, Input, read_rules

CHARS_PER_TOKEN = 4
WORDS = {
    "lowest": 0.0, "low": 0.2, "simple": 0.2, "normal": 0.5, "medium": 0.5, "high": 0.8, "complex": 0.8, "urgent": 0.9,
    "critical": 1.0, "highest": 1.0,
}  # fmt: skip
"""What a hint means that is a word."""


class FuzzyConfig(SelectorConfig):
    file: str = pydantic.Field(
        default="",
        description="YAML file with `sets` and `rules`. Empty: the built-in ones, which `anywire fuzzy` shows.",
    )
    complex_tokens: int = pydantic.Field(
        default=4000, ge=1, description="Tokens of prompt and answer together with which a task has the complexity 1."
    )
    considered: int = pydantic.Field(
        default=8, ge=1, le=1024, description="Agents that are compared; of more, so many drawn at random."
    )


class Fuzzy(Selector):
    """The agent for which the rules conclude most; of equals the least loaded.

    ``load`` is the agent's share of slots in use, ``latency`` its smoothed milliseconds to the first token (0 for a new
    agent). ``urgency`` and ``complexity`` are the task's hints of these names, numbers from 0 to 1 or words (``low``,
    ``normal``, ``high``, ``critical`` …). Without a hint, urgency is 0.5 and a tenth more for each step of priority,
    and complexity is the size of prompt and longest answer. Method: see `anywire_selectors.fuzzy_rules`.
    """

    name: ClassVar[str] = "fuzzy"
    Config = FuzzyConfig
    config: FuzzyConfig

    def __init__(self, config: FuzzyConfig) -> None:
        super().__init__(config)
        self._rng = random.Random(config.seed)
        self.rules = read_rules(Path(config.file)) if config.file else FuzzyRules()

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        of_task = self._of_task(task)
        concluded = {
            agent: self.rules.conclude(of_task | self._of_agent(agent))
            for agent in candidates.sample(self.config.considered, self._rng)
        }
        best = max(concluded, key=lambda agent: (concluded[agent][0], -agent.load, -agent.last_sent))
        scores = {agent.agent_id: score for agent, (score, _) in concluded.items()}
        return Choice(best, scores, str(concluded[best][1] or "no rule holds")[:400])

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """What the rules conclude."""
        return self.rules.conclude(self._of_task(task) | self._of_agent(agent))[0]

    def _of_task(self, task: QueuedTask) -> dict[tuple[Input, str], float]:
        work = (task.prompt_chars / CHARS_PER_TOKEN + task.max_tokens) / self.config.complex_tokens
        urgency = _hint(task.hints, "urgency", 0.5 + task.priority / 10)
        return self.rules.degrees({"urgency": urgency, "complexity": _hint(task.hints, "complexity", work)})

    def _of_agent(self, agent: AgentView) -> dict[tuple[Input, str], float]:
        return self.rules.degrees({"load": agent.load, "latency": agent.latency_ema_ms})


def _hint(hints: Hints, name: str, otherwise: float) -> float:
    """The hint as a number, 0.0 to 1.0; ``otherwise`` for none, and for what is no number and no known word."""
    given = hints.get(name, otherwise)
    if isinstance(given, str):
        text = given.strip().lower()
        try:
            given = WORDS[text] if text in WORDS else float(text)
        except ValueError:
            given = otherwise
    return min(1.0, max(0.0, given)) if given == given else 0.5
