"""Room in the queue: who gets none, and what is told to whom."""

from __future__ import annotations

from anywire import errors
from anywire.errors import AnywireError
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.queue.waiting import Waiting
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueuedTask, Scheduler, SchedulerConfig


class QueueRoom:
    """``limit`` is how many tasks may wait, those held included."""

    def __init__(self, config: PipelineConfig, scheduler: Scheduler, registry: Registry, waiting: Waiting) -> None:
        self._registry, self._waiting = registry, waiting
        settings = getattr(scheduler, "config", None)
        self.limit: int = getattr(settings, "max_queue_size", SchedulerConfig().max_queue_size)
        self._config = config

    @property
    def of_tenant(self) -> int:
        """How many tasks of one tenant may wait; 0 for any number."""
        share = self._config.tenant_queue_share
        return max(1, int(share * self.limit)) if share < 1 else 0

    def check_share(self, queued: QueuedTask) -> None:
        """Raise `QueueFull` when as many tasks of its tenant wait as may, unless it need not wait."""
        most = self.of_tenant
        if most and self._waiting.tenants[queued.caller.tenant] >= most and not self._is_free(queued):
            raise self.full(
                queued,
                f"{most} tasks of this tenant wait already, the limit is {most} (pipeline.tenant_queue_share)",
            )

    def check_deadline(self, queued: QueuedTask) -> None:
        """Raise `DeadlineTooShort` when a new task would not be answered by its deadline, as far as that is known."""
        # Nothing is predicted while nobody waits.
        if not (self._waiting.tenants and self._config.early_refusal and queued.deadline_ns):
            return
        model = queued.keys[0].model
        wait = self._waiting.predicted(model, queued.priority)
        if wait is None:
            return
        given = (queued.deadline_ns - queued.received_ns) / 1e9
        answer = self._waiting.answer_time(model, queued.max_tokens)
        if wait + answer <= given or self._is_free(queued):
            return
        raise self._too_short(
            queued,
            f"this task would wait some {wait:.1f} s for its turn and take some {answer:.1f} s, and its deadline is "
            f"{given:g} s",
            min(wait, wait + answer - given),
        )

    def too_late(self, queued: QueuedTask, model: str, now_ns: int) -> AnywireError | None:
        """The error for a task that has waited and would not be answered by its deadline if it were sent now, as far as
        that is known: it would take the time of one that can be."""
        if not (self._config.early_refusal and queued.deadline_ns):
            return None
        left = (queued.deadline_ns - now_ns) / 1e9
        if not self._waiting.is_too_late(model, left, queued.max_tokens):
            return None
        answer = self._waiting.answer_time(model, queued.max_tokens)
        return self._too_short(
            queued,
            f"this task has waited for its turn, would take some {answer:.1f} s, and {max(0.0, left):.1f} s are left",
        )

    def full(self, queued: QueuedTask, message: str) -> AnywireError:
        """The error for a task that gets no room. `QueueFull` says when to come back; `NoAgent` where all who serve its
        model are about to go, so that the queue will not get shorter."""
        error: AnywireError
        if not self._registry.may_serve(queued.keys):
            error = errors.NoAgent(f"{message}, and every agent with the model {queued.key.model!r} is draining")
        else:
            error = errors.QueueFull(message, retry_after=self._come_back(queued))
        self._waiting.refused[error.code] += 1
        return error

    def _too_short(self, queued: QueuedTask, what: str, after: float = 0.0) -> AnywireError:
        """The error for a task that would be late, and that may come back ``after`` so many seconds at the earliest."""
        self._waiting.refused[errors.DeadlineTooShort.code] += 1
        return errors.DeadlineTooShort(
            f"{what}: come back later, or give it more time", retry_after=after + self._come_back(queued)
        )

    def _come_back(self, queued: QueuedTask) -> float:
        return self._waiting.come_back(queued.keys[0].model, self._registry.slots(queued.keys[0]))

    def _is_free(self, queued: QueuedTask) -> bool:
        """Whether an agent could take it now."""
        return any(len(self._registry.candidates(key)) for key in queued.keys)
