"""The driver at work: orders come, agents are kept running, reports go."""

from __future__ import annotations

import asyncio
import contextlib

from anywire_launcher_ray.driver.agent import DriverAgent
from anywire_launcher_ray.driver.pipe import Pipe
from anywire_launcher_ray.messages import ALIVE_INTERVAL, Alive, Connect, Ended, Start, Stop, order

LAST_GRACE = 2.0
"""Leases that agents have to stop when the launcher is gone."""


async def serve(pipe: Pipe) -> None:
    """Until the end of the orders. Raises `msgspec.ValidationError` for one that is none."""
    reader = await pipe.reader()
    agents: dict[int, DriverAgent] = {}
    stops: set[asyncio.Task[None]] = set()
    alive = asyncio.create_task(_tell_alive(pipe))
    while line := await reader.readline():
        match order(line):
            case Start() as start:
                agents = {number: each for number, each in agents.items() if not each.is_over}
                agent = agents[start.agent] = DriverAgent(start, pipe.tell)
                agent.begin()
            case Stop(number, grace):
                if number in agents:
                    task = asyncio.create_task(agents.pop(number).stop(grace))
                    stops.add(task)
                    task.add_done_callback(stops.discard)
                else:
                    pipe.tell(Ended(number, "stopped (it was not running)"))
            case Connect():
                pass  # it is connected
    left = (agent.stop(LAST_GRACE * agent.lease) for agent in agents.values())
    await asyncio.gather(*stops, *left, return_exceptions=True)
    alive.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await alive


async def _tell_alive(pipe: Pipe) -> None:
    while True:
        await asyncio.sleep(ALIVE_INTERVAL)
        pipe.tell(Alive())
