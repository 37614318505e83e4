"""The owner of all models: one task, one mailbox.

Who wants something of a model sends the owner a message and awaits its answer; nobody else starts, stops or changes
anything. Answers of models never pass through the owner: it gives a turn at a server (`ModelHost.use`), and the caller
speaks with that server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from anywire.clock import Clock, SystemClock, Timer
from anywire.errors import AnywireError, EngineFailed, InvalidRequest, ShuttingDown
from anywire_engine_models.host.calls import Call, Calls
from anywire_engine_models.host.effects import Answer, Effect, End, Fail, Forget, Grant, Launch, Tell
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.life import Life
from anywire_engine_models.host.listeners import Listeners
from anywire_engine_models.host.model_log import Logged, ModelLog
from anywire_engine_models.host.refusals import is_closing
from anywire_engine_models.host.residency import Residency
from anywire_engine_models.host.server import Devices, Launcher, Server
from anywire_engine_models.host.settings import HostSettings, MemoryBudget
from anywire_engine_models.host.status import Listener, MemoryUse, ModelChanged, ModelStatus

LEFT_PATIENCE = 1.0
"""Seconds that what hangs at the end has to heed its cancellation."""

log = logging.getLogger(__name__)


class ModelHost:
    """Owns every process of its models; see the module's text. All methods are called on the event loop.

    Every call is answered: with a result, with an error of `anywire.errors`, or by cancellation of the caller. Errors
    are `ModelNotFound` (no such model, the nearest name said), `ModelStopped` (409: it is not running and may not be
    started by a request; says how to start it), `EngineFailed` (it did not start, or ended; its reason, and that the
    log has its last lines), `QueueFull` (too many wait), `InvalidRequest` (it can never fit the budget),
    `ShuttingDown`.

    A caller that is cancelled while it waits leaves no trace; a start that has begun for it goes on.
    """

    def __init__(
        self,
        launcher: Launcher,
        devices: Devices,
        settings: HostSettings | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._launcher, self._devices = launcher, devices
        self._settings = settings or HostSettings()
        self._clock = clock or SystemClock()
        self._residency = Residency(self._settings)
        self._mailbox: asyncio.Queue[tuple[Callable[[float], None], Call | None]] = asyncio.Queue()
        self._calls = Calls()
        self._lives: dict[str, Life] = {}
        self._logs: dict[str, ModelLog] = {}
        self._listeners = Listeners()
        self._timer: Timer | None = None
        self._owner: asyncio.Task[None] | None = None
        self._is_closing = False

    async def begin(self, models: Sequence[HostedModel]) -> None:
        """Start the owner with these models, and those with ``autostart`` in the background. Raises `InvalidRequest`
        when two have the same name."""
        if self._owner is not None or self._is_closing:
            raise RuntimeError("a host of models begins once")
        _check_names(models)
        self._owner = asyncio.create_task(self._own(), name="owner of models")
        await self._have_done(lambda now: self._residency.begin(models, now))

    async def start(self, name: str) -> ModelStatus:
        """Start a model and return when it runs; at once if it does. Starts of one model share one process. Waits for
        memory while others serve. Raises `EngineFailed` when it did not start."""
        return await self._ask_for_status(lambda call, now: self._residency.start(call.ticket, name, now))

    async def stop(self, name: str, *, reason: str = "asked to") -> ModelStatus:
        """Stop a model, also one that is starting, and return when its process is gone; at once if it is stopped.
        Requests under way end with its server; those that wait for it get `ModelStopped`. A crashed model is stopped
        then. Raises `EngineFailed` when its process does not end."""
        return await self._ask_for_status(lambda call, now: self._residency.stop(call.ticket, name, reason, now))

    async def unload(self, name: str) -> ModelStatus:
        """Stop a model if nothing is served, waits or is pinned there; otherwise raises `InvalidRequest` that says
        what. For placement: it takes nothing from anybody."""
        return await self._ask_for_status(lambda call, now: self._residency.unload(call.ticket, name, now))

    @contextlib.asynccontextmanager
    async def use(self, name: str, told: Callable[[str], None] = lambda detail: None) -> AsyncIterator[Server]:
        """A turn at a model for one request: ``async with host.use(name) as server``. Waits for a slot, and starts an
        ``on_demand`` model; ``told`` is called with what it waits for (``loading``, ``all 2 slots are in use`` …).
        While it is held, the model makes room for nobody. Raises as the class says."""
        call = self._calls.open(told)
        try:
            self._send(lambda now: self._residency.use(call.ticket, name, now), call)
            server: Server = await call.result
            yield server
        finally:
            self._leave(call)

    async def pin(self, name: str, pinned: bool) -> ModelStatus:
        """Have a model make room for nobody, or for others again. Starts and stops nothing."""
        return await self._ask_for_status(lambda call, now: self._residency.pin(call.ticket, name, pinned, now))

    async def replace(self, models: Sequence[HostedModel]) -> None:
        """These are the models from now on. Running ones are untouched, also when their settings changed (they count
        from the next start on; ``pinned`` and ``on_demand`` at once) or they are no longer there (they are stopped when
        nothing is served any more). Raises `InvalidRequest` when two have the same name."""
        _check_names(models)
        await self._have_done(lambda now: self._residency.replace(models, now))

    def status(self, name: str) -> ModelStatus:
        """Now; changes nothing. Raises `ModelNotFound`."""
        return self._residency.find(name, removed_too=True).status()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Of all models, in their order."""
        return self._residency.statuses()

    def memory(self) -> MemoryUse:
        return self._residency.memory()

    def set_budget(self, budget: MemoryBudget) -> None:
        """What all models may take from now on, before any further start. Ends nothing that is used: where models take
        more, those that are idle and ``on_demand`` leave, and nothing starts until there is room."""
        self._residency.set_budget(budget)
        self._post(lambda now: None)

    def logs(
        self, name: str, *, lines: int = 100, follow: bool = False, after: str = ""
    ) -> AsyncGenerator[Logged, None]:
        """The newest lines of a model's servers, oldest first, over all its lives, or those ``after`` the line of that
        id; with ``follow`` those to come too, until it is closed. A reader that is too slow misses lines and is told
        how many. Raises `ModelNotFound`."""
        return self._log_of(self._residency.find(name, removed_too=True).name).read(lines, follow, after)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at every change; returns what ends that."""
        return self._listeners.add(listener)

    async def close(self) -> None:
        """Stop all models, answer all who wait with `ShuttingDown`, end the owner; idempotent. Nothing is left but
        processes that do not end, which are logged."""
        if not self._is_closing:
            self._is_closing = True
            self._post(self._residency.close)
        if self._owner is not None:
            await asyncio.wait({self._owner})
            await self._end_lives()

    # The mailbox

    def _post(self, message: Callable[[float], None], call: Call | None = None) -> None:
        """Have the owner call this with the time. Dropped when it has ended."""
        if self._owner is not None and not self._owner.done():
            self._mailbox.put_nowait((message, call))

    def _send(self, message: Callable[[float], None], call: Call) -> None:
        """`_post` for somebody who waits. Raises `ShuttingDown` when nobody would answer."""
        if self._owner is None:
            raise ShuttingDown("the host of the models has not begun")
        if self._is_closing or self._owner.done():
            raise is_closing()
        self._post(message, call)

    def _leave(self, call: Call) -> None:
        self._calls.close(call)
        self._post(lambda now: self._residency.leave(call.ticket, now))

    async def _ask(self, message: Callable[[Call, float], None]) -> Any:
        """Send a message and await its answer."""
        call = self._calls.open()
        try:
            self._send(lambda now: message(call, now), call)
            return await call.result
        except asyncio.CancelledError:
            self._leave(call)
            raise
        finally:
            self._calls.close(call)

    async def _ask_for_status(self, message: Callable[[Call, float], None]) -> ModelStatus:
        status: ModelStatus = await self._ask(message)
        return status

    async def _have_done(self, action: Callable[[float], None]) -> None:
        """Have the owner do something that has no answer; returns when it is done."""

        def act(call: Call, now: float) -> None:
            action(now)
            call.answer(None)

        await self._ask(act)

    # The owner

    async def _own(self) -> None:
        try:
            while not self._residency.is_finished:
                self._handle(*await self._mailbox.get())
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._calls.fail_all(is_closing)
            for each in self._logs.values():
                each.close()

    def _handle(self, message: Callable[[float], None], call: Call | None = None) -> None:
        now = self._clock.now()
        try:
            message(now)
        except AnywireError as error:
            if call is not None:
                call.fail(error)
        except Exception as error:
            log.exception("the host of the models has a fault")
            if call is not None:
                call.fail(EngineFailed(f"the host of the models has a fault, see its log: {error!r}"))
        try:
            effects = self._residency.settle(now)
        except Exception:
            log.exception("the host of the models has a fault")
            effects = []
        for effect in effects:
            self._apply(effect)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._residency.next_time(now)
        if due is not None:
            # A little later, so that rounding never makes it too early.
            self._timer = self._clock.call_later(max(0.0, due - now) + 1e-6, self._post, lambda now: None)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case Launch(model):
                self._live(model)
            case End(name):
                self._lives[name].end()
            case Grant(ticket, name):
                self._calls.answer(ticket, self._lives[name].server)
            case Answer(ticket, status):
                self._calls.answer(ticket, status)
            case Fail(ticket, error):
                self._calls.fail(ticket, error)
            case Tell(ticket, detail):
                self._calls.tell(ticket, detail)
            case Forget(name):
                self._lives.pop(name, None)
                self._listeners.forget(name)
                if name in self._logs:
                    self._logs.pop(name).close()
            case ModelChanged():
                self._listeners.tell(effect)

    def _live(self, model: HostedModel) -> None:
        life = self._lives[model.name] = Life(
            model,
            self._launcher,
            self._devices,
            self._clock,
            self._log_of(model.name),
            self._residency.course,
            self._post,
        )
        life.task.add_done_callback(lambda task: self._log_fault(model.name, life))

    def _log_fault(self, name: str, life: Life) -> None:
        if not life.task.cancelled() and (error := life.task.exception()) is not None:
            log.error("the host of the models has a fault at %s", name, exc_info=error)

    async def _end_lives(self) -> None:
        """Cancel what does not end by itself."""
        tasks = [life.task for life in self._lives.values() if not life.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LEFT_PATIENCE)

    def _log_of(self, name: str) -> ModelLog:
        if name not in self._logs:
            self._logs[name] = ModelLog(self._settings.log_lines)
        return self._logs[name]


def _check_names(models: Sequence[HostedModel]) -> None:
    twice = [name for name, times in Counter(model.name for model in models).items() if times > 1]
    if twice:
        raise InvalidRequest(f"two models are named {twice[0]!r}: each needs an identifier of its own")
