"""Agents of one process that have nothing to do: ``python benchmarks/idle_agents.py TRANSPORT OPTIONS COUNT [NAME]``.

Their ids begin with NAME. Each has a transport of its own and the shipped lease. It ends at the end of its standard
input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from anywire.identity import agent_info
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from raw_round_trip import until_stdin_ends
from transport_stack import new_event_loop


async def hold(transport: str, options: dict[str, Any], count: int, name: str) -> None:
    plugins = Plugins()
    async with AsyncExitStack() as stack:
        for number in range(count):
            engine = plugins.create("engines", "synthetic", {})
            info = agent_info(f"{name}-{number}", engine=engine)
            agent = Agent(info, engine, [plugins.create("transports", transport, options)], slots=8)
            await agent.start()
            stack.push_async_callback(agent.close)
        await until_stdin_ends()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        transport, options, count, *name = sys.argv[1:]
        runner.run(hold(transport, json.loads(options), int(count), *name or ("idle",)))
