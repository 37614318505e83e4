"""The owner of all models: one task, one mailbox.

Who wants something of a model sends the owner a message and awaits its answer; nobody else starts, stops or changes
anything. Answers of models never pass through the owner: it gives a turn at a server (`ModelHost.use`), and the caller
speaks with that server itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from anywire.clock import Clock
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Devices, Launcher, Server
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.host.status import Listener, MemoryUse, ModelStatus


class ModelHost:
    """Owns every process of its models; see the module's text. All methods are called on the event loop.

    Every call is answered: with a result, with an error of `anywire.errors`, or by cancellation of the caller. Errors
    are `ModelNotFound` (no such model, the nearest names said), `ModelStopped` (409: it is not running and may not be
    started by a request; says how to start it), `EngineFailed` (it did not start, or ended; its reason, and that the log
    has its last lines), `QueueFull` (too many wait), `InvalidRequest` (it can never fit the budget), `ShuttingDown`.
    """

    def __init__(
        self,
        launcher: Launcher,
        devices: Devices,
        settings: HostSettings | None = None,
        *,
        clock: Clock | None = None,
    ) -> None: ...

    async def begin(self, models: Sequence[HostedModel]) -> None:
        """Start the owner with these models, and those with ``autostart`` in the background."""

    async def start(self, name: str) -> ModelStatus:
        """Start a model and return when it runs; at once if it does. Starts of one model share one process. Waits for
        memory while others serve. Raises `EngineFailed` when it did not start."""
        raise NotImplementedError

    async def stop(self, name: str, *, reason: str = "asked to") -> ModelStatus:
        """Stop a model, also one that is starting, and return when its process is gone; at once if it is stopped.
        Requests under way end with its server. A crashed model is stopped then."""
        raise NotImplementedError

    async def unload(self, name: str) -> ModelStatus:
        """Stop a model if nothing is served, waits or is pinned there; otherwise raises `InvalidRequest` that says
        what. For placement: it takes nothing from anybody."""
        raise NotImplementedError

    def use(
        self, name: str, told: Callable[[str], None] = lambda detail: None
    ) -> AbstractAsyncContextManager[Server]:
        """A turn at a model for one request: ``async with host.use(name) as server``. Waits for a slot, and starts an
        ``on_demand`` model; ``told`` is called with what it waits for (``loading``, ``all 2 slots are in use`` …).
        While it is held, the model makes room for nobody. Raises as the class says."""
        raise NotImplementedError

    async def pin(self, name: str, pinned: bool) -> ModelStatus:
        raise NotImplementedError

    async def replace(self, models: Sequence[HostedModel]) -> None:
        """These are the models from now on. Running ones are untouched, also when their settings changed (they count
        from the next start on) or they are no longer there (they are stopped when nothing is served any more)."""

    def status(self, name: str) -> ModelStatus:
        """Now; changes nothing. Raises `ModelNotFound`."""
        raise NotImplementedError

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Of all models, in their order."""
        raise NotImplementedError

    def memory(self) -> MemoryUse:
        raise NotImplementedError

    def logs(self, name: str, *, lines: int = 100, follow: bool = False) -> AsyncIterator[str]:
        """The newest lines of a model's servers, oldest first, over all its lives; with ``follow`` those to come too,
        until it is closed. A reader that is slow misses lines and is told how many. Raises `ModelNotFound`."""
        raise NotImplementedError

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at every change; returns what ends that."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop all models, answer all who wait with `ShuttingDown`, end the owner; idempotent. Nothing is left."""
