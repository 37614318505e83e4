"""Preemption: a running stream of low priority gives its slot to an urgent task, and goes on later.

It is decided when an urgent task begins to wait and no slot is free for it. Only streams give theirs: those that have
shown nothing, which begin again, and those that can be resumed from what they have shown. Of a unary answer nobody can
say how much was done, so it keeps its slot; so do tasks of kinds that are not sent again (``pipeline.retries.repeat``).
Giving a slot costs no attempt. Once its agent has ended the attempt, the slot is the urgent task's, whatever the
scheduler: hooks and the selector are asked about that agent alone. Where the urgent task does not need it any more, the
next urgent one gets it. Where the slot was lost instead, with its agent, another stream gives one; so it does where the
agent has not ended the attempt within two of its leases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from anywire.clock import Clock, Timer
from anywire.failure_settings import PreemptionConfig
from anywire.messages import Kind
from anywire.pipeline.attempts.attempt_ends import AttemptEnds
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.tasks.task import Attempt, Task


class Preemption:
    """``tasks`` are those that have not ended, ``repeat`` the kinds that may be sent again. Off where
    ``config.urgent`` is unset."""

    def __init__(
        self,
        config: PreemptionConfig,
        repeat: tuple[Kind, ...],
        tasks: Mapping[str, Task],
        open_attempts: OpenAttempts,
        attempt_ends: AttemptEnds,
        dispatcher: Dispatcher,
        registry: Registry,
        counts: Counter[str],
        clock: Clock,
    ) -> None:
        self._config, self._repeat, self._tasks, self._open = config, frozenset(repeat), tasks, open_attempts
        self._attempt_ends, self._dispatcher, self._registry = attempt_ends, dispatcher, registry
        self._counts, self._clock = counts, clock
        self._stopping: dict[tuple[str, int], Timer | None] = {}
        """Attempts that were preempted and have not ended, None for those whose agents are late."""

    def is_urgent(self, priority: int) -> bool:
        """Whether a task of that priority may take the slot of another one."""
        urgent = self._config.urgent
        return urgent is not None and priority >= urgent

    def waits(self, task: Task) -> None:
        """A task waits for its turn after everything that can be sent was sent: if it is urgent, a stream of low
        priority gives its slot."""
        if task.place != "queued" or not self.is_urgent(task.submission.priority) or self._dispatcher.gate_closed:
            return
        if any(self._registry.candidates(key) for key in task.queued.keys):
            return
        attempts = self._open.by_key.values()
        if any(each.reserved_for == task.task_id and self._stopping.get(each.key) for each in attempts):
            return
        giving = [each for each in attempts if self._gives(each) and self._would_do(each, task)]
        if not giving:
            return
        avoided = task.queued.avoid
        attempt = min(giving, key=lambda each: _rank(each, avoided))
        self._counts["preemptions"] += 1
        attempt.task.preempted += 1
        attempt.reserved_for = task.task_id
        pause = 2 * attempt.agent.info.lease_ms / 1000
        # Before the call and not after it: the attempt may have ended when it returns.
        self._stopping[attempt.key] = self._clock.call_later(pause, self._is_late, attempt, task)
        self._attempt_ends.attempt_preempted(attempt)

    def ended(self, attempt: Attempt) -> None:
        """An attempt that was preempted has ended: send the task for which its slot is kept, or another urgent one."""
        timer = self._stopping.pop(attempt.key, None)
        if timer is not None:
            timer.cancel()
        wanting = self._tasks.get(attempt.reserved_for)
        first = [wanting] if wanting is not None and wanting.place == "queued" else []
        for task in first or self._waiting():
            if self._dispatcher.send_to(task, attempt.agent):
                break
        if wanting is not None:
            self.waits(wanting)

    def close(self) -> None:
        """Set no timer any more. Call it once the gate is closed."""
        for timer in self._stopping.values():
            if timer is not None:
                timer.cancel()

    def _is_late(self, attempt: Attempt, task: Task) -> None:
        """Its agent does not stop: who waits for its slot may wait for ever."""
        self._stopping[attempt.key] = None
        self.waits(task)

    def _waiting(self) -> list[Task]:
        """The urgent tasks that wait for their turn, the most urgent and oldest first."""
        waiting = [
            each
            for each in self._dispatcher.waiting_tasks()
            if each.place == "queued" and self.is_urgent(each.submission.priority)
        ]
        return sorted(waiting, key=lambda each: (-each.submission.priority, each.queued.received_ns))

    def _gives(self, attempt: Attempt) -> bool:
        """Whether it is of a stream that may be stopped, and can go on at least where it is now."""
        task = attempt.task
        return (
            not attempt.cancelled
            and task.submission.stream
            and task.submission.kind in self._repeat
            and task.submission.priority <= self._config.below
            and task.preempted < self._config.most
            and len(task.attempts) == 1
            and (not task.chunks or (task.can_resume and task.resumes_on(attempt.agent)))
        )

    def _would_do(self, attempt: Attempt, task: Task) -> bool:
        """Whether the task could be sent to its agent once it has ended."""
        agent = attempt.agent
        if task.chunks and not task.resumes_on(agent):
            return False
        return any(self._registry.would_take(agent, key) for key in task.queued.keys)


def _rank(attempt: Attempt, avoided: tuple[str, ...]) -> tuple[int, bool, int]:
    """Lowest priority first; of equals those at agents that the urgent task does not avoid; of these the one that has
    shown least."""
    return attempt.task.submission.priority, attempt.agent_id in avoided, attempt.task.chunks
