"""Fallbacks: models that answer in the place of others, in order (``pipeline.fallbacks``).

They are used when nobody serves the model that a task names, or all who do are barred (quarantined, or by an operator's
order): at once, if somebody serves one of its fallbacks. And when the attempts at the model have failed: see
`anywire.pipeline.attempts.decide.FallBack`. Never because an agent is merely busy.

A fallback is out of the question where the caller may not use it, where nobody serves it in the kind and with the
features that the task needs, and once the client was shown a piece of the answer. Further models that a request names
itself (``models``) come before those of the configuration. The fallbacks of a fallback are not used, so that there are
no circles. Attempts and the budget for retries are those of the task, whichever model they are spent on.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from anywire.caller import Caller
from anywire.demand import Demand
from anywire.errors import AnywireError
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.queue.absence import Absence
from anywire.pipeline.queue.admission import Admission
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueueKey
from anywire.submission import Submission

UNSERVED = "no_agent"
"""What is told as the failure of a model that nobody serves."""

Keys = tuple[QueueKey, ...]


class Fallbacks:
    """``config.fallbacks`` has those of each model."""

    def __init__(
        self,
        config: PipelineConfig,
        admission: Admission,
        registry: Registry,
        absence: Absence,
        dispatcher: Dispatcher,
        observation: Observation,
        counts: Counter[str],
    ) -> None:
        self._config, self._admission, self._registry, self._absence = config, admission, registry, absence
        self._dispatcher, self._observation, self._counts = dispatcher, observation, counts

    def keys(self, submission: Submission, demand: Demand) -> tuple[Keys, Keys]:
        """What a new task waits for first, and its fallbacks after that. Raises what `Admission.keys` raises where
        nobody serves any of them, or will."""
        if not self._config.fallbacks:
            return self._admission.keys(submission, demand), ()
        chain = self._chain(submission, demand)
        try:
            keys = self._admission.keys(submission, demand)
        except AnywireError:
            found = self._first(chain) or self._awaited(chain, submission.caller)
            if found is None:
                raise
            return found
        if not chain or any(map(self._registry.serves, keys)):
            return keys, chain
        return self._first(chain) or (keys, chain)

    def admitted(self, task: Task) -> None:
        """A new task was taken in that is not for the model that it names first: nobody serves that one."""
        self._note(task, task.submission.model, UNSERVED)

    def when_nobody_serves(self, task: Task) -> bool:
        """Let a waiting task whose model nobody serves wait for the next one that somebody serves; False when there is
        none. Whoever calls this has what waits dispatched."""
        found = None if task.chunks or task.place == "ended" else self._first(task.chain)
        if found is None:
            return False
        before = task.queued.keys[0].model
        self._absence.end(task)
        keys, task.chain = found
        task.tried.clear()
        self._dispatcher.change_keys(task, keys)
        self._note(task, before, UNSERVED)
        return True

    def left(self, task: Task, model: str) -> int:
        """How many models may still take the place of ``model``, the attempts at which have failed."""
        if task.chunks:
            return 0
        others = [key for key in task.queued.keys if key.model != model]
        return sum(map(self._registry.serves, (*others, *task.chain)))

    def when_failed(self, task: Task, model: str, code: str) -> bool:
        """Turn to the next model of a task that is in no queue; False when there is none."""
        others = tuple([key for key in task.queued.keys if key.model != model])
        if any(map(self._registry.serves, others)):
            keys = others
        else:
            found = self._first(task.chain)
            if found is None:
                return False
            keys, task.chain = found
        task.queued = msgspec.structs.replace(task.queued, keys=keys)
        task.tried.clear()
        self._note(task, model, code)
        return True

    def _chain(self, submission: Submission, demand: Demand) -> Keys:
        named = dict.fromkeys((submission.model, *demand.models))
        allows = submission.caller.limits.allows_model
        chains = self._config.fallbacks
        chain = dict.fromkeys(other for model in named for other in chains.get(model, ()))
        return tuple(
            [QueueKey(model, submission.kind, demand.needs) for model in chain if model not in named and allows(model)]
        )

    def _first(self, chain: Keys) -> tuple[Keys, Keys] | None:
        """The first that somebody serves, and what comes after it."""
        for at, key in enumerate(chain):
            if self._registry.serves(key):
                return (key,), chain[at + 1 :]
        return None

    def _awaited(self, chain: Keys, caller: Caller) -> tuple[Keys, Keys] | None:
        """The first that nobody serves now and that somebody may serve again, and what comes after it."""
        for at, key in enumerate(chain):
            if self._admission.unknown(key, caller) is None:
                return (key,), chain[at + 1 :]
        return None

    def _note(self, task: Task, before: str, code: str) -> None:
        model = task.queued.keys[0].model
        task.fell_from = (*task.fell_from, (before, code))
        self._counts["model_fallbacks"] += 1
        self._observation.task_fell_back(task, before, model, code)
