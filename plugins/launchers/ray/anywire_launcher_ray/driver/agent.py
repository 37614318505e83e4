"""One agent as the driver sees it: an actor after the other, through all their lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
import ray
from ray.exceptions import ActorUnavailableError, RayError

from anywire_launcher_ray.actor import Hello, State
from anywire_launcher_ray.driver.ray_actor import make
from anywire_launcher_ray.driver.words import lacking, of_error
from anywire_launcher_ray.messages import (
    Down,
    Ended,
    FromDriver,
    Place,
    Placed,
    Reported,
    Start,
    Waiting,
    shortened,
)
from anywire_launcher_ray.pauses import Pauses
from anywire_launcher_ray.sealed import seal

log = logging.getLogger(__name__)

FIRST_RETRY = 0.05
"""Seconds before an actor that was lost is asked again where it is, the first time."""
PLACE_PATIENCE = 10.0
"""Seconds without a place after which that is told."""
ASK_LEASES = 0.5
"""Leases that a question for an agent's state waits for a change."""
SETTLE = 5.0
"""Seconds beyond its grace that an actor has to answer, and then to end."""


class DriverAgent:
    """Keeps one agent running. `begin` starts it, `stop` ends it; ``tell`` gets the reports, `Ended` last."""

    def __init__(self, start: Start, tell: Callable[[FromDriver], None]) -> None:
        self.lease = start.lease
        self._start, self._tell = start, tell
        self._was_ready = start.was_ready
        self._stopping = asyncio.Event()
        self._actor: Any = None
        self._has_begun = False
        self._running: asyncio.Task[None] | None = None
        self._reason = ""

    @property
    def is_over(self) -> bool:
        """Whether `Ended` was told."""
        return self._running is not None and self._running.done()

    def begin(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._keep_running())

    async def stop(self, grace: float) -> None:
        """Stop the agent, kill it after ``grace`` seconds, and end its actor. Returns once `Ended` is told."""
        self._stopping.set()
        if self._running is None:
            return
        if self._has_begun:
            with contextlib.suppress(RayError, TimeoutError):
                async with asyncio.timeout(grace + SETTLE):
                    self._reason = await self._actor.stop.remote(grace)
        self._end_actor()
        await asyncio.wait((self._running,), timeout=SETTLE)
        if not self._running.done():
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _keep_running(self) -> None:
        pauses = Pauses()
        reason = "stopped"
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                reason = await self._have_actor()
                if self._stopping.is_set() or not self._was_ready:
                    break
                self._tell(Down(self._start.agent, shortened(reason)))
                await self._pause(pauses.after(time.monotonic() - began))
        except asyncio.CancelledError:
            reason = "its actor did not answer and is left to Ray"
        self._tell(Ended(self._start.agent, shortened(self._reason or reason)))

    async def _have_actor(self) -> str:
        """One actor, from its making to its end for good; why it ended."""
        pauses = Pauses(FIRST_RETRY)
        try:
            actor = self._actor = make(self._start)
            while True:
                began = time.monotonic()
                hello = await self._placed(actor)
                try:
                    return await self._live(actor, hello)
                except ActorUnavailableError as error:
                    # Ray starts it again, or the way to it is lost for a while.
                    self._has_begun = False
                    if self._stopping.is_set():
                        return of_error(error)
                    self._tell(Down(self._start.agent, shortened(of_error(error))))
                    await self._pause(pauses.after(time.monotonic() - began))
        except Exception as error:
            return of_error(error)
        finally:
            self._end_actor()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _placed(self, actor: Any) -> Hello:
        """Wait until it lives somewhere."""
        asked = asyncio.ensure_future(_result(actor.hello.remote()))
        try:
            await asyncio.wait((asked,), timeout=PLACE_PATIENCE)
            if not asked.done():
                reason = await asyncio.to_thread(_lacking, self._start.place)
                self._tell(Waiting(self._start.agent, shortened(reason)))
            return msgspec.msgpack.decode(await asked, type=Hello)
        finally:
            asked.cancel()

    async def _live(self, actor: Any, hello: Hello) -> str:
        """One life of the actor; why the agent ended in it. Raises `ActorUnavailableError` when the life ended."""
        self._tell(Placed(self._start.agent, hello.life, hello.host, hello.node, hello.address))
        self._has_begun = True
        await actor.begin.remote(seal(self._start.config.encode(), hello.key))
        seen = State(hello.life, 0, 0)
        while True:
            answer = await actor.report.remote(seen.change, seen.line, ASK_LEASES * self.lease)
            state = msgspec.msgpack.decode(answer, type=State)
            if state.life != hello.life:
                raise ActorUnavailableError("its worker was lost", None)
            self._was_ready |= state.ready
            if (state.change, state.line) != (seen.change, seen.line):
                lines = [shortened(line) for line in state.lines]
                self._tell(Reported(self._start.agent, hello.life, state.pid, state.restarts, state.ready, lines))
            seen = state
            if state.ended is not None:
                return state.ended

    def _end_actor(self) -> None:
        actor, self._actor, self._has_begun = self._actor, None, False
        if actor is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor, no_restart=True)


async def _result(reference: Any) -> bytes:
    found: bytes = await reference
    return found


def _lacking(place: Place) -> str:
    return lacking(place, ray.cluster_resources(), ray.available_resources())
