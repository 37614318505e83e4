"""What services do for tasks: they answer those for their own models, and stand before those of agents' models.

A task that a service answers is ``running`` without an attempt, so that it holds no agent's slot. A task that a service
stands before is ``held`` (why: ``service NAME``), and goes to the queue when no service has an answer for it. What a
service raises, or gives against its contract, is its failure: see `anywire.service`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from anywire import errors
from anywire.boundary import Boundary, label
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.messages import COMMON_KINDS
from anywire.offers import Offer
from anywire.pipeline.services.service_work import PATIENCE, Answer, Asked, ServiceSink
from anywire.pipeline.tasks.task import Task
from anywire.pipeline_settings import PipelineConfig
from anywire.scheduler import QueueKey
from anywire.service import AFTER_FAILURES, Service
from anywire.submission import Submission

log = logging.getLogger(__name__)

DEFAULT_SLOTS = 1024
"""Tasks at once of a service's model whose offer names no slots."""


class ServiceAnswers:
    """The services of one orchestrator. While there are none, a task costs a look into an empty dict."""

    def __init__(self, sink: ServiceSink, boundary: Boundary, clock: Clock, config: PipelineConfig) -> None:
        self.sink, self.boundary, self.clock, self.config = sink, boundary, clock, config
        self._models: dict[str, tuple[Service, Offer]] = {}
        self._before: list[Service] = []
        self._after: list[Service] = []
        self._before_command: list[Service] = []
        self._under_way: dict[str, Answer | Asked] = {}
        """By task id: what a service does for it now."""
        self._answering: Counter[str] = Counter()
        """Answers of each model whose generator has not ended."""
        self._runners: set[asyncio.Task[None]] = set()
        self._children: dict[str, set[str]] = {}
        self.concerned = False
        """Whether a task may concern a service, or another task as its parent."""

    def add(self, service: Service, offers: tuple[Offer, ...]) -> None:
        """Let a started service answer tasks for ``offers``, and stand before others, and after their failure, if its
        class has `before` and `after_failure`. Raises `ConfigError` for a model that another service has."""
        for offer in offers:
            if offer.model in self._models:
                other = self._models[offer.model][0]
                raise errors.ConfigError(
                    f"the services {other.name} and {service.name} both offer the model {offer.model!r}"
                )
            self._models[offer.model] = (service, offer)
        if type(service).before is not Service.before:
            self._before.append(service)
        if type(service).after_failure is not Service.after_failure:
            self._after.append(service)
        if type(service).before_command is not Service.before_command:
            self._before_command.append(service)
        self.concerned = self.concerned or bool(self._models or self._before or self._after)

    async def before_command(self, target: Sequence[str], name: str, caller: Caller) -> None:
        """Ask the services that stand before commands. Raises what one of them refuses it with, or `PluginFailed`."""
        for service in self._before_command:
            try:
                async with asyncio.timeout(service.before_timeout):
                    await service.before_command(target, name, caller)
            except errors.AnywireError:
                raise
            except Exception as error:
                late = isinstance(error, TimeoutError)
                what = f"had nothing to say within {service.before_timeout:g} s" if late else error
                self.boundary.failed(label("service", service), "before_command", what)
                raise errors.PluginFailed(
                    f"the service {service.name} failed before the command {name}, which was not sent; the "
                    "orchestrator's log has more"
                ) from error

    def offers(self) -> Iterator[tuple[str, Offer]]:
        """Every model of a service: the service's name and its offer."""
        for service, offer in self._models.values():
            yield service.name, offer

    def keys(self, submission: Submission) -> tuple[QueueKey, ...]:
        """What stands for a task of a service's model; empty for a model of agents. Raises `InvalidRequest`,
        `ModelStopped` or `QueueFull`."""
        found = self._models.get(submission.model)
        if found is None:
            return ()
        service, offer = found
        if submission.kind not in (offer.kinds or COMMON_KINDS):
            raise errors.InvalidRequest(f"model {offer.model!r} does not do {submission.kind}", param="model")
        if not offer.takes_tasks:
            raise errors.ModelStopped(f"the model {offer.model!r} of the service {service.name} is {offer.state}")
        limit = offer.slots or DEFAULT_SLOTS
        if self._answering[offer.model] >= limit:
            raise errors.QueueFull(f"the service {service.name} answers {limit} tasks for {offer.model!r} already")
        return (QueueKey(submission.model, submission.kind),)

    @property
    def stand_before(self) -> bool:
        """Whether any of them stands before tasks."""
        return bool(self._before)

    def stands_before(self, task: Task) -> str:
        """The first service that stands before a task of an agent's model; empty when none does."""
        return self._before[0].name if self._before and task.submission.model not in self._models else ""

    def answers(self, task: Task) -> bool:
        """Whether a service answers this task."""
        return task.submission.model in self._models

    def begin(self, task: Task) -> None:
        """Do for a new task what the services have to do: answer it, or be asked before it."""
        found = self._models.get(task.submission.model)
        if found is not None:
            self._answer(task, *found)
        else:
            self._under_way[task.task_id] = before = Asked(self, task, tuple(self._before))
            before.ask()

    def stands_after(self, task: Task, error: AnywireError) -> str:
        """The first service that is to be asked for an answer in place of ``error``; empty when none is."""
        if (
            not self._after
            or task.was_rescued
            or task.chunks
            or task.is_probe
            or not isinstance(error, AFTER_FAILURES)
            or task.submission.model in self._models
        ):
            return ""
        return self._after[0].name

    def rescue(self, task: Task, error: AnywireError) -> None:
        """Ask the services for an answer to a held task in place of ``error``, with which it ends otherwise."""
        task.was_rescued = True
        self._under_way[task.task_id] = after = Asked(self, task, tuple(self._after), error)
        after.ask()

    def adopt(self, task: Task) -> None:
        """Note whose child a new task is."""
        self.concerned = True
        self._children.setdefault(task.submission.parent, set()).add(task.task_id)

    def done(self, task: Task) -> None:
        """Nothing is done for this task any more."""
        self._under_way.pop(task.task_id, None)

    def ended(self, task: Task, code: str) -> None:
        """A task has ended: stop what is done for it, and cancel its children unless it was answered."""
        doing = self._under_way.pop(task.task_id, None)
        if doing is not None:
            doing.stop()
        parent = task.submission.parent
        if parent:
            siblings = self._children.get(parent)
            if siblings is not None:
                siblings.discard(task.task_id)
                if not siblings:
                    del self._children[parent]
        children = self._children.pop(task.task_id, None)
        if children and code:
            for child in children:
                self.sink.end_child(child, f"the task {task.task_id} that made it has ended ({code})")

    async def close(self) -> None:
        """Wait until what was stopped has ended, for a bounded time."""
        if self._runners:
            _, left = await asyncio.wait(self._runners, timeout=PATIENCE)
            if left:
                log.error("services have not ended %d cancelled answers; they are left alone", len(left))

    def _answer(self, task: Task, service: Service, offer: Offer) -> None:
        task.place, task.why = "running", label("service", service)
        answer = Answer(self, task, service)
        self._under_way[task.task_id] = answer
        task.stream.on_read(answer.was_read)
        self._answering[offer.model] += 1
        answer.runner = runner = asyncio.get_running_loop().create_task(answer.run())
        self._runners.add(runner)
        runner.add_done_callback(partial(self._answer_ended, offer.model))

    def _answer_ended(self, model: str, runner: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        self._answering[model] -= 1
