"""How long a test waits, and what ends a wait early: something awaited that fails with a sentence instead of hanging.

The environment variable ``ANYWIRE_TEST_PATIENCE`` (a number, default 1) multiplies every such time: set it to 3 on a
machine that is slow or busy. No time here is a measure of speed; only a broken transport uses it up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

FACTOR = float(os.environ.get("ANYWIRE_TEST_PATIENCE", "1"))
"""What multiplies every time that a test waits."""

PATIENCE = 20.0 * FACTOR
"""Seconds until something awaited is given up."""

START_PATIENCE = 30.0 * FACTOR
"""Seconds until a process that was started must be ready."""

T = TypeVar("T")


class Breaches:
    """What the transport under test has done against its contract, a sentence each; see `anywire.testing.laws`.

    Use it as a context manager: while it is open, `expect` fails as soon as a breach is added, so that the test that
    waits fails with the law's sentence and not with its patience.
    """

    _open: ClassVar[list[Breaches]] = []

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._raised = 0
        self._allowed: list[str] = []
        self._waits: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Breaches:
        self._loop = asyncio.get_running_loop()
        self._open.append(self)
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.remove(self)

    def allow(self, words: str) -> None:
        """Ignore breaches with ``words`` in their sentence: for a test that forges messages, and for no other."""
        self._allowed.append(words)

    def add(self, sentence: str) -> None:
        """Record a breach; called from any thread. Equal sentences are recorded once."""
        if sentence in self.sentences or any(words in sentence for words in self._allowed):
            return
        self.sentences.append(sentence)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_waits)

    def check(self) -> None:
        """Raises `AssertionError` with every sentence when there is one."""
        if self.sentences:
            self._raised = len(self.sentences)
            raise AssertionError("the transport broke its contract: " + "; ".join(self.sentences))

    def check_rest(self) -> None:
        """`check`, unless all of them were raised already."""
        if self._raised < len(self.sentences):
            self.check()

    def _end_waits(self) -> None:
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)

    @classmethod
    def check_all(cls) -> None:
        """`check` of all that are open."""
        for breaches in cls._open:
            breaches.check()

    @classmethod
    def watch(cls, wait: asyncio.Future[Any]) -> None:
        """Set the result of ``wait`` when one is added."""
        for breaches in cls._open:
            breaches._waits.add(wait)
            wait.add_done_callback(breaches._waits.discard)


async def expect(
    awaited: Awaitable[T], what: str, patience: float | None = None, seen: Callable[[], str] | None = None
) -> T:
    """The result of ``awaited``.

    ``what`` completes the sentence "did not happen within … s: …". ``patience`` is in seconds, by default `PATIENCE`.
    ``seen()`` adds what did happen. Raises `AssertionError` when the patience is over or a `Breaches` that is open
    gets a breach; what ``awaited`` raises is raised here.
    """

    if patience is None:
        patience = PATIENCE

    async def wait() -> T:
        return await awaited

    waiting: asyncio.Future[Any] = asyncio.ensure_future(wait())
    breach: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        Breaches.check_all()
        Breaches.watch(breach)
        await asyncio.wait({waiting, breach}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        Breaches.check_all()
        if waiting.done():
            result: T = waiting.result()
            return result
    finally:
        breach.cancel()
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=1.0)
        if waiting.done():
            # What it raised is not the reason of the failure when a breach is; and it may not have begun at all.
            _ = waiting.cancelled() or waiting.exception()
            if asyncio.iscoroutine(awaited):
                awaited.close()
    raise AssertionError(f"did not happen within {patience:g} s: {what}{seen() if seen else ''}")


async def polled(
    condition: Callable[[], object], what: str, patience: float | None = None, seen: Callable[[], str] | None = None
) -> None:
    """Wait until ``condition()`` is true, for what tells nobody when it has changed, such as a counter. Otherwise as
    `expect`."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await expect(wait(), what, patience, seen)
