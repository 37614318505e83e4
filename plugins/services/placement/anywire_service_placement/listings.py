"""Asks agents what models they have, and keeps what each has said last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from anywire import errors
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.printable import printable
from anywire.selector import AgentView
from anywire_service_placement.listing import Listing, ListingReader

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that an agent may take to tell."""
AT_ONCE = 32
"""Agents that are asked at the same time; the others follow."""
RETRY = 5.0
"""Seconds until an agent that did not tell is asked again; doubles up to `RETRY_MAX`."""
RETRY_MAX = 60.0
MAX_FAULT_CHARS = 300

_NEVER = (errors.UnknownCommand, errors.Forbidden, errors.InvalidRequest)
"""Errors of an agent that has no commands for models in this life of it."""


class Told(msgspec.Struct):
    """``offers`` is what the agent offered when it was asked, ``states`` the states of these models; where those are
    others now, it is asked again.
    ``fault`` says why there is no listing; ``never``: there will be none."""

    incarnation: int
    offers: str = ""
    states: tuple[tuple[str, str], ...] = ()
    listing: Listing | None = None
    fault: str = ""
    never: bool = False
    stale: bool = False
    failures: int = 0
    retry_at: float = 0.0


class Listings:
    """``changed`` is called whenever an agent has told, or did not."""

    def __init__(self, context: Context, changed: Callable[[], None]) -> None:
        self._context, self._changed = context, changed
        self._told: dict[str, Told] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        """Of these, agents where something was changed meanwhile."""

    def of(self, agent: AgentView) -> Told | None:
        """What this life of an agent has said last."""
        told = self._told.get(agent.agent_id)
        return told if told is not None and told.incarnation == agent.info.incarnation else None

    def look(self, agents: Sequence[AgentView], in_service: Sequence[AgentView], now: float) -> None:
        """Ask those ``in_service`` of which not enough is known; forget those that are none of ``agents``."""
        known = {agent.agent_id for agent in agents}
        for agent_id in [each for each in self._told if each not in known]:
            del self._told[agent_id]
        for agent in in_service:
            if len(self._asking) >= AT_ONCE:
                return
            if agent.agent_id not in self._asking and self._wants(agent, now):
                asking = asyncio.get_running_loop().create_task(self._ask(agent))
                self._asking[agent.agent_id] = asking

    def awaits_first(self, agents: Sequence[AgentView]) -> bool:
        """Whether one of them has been asked, or will be, and has never answered."""
        return any(self.of(agent) is None for agent in agents)

    def expire(self, agent_id: str) -> None:
        """Something was changed there: ask again."""
        if agent_id in self._asking:
            self._again.add(agent_id)
        told = self._told.get(agent_id)
        if told is not None:
            told.stale = True

    def expire_all(self) -> None:
        for told in self._told.values():
            told.stale = True

    @property
    def next(self) -> float | None:
        """When the next one that did not tell is asked again."""
        return min((each.retry_at for each in self._told.values() if each.retry_at), default=None)

    async def close(self) -> None:
        asking = list(self._asking.values())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _wants(self, agent: AgentView, now: float) -> bool:
        told = self.of(agent)
        if told is None:
            return True
        if told.never:
            return False
        if told.retry_at:
            return now >= told.retry_at
        if told.stale:
            return True
        if told.offers == agent.status.offers:
            return False
        told.offers = agent.status.offers
        return told.states != _states(agent)

    async def _ask(self, agent: AgentView) -> None:
        told = Told(agent.info.incarnation, agent.status.offers, _states(agent))
        before = self.of(agent)
        try:
            told.listing = await self._listing(agent.agent_id)
        except _NEVER as error:
            told.never, told.fault = True, str(error)
        except AnywireError as error:
            told.fault = str(error)
        except ValueError as error:
            told.never, told.fault = True, str(error)
        except Exception as error:
            told.fault = f"{type(error).__name__}: {error}"
            log.exception("the models of agent %s cannot be listed", printable(agent.agent_id))
        finally:
            del self._asking[agent.agent_id]
            told.stale = agent.agent_id in self._again
            self._again.discard(agent.agent_id)
        if told.fault:
            told.fault = printable(told.fault, MAX_FAULT_CHARS)
            told.listing = before.listing if before is not None and not told.never else None
            told.failures = 1 + (before.failures if before is not None else 0)
            if not told.never:
                pause = min(RETRY * 2 ** min(told.failures - 1, 10), RETRY_MAX)
                told.retry_at = self._context.clock.now() + pause
            if before is None or before.fault != told.fault:
                log.info("placement leaves agent %s alone: %s", printable(agent.agent_id), told.fault)
        self._told[agent.agent_id] = told
        self._changed()

    async def _listing(self, agent_id: str) -> Listing:
        reader = ListingReader()
        async with aclosing(self._context.command((agent_id,), "models.list", deadline=TIMEOUT)) as results:
            async for result in results:
                if not reader.take(result):
                    break
        return reader.listing()


def _states(agent: AgentView) -> tuple[tuple[str, str], ...]:
    return tuple([(model, offer.state) for model, offer in agent.offers.items()])
