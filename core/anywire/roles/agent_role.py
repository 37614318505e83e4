"""One agent as a process runs it: started, drained when it is asked to stop, closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from anywire.config import Config
from anywire.offers import read_offers
from anywire.roles.agent import Agent
from anywire.roles.stop import Stop

SHOWN = 20
"""Models that a description names."""

log = logging.getLogger(__name__)


async def work(agent: Agent, config: Config, stop: Stop, ready: Callable[[], None] = lambda: None) -> None:
    """Run ``agent`` until it is asked to stop: then it drains for at most ``shutdown_grace`` seconds, and closes.

    ``ready`` is called once, when it is announced on its transports. Raises what `Agent.start` raises.
    """
    try:
        await stop.unless(agent.start())
        ready()
        await stop.wait()
        try:
            async with asyncio.timeout(config.shutdown_grace):
                await agent.drain()
        except TimeoutError:
            log.warning("tasks were still running after %g s (shutdown_grace) and are ended", config.shutdown_grace)
    finally:
        await agent.close()


def description(agent: Agent, config: Config) -> str:
    """An agent in a few words, for a person: id, engine, models, transports."""
    models = [offer.model for offer in read_offers(agent.status().offers)]
    more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    shown = ", ".join(models[:SHOWN]) + more or "no model"
    return f"agent {agent.info.agent_id}, engine {agent.engine.name} ({shown}), over {config.transport_names}"
