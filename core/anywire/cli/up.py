"""``anywire up``: an orchestrator and its agents on this machine, started and ended together."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from anywire.cli import options
from anywire.cli.serve import SETTLE, Served, names, serving

if TYPE_CHECKING:
    from anywire.agent import Agent
    from anywire.cli.eventloop import Stop
    from anywire.config import Config
    from anywire.plugins import Plugins
    from anywire.selector import AgentView

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds until it is said that agents which run do not join."""


class _Agents(Protocol):
    def start(self) -> None: ...
    async def failure(self) -> None:
        """Wait until an agent fails for good, and raise that."""
        ...

    async def ready(self) -> None:
        """Wait until every one has started, joined or not."""
        ...

    async def stop(self) -> None: ...


class _AgentsInside:
    """Agents of this very process, for transports that reach no other."""

    def __init__(self, configs: Mapping[str, Config], plugins: Plugins) -> None:
        from anywire import assembly

        self._agents: list[Agent] = [assembly.make_agent(config, plugins) for config in configs.values()]
        self._started: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._started = [asyncio.create_task(agent.start()) for agent in self._agents]

    async def failure(self) -> None:
        await asyncio.gather(*self._started)
        await asyncio.Event().wait()

    async def ready(self) -> None:
        await asyncio.wait(self._started)

    async def stop(self) -> None:
        for task in self._started:
            task.cancel()
        await asyncio.gather(*self._started, return_exceptions=True)
        await asyncio.gather(*(agent.close() for agent in self._agents))


@asynccontextmanager
async def running(config: Config, plugins: Plugins, count: int, stop: Stop) -> AsyncIterator[Served]:
    """A server whose ``count`` agents have joined. At the end running tasks are finished, then the agents go."""
    from anywire import assembly
    from anywire.cli.supervision import Children
    from anywire.config import replaced

    base = config.agent.id or f"{socket.gethostname()}-{os.getpid()}"
    ids = [f"{base}-{number}" for number in range(1, count + 1)]
    configs = {one: replaced(config, agent=config.agent.model_dump() | {"id": one}) for one in ids}
    agents: _Agents
    if assembly.in_one_process(config, plugins):
        agents = _AgentsInside(configs, plugins)
    else:
        agents = Children(configs, ["anywire.cli", "agent", "--supervised"], timeout=config.shutdown_grace + SETTLE)

    def all_ready(agents: list[AgentView]) -> bool:
        return {each.agent_id for each in agents if each.status.state == "ready"}.issuperset(ids)

    async def warn() -> None:
        await agents.ready()
        await asyncio.sleep(PATIENCE)
        log.warning("agents run but have not joined over %s; `anywire doctor` tells what is missing", names(config))

    failing: asyncio.Task[None] | None = None
    try:
        async with serving(config, plugins, stop) as served:
            agents.start()
            failing = asyncio.create_task(agents.failure())
            waiting = asyncio.create_task(served.orchestrator.agents_until(all_ready))
            warning = asyncio.create_task(warn())
            try:
                await stop.unless(asyncio.wait((failing, waiting), return_when=asyncio.FIRST_COMPLETED))
            finally:
                warning.cancel()
                waiting.cancel()
            if not failing.done():
                failing.add_done_callback(lambda _: stop.request("an agent cannot go on"))
                yield served
            if failing.done():
                failing.result()
    finally:
        if failing is not None:
            failing.cancel()
        await agents.stop()


def up(
    agents: Annotated[int, typer.Option("--agents", "-n", min=1, help="How many agents.")] = 1,
    file: options.File = None,
    host: options.Host = None,
    port: options.Port = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    slots: options.Slots = None,
    agent_id: options.AgentId = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    join: options.Join = None,
    scheduler: options.Scheduler = None,
    selector: options.Selector = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run an orchestrator and agents on this machine, started and ended together."""
    from anywire.cli import eventloop

    config, plugins = options.settle(
        file,
        host=host,
        port=port,
        engine=engine,
        model=model,
        slots=slots,
        agent_id=agent_id,
        transports=transports,
        dds_domain=dds_domain,
        join=join,
        scheduler=scheduler,
        selector=selector,
        plugin_files=plugin_files,
        log_level=log_level,
    )

    async def role(stop: Stop) -> None:
        async with running(config, plugins, agents, stop) as served:
            typer.echo(f"ready: {served.address} ({agents} agents, {names(config)})")
            sys.stdout.flush()
            await stop.wait()

    eventloop.run(role)
