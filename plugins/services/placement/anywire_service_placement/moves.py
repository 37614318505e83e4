"""Carries steps out by commands to agents, one at a time at each, and remembers what came of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from anywire import errors
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.offers import Offer
from anywire.printable import printable
from anywire.secrecy import without_secrets
from anywire.selector import AgentView
from anywire_service_placement.load_times import LoadTimes
from anywire_service_placement.pauses import Pauses
from anywire_service_placement.places import Pair, State, Step

log = logging.getLogger(__name__)

LATE = 10.0
"""Seconds after which an agent is late with a step."""
UNLOAD_TIMEOUT = 60.0
"""Seconds that unloading a model may take."""
KEPT = 50
"""Moves that have ended and are still told of."""
MAX_ERROR_CHARS = 500

_IN_WORK: Mapping[str, State] = {"load": "starting", "unload": "stopping"}
_DONE: Mapping[str, State] = {"load": "running", "unload": "stopped"}


class Moving(msgspec.Struct):
    """A step under way at one life of an agent. ``progress`` is 0.0 to 1.0, where the agent tells it."""

    step: Step
    incarnation: int
    began: float
    task: asyncio.Task[None] | None = None
    progress: float = 0.0


class Moved(msgspec.Struct, frozen=True):
    """A step that has ended at ``time`` (seconds since 1970); ``error`` is empty where it was done."""

    step: Step
    seconds: float
    time: float
    error: str = ""


class _Done(msgspec.Struct, frozen=True):
    """What a model's state is at an agent that has not reported it yet."""

    state: State
    incarnation: int
    until: float


class Moves:
    """``ended`` is called with each step that has ended, and whether it was done. ``publish`` tells an event by its
    name and data. An answer counts as the state of a model until the agent's own report shows it, ``lag`` seconds at
    most."""

    def __init__(
        self,
        context: Context,
        pauses: Pauses,
        load_timeout: float,
        lag: float,
        ended: Callable[[Step, bool], None],
        publish: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._context, self._pauses, self._load_timeout, self._lag = context, pauses, load_timeout, lag
        self._ended, self._publish = ended, publish
        self.moving: dict[str, Moving] = {}
        """By agent."""
        self.recent: deque[Moved] = deque(maxlen=KEPT)
        self.load_times = LoadTimes()
        self._done: dict[Pair, _Done] = {}
        self._refused: dict[Pair, float] = {}
        """Unloads that an agent has refused, and until when it is not asked again."""

    def begin(self, step: Step, agent: AgentView) -> None:
        """Carry a step out at an agent where none is under way."""
        now = self._context.clock.now()
        moving = self.moving[step.agent_id] = Moving(step, agent.info.incarnation, now)
        self._done.pop((step.agent_id, step.model), None)
        moving.task = asyncio.get_running_loop().create_task(self._carry_out(moving))
        self._publish(f"{step.action}.begun", _told(step))

    def is_moving(self, agent_id: str) -> bool:
        return agent_id in self.moving

    def is_late(self, agent_id: str, now: float) -> bool:
        """Whether what is under way there takes long: what is missing goes to others rather."""
        moving = self.moving.get(agent_id)
        return moving is not None and now >= moving.began + LATE

    def state(self, agent: AgentView, model: str, offer: Offer, now: float) -> State | None:
        """The state of a model as this side knows it better than the agent's ``offer``; None where it does not."""
        moving = self.moving.get(agent.agent_id)
        if moving is not None and moving.step.model == model and moving.incarnation == agent.info.incarnation:
            return _IN_WORK[moving.step.action]
        pair = (agent.agent_id, model)
        done = self._done.get(pair)
        if done is None:
            return None
        behind = ("stopped", "starting") if done.state == "running" else ("ready",)
        if done.incarnation != agent.info.incarnation or now >= done.until or offer.state not in behind:
            del self._done[pair]
            return None
        return done.state

    def is_refused(self, pair: Pair, now: float) -> bool:
        """Whether the agent has said a moment ago that the model cannot be unloaded now."""
        return now < self._refused.get(pair, now)

    def forget_refusals(self) -> None:
        """All models may be tried to be unloaded again."""
        self._refused.clear()

    @property
    def times(self) -> list[float]:
        """When something that is remembered here counts no more, or an agent is late."""
        times = [each.until for each in self._done.values()] + list(self._refused.values())
        times += [each.began + LATE for each in self.moving.values()]
        return times

    async def close(self) -> None:
        """End what is under way; the agents may go on with it."""
        tasks = [moving.task for moving in self.moving.values() if moving.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, moving: Moving) -> None:
        step, error = moving.step, ""
        refused = False
        try:
            await self._command(moving)
        except errors.InvalidRequest as failed:
            error, refused = str(failed), True
        except AnywireError as failed:
            error = str(failed) or failed.code
        except Exception as failed:
            error = f"{type(failed).__name__}: {failed}"
            log.exception("placement cannot %s %s at agent %s", step.action, step.model, printable(step.agent_id))
        finally:
            del self.moving[step.agent_id]
        now = self._context.clock.now()
        error = without_secrets(printable(error, MAX_ERROR_CHARS))
        self._note(moving, now, error, refused)
        self._ended(step, not error)

    async def _command(self, moving: Moving) -> None:
        step = moving.step
        name = "models.start" if step.action == "load" else "models.unload"
        deadline = self._load_timeout if step.action == "load" else UNLOAD_TIMEOUT
        results = self._context.command((step.agent_id,), name, {"model": step.model}, deadline=deadline)
        async with aclosing(results):
            async for result in results:
                progress = result.get("progress", 0.0) if isinstance(result, dict) else 0.0
                if isinstance(progress, int | float) and 0.0 <= progress <= 1.0:
                    moving.progress = float(progress)

    def _note(self, moving: Moving, now: float, error: str, refused: bool) -> None:
        step, seconds = moving.step, now - moving.began
        pair = (step.agent_id, step.model)
        self._done = {each: done for each, done in self._done.items() if now < done.until}
        self._refused = {each: until for each, until in self._refused.items() if now < until}
        self.recent.append(Moved(step, seconds, time.time(), error))
        if step.action == "load":
            self._pauses.ended(pair, now)
            if error:
                self.load_times.failed(step.model)
            else:
                self.load_times.loaded(step.model, seconds)
        elif error:
            # What serves is asked again soon; what fails otherwise no more often.
            self._refused[pair] = now + self._pauses.shortest
        else:
            self.load_times.unloads += 1
        if not error:
            self._done[pair] = _Done(_DONE[step.action], moving.incarnation, now + self._lag)
        named = (step.action, step.model, printable(step.agent_id))
        if error and not refused:
            log.warning("placement: cannot %s %s at agent %s: %s", *named, error)
        else:
            what = f"was refused: {error}" if error else step.reason
            log.info("placement: %s %s at agent %s after %.2f s: %s", *named, seconds, what)
        name = f"{step.action}.failed" if error else f"{step.action}.done"
        self._publish(name, _told(step) | {"seconds": round(seconds, 3)} | ({"error": error} if error else {}))


def _told(step: Step) -> dict[str, Any]:
    return {"agent_id": step.agent_id, "model": step.model, "reason": step.reason}
