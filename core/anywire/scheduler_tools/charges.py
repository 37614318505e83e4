"""What tasks cost in tokens: expected when they are sent, counted when they have ended."""

from __future__ import annotations

from anywire.demand import prompt_tokens
from anywire.scheduler import Outcome, QueuedTask

WEIGHT_OF_NEWEST = 0.1
"""Of the newest answer in the mean length of its tenant's answers: it follows a change within some 20 answers."""
MAX_TENANTS = 1000
"""Tenants whose mean length is known. The one that has had no answer for longest is forgotten first."""
MAX_COUNTED = 1_000_000
"""Tokens of a prompt or an answer that are believed: an engine that counts wrongly must not shut a tenant out."""
MAX_OPEN = 50_000
"""Tasks that were charged and have no outcome. Of the oldest beyond them the expectation stands."""


class ExpectedTokens:
    """How many tokens a task will use. The prompt has a token for every 4 characters of the request's body, of one with
    sound for every 160. The answer is as long as the answers of the same tenant were (a moving mean), ``default``
    tokens before its first one, and never longer than the task's ``max_tokens``."""

    def __init__(self, default: float) -> None:
        self._default = default
        self._means: dict[str, float] = {}

    def prompt(self, task: QueuedTask) -> float:
        return prompt_tokens(task.keys[0].kind, task.prompt_chars)

    def answer(self, task: QueuedTask) -> float:
        mean = self._means.get(task.caller.tenant, self._default)
        return min(mean, task.max_tokens) if task.max_tokens else mean

    def learn(self, outcome: Outcome) -> None:
        """Count an answer; an attempt that failed says nothing about lengths."""
        if outcome.error:
            return
        means = self._means
        mean = means.pop(outcome.tenant, None)
        tokens = min(outcome.tokens, MAX_COUNTED)
        if mean is None:
            mean = float(tokens)
            if len(means) >= MAX_TENANTS:
                del means[next(iter(means))]
        means[outcome.tenant] = mean + WEIGHT_OF_NEWEST * (tokens - mean)


class Charges:
    """Keeps what each task was charged when it was taken, until its outcome tells what it has used.

    A token of an answer costs ``answer_weight`` times as much as one of a prompt.
    """

    def __init__(self, default: float, answer_weight: float = 1.0) -> None:
        self.expected, self._answer_weight = ExpectedTokens(default), answer_weight
        self._open: dict[str, tuple[float, float]] = {}

    def cost(self, task: QueuedTask) -> float:
        """What ``task`` is expected to cost."""
        return self.expected.prompt(task) + self._answer_weight * self.expected.answer(task)

    def charge(self, task: QueuedTask) -> float:
        """What ``task``, which is taken now, is expected to cost: the caller counts it."""
        cost = self.cost(task)
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[task.task_id] = (self.expected.prompt(task), cost)
        return cost

    def undo(self, task: QueuedTask) -> float:
        """What was charged for ``task``, which is put back; 0 when its attempt has ended and is paid."""
        return self._open.pop(task.task_id, (0.0, 0.0))[1]

    def settle(self, outcome: Outcome) -> float:
        """What an attempt has cost beyond what was charged for it, below 0 when it cost less. One that its agent
        refused costs nothing; where the engine counted no prompt, the expectation stands."""
        self.expected.learn(outcome)
        prompt, charged = self._open.pop(outcome.task_id, (0.0, 0.0))
        if outcome.error == "refused":
            return -charged
        counted, tokens = min(outcome.prompt_tokens, MAX_COUNTED), min(outcome.tokens, MAX_COUNTED)
        return (counted or prompt) + self._answer_weight * tokens - charged
