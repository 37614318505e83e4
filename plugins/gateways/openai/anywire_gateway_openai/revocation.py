"""What ends when a key is revoked or runs out, although nobody asks for it again: streams and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from anywire.access import KEY_GONE, Access
from anywire.caller import Caller
from anywire.errors import Unauthenticated


def revoked() -> Unauthenticated:
    """What a stream ends with."""
    return Unauthenticated(KEY_GONE)


class Revocations:
    """Tells those who watch a caller's key when it goes. ``rounds`` grows by one each time. Close it."""

    def __init__(self, access: Access) -> None:
        self.rounds = 0
        self._watching: dict[str, list[Callable[[], None]]] = {}
        self.close = access.listen(self._gone)

    def watch(self, caller: Caller, gone: Callable[[], None]) -> Callable[[], None]:
        """Call ``gone`` when the key of ``caller`` goes; returns what ends that. Nothing happens for a caller without
        an id, who has no key."""
        if not caller.id:
            return lambda: None
        self._watching.setdefault(caller.id, []).append(gone)

        def end() -> None:
            watching = self._watching.get(caller.id, [])
            if gone in watching:
                watching.remove(gone)
            if not watching:
                self._watching.pop(caller.id, None)

        return end

    def while_valid(self, caller: Caller) -> WhileValid:
        """A context, of `async with`, that is left with `Unauthenticated` when the key of ``caller`` goes."""
        return WhileValid(self, caller)

    def _gone(self, caller_id: str) -> None:
        self.rounds += 1
        for gone in list(self._watching.get(caller_id, ())):
            gone()


class WhileValid:
    """See `Revocations.while_valid`. It interrupts what its task waits for as `asyncio.timeout` does."""

    def __init__(self, revocations: Revocations, caller: Caller) -> None:
        self._revocations, self._caller = revocations, caller
        self._went = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._end = self._revocations.watch(self._caller, self._gone)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._went and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise revoked() from error

    def _gone(self) -> None:
        if not self._went:
            self._went = True
            self._task.cancel()
