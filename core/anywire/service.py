"""The contract of a service: something that lives beside an orchestrator, and starts and ends with it.

A service has what a client has, and what an operator sees (`anywire.context.Context`): it submits tasks, sends
commands, follows events, keeps files, serves routes. It may also offer models of its own, and stand before dispatch.

Life
    ``start`` is awaited once the orchestrator is the active one, before clients are let in; what it raises ends the
    process, with the service's name. ``all_started`` is called when the other services have started too,
    ``gate_closed`` when no task is taken in any more, and ``close`` awaited after the running tasks have had their
    grace, also after a ``start`` that failed. A service that hangs in ``close`` is left alone after 5 seconds.

Failures
    What a service raises is its own failure: counted, logged with its name. A task that it answers ends with
    `PluginFailed`, or with the `AnywireError` that ``answer`` raised, which is not counted; one that it stands before
    goes on as if it had returned None. A command that it stands before is not sent. A request for one of its routes is
    answered in the same way as a task.

After failures
    A service whose class has ``after_failure`` may answer in place of the error when all else has failed: the attempts
    that a task may take are used up, no other model may answer in its place, and its client was shown nothing. It is
    asked for the errors in `AFTER_FAILURES`, once for each task, of clients and of services alike. The task is held
    meanwhile (why: ``service NAME``); its deadline goes on, and who cancels it ends it. Its answer has the note
    ``fallback`` with the service's name (over HTTP the header ``x-anywire-fallback``), and the failed attempts have
    counted for their agents as always. A task of a service's own model is not asked about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, ClassVar

import pydantic

from anywire import errors
from anywire.caller import Caller
from anywire.context import Context
from anywire.engine import Delta
from anywire.metric import Metric
from anywire.offers import Offer
from anywire.submission import Submission

AFTER_FAILURES: tuple[type[errors.AnywireError], ...] = (
    errors.AgentLost,
    errors.AgentUnavailable,
    errors.EngineFailed,
    errors.ModelStopped,
    errors.NoAgent,
    errors.NoProgress,
    errors.Refused,
    errors.StreamCorrupted,
)
"""Ends of a task after which services are asked for an answer: those that agents and their absence bring about."""

Answered = Delta | tuple[Delta, ...]


class ServiceConfig(pydantic.BaseModel):
    """A service without settings of its own; a plugin's ``Config`` is another one or extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Service(ABC):
    """One service, configured. ``__init__`` does no I/O."""

    name: ClassVar[str]
    """The name of its entry point; an instance has the one by which it is configured."""
    Config: ClassVar[type[pydantic.BaseModel]] = ServiceConfig
    before_timeout: ClassVar[float] = 1.0
    """Seconds that `before` and `before_command` may take; nothing waits longer for them."""
    after_failure_timeout: ClassVar[float] = 10.0
    """Seconds that `after_failure` may take; then the next service is asked, and after the last one the task ends with
    its error."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    async def start(self, context: Context) -> None:
        """Begin. Raises `ConfigError` when it can never work as configured."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; idempotent."""

    def all_started(self) -> None:  # noqa: B027 - optional for a plugin
        """All services have started: what those offer can be had from now on (`Context.services`), in whatever order
        they are configured."""

    def gate_closed(self) -> None:  # noqa: B027 - optional for a plugin
        """No task is taken in any more: what this service has begun may finish, and begins nothing new."""

    @property
    def offered(self) -> Any:
        """What gateways and other services get by this one's name (`Context.services`); None for nothing."""
        return None

    def metrics(self) -> Iterable[Metric]:
        """Numbers for whoever measures, as they are now; asked for at each scrape of a gateway's ``/metrics``. It must
        return quickly. What is against the contract of `anywire.metric.Metric` is left out, and is its failure."""
        return ()

    def offers(self) -> tuple[Offer, ...]:
        """The models it answers itself, asked for once after ``start``. They go before agents' models of that name, and
        are offered to clients of all gateways and transports, and to the orchestrators that this one joins."""
        return ()

    def answer(self, task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        """Answer a task for one of its models, as an engine would: what it yields is what the client gets. Such a task
        holds no agent's slot; what it submits with ``parent=task_id`` is cancelled with it. Stopped and closed like
        `anywire.engine.Engine.run`. The tokens that the client and `anywire.events.TaskEnded` are told are those of
        ``usage`` in the last delta; without it they are none and 0."""
        raise NotImplementedError

    async def before(self, task_id: str, submission: Submission) -> Answered | None:
        """Stand before dispatch (a cache): a whole answer, or None to let the task go on. Asked for every task of an
        agent's model if the class has it, in the order in which the services are configured; the first answer counts.
        ``submission.body`` may be any text, and this must not raise for it. Give ``usage`` where it is known.
        The task can be followed by its id (`Context.follow`) from here on.

        An answer of several deltas is streamed delta by delta, and joined where ``submission.stream`` is false: their
        texts, the last ``extra``, ``finish_reason`` and ``usage``."""
        return None

    async def after_failure(self, task_id: str, submission: Submission, error: errors.AnywireError) -> Answered | None:
        """Stand after failure (an answer from documents): a whole answer in place of ``error``, or None to let the
        task end with it. See the module's text for when it is asked. Services are asked in the order in which they are
        configured; the first answer counts. ``submission.body`` may be any text, and this must not raise for it. What
        it returns is as in `before`. Say in the answer itself that no model gave it: other orchestrators and
        transports than HTTP carry nothing beside it."""
        return None

    async def before_command(self, target: Sequence[str], name: str, caller: Caller) -> None:  # noqa: B027 - optional
        """Stand before a command to an agent (a second person's consent, a log that must be written first): return to
        let it go on, raise an `AnywireError` to refuse it with that. Asked for every command of an operator if the
        class has it, in the order in which the services are configured, before anything is sent. A command waits
        `before_timeout` for it; then, and when this raises anything else, it is refused with `PluginFailed`."""
