"""``anywire serve`` and ``anywire agent``: the two roles, one process each."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from anywire.cli import options
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.agent import Agent
    from anywire.cli.eventloop import Stop
    from anywire.config import Config
    from anywire.gateway import Gateway
    from anywire.messages import HubInfo
    from anywire.pipeline.orchestrator import Orchestrator
    from anywire.plugins import Plugins
    from anywire.transport import Candidacy, Elects

log = logging.getLogger(__name__)

SETTLE = 5.0
"""Seconds a role gets beyond its grace to give everything back."""


class Served(NamedTuple):
    orchestrator: Orchestrator
    gateways: Sequence[Gateway]

    @property
    def address(self) -> str:
        return self.gateways[0].address


class _Service:
    """An orchestrator with its gateways, clients and parents, in steps."""

    def __init__(self, config: Config, plugins: Plugins) -> None:
        from anywire import assembly

        self._config = config
        self.orchestrator = assembly.make_orchestrator(config, plugins)
        self.gateways = assembly.make_gateways(config, plugins)
        self._fleet_agents = assembly.make_fleet_agents(config, plugins, self.orchestrator)
        self._started: list[Gateway] = []
        self._announced: list[Agent] = []

    @property
    def info(self) -> HubInfo:
        return self.orchestrator.info

    async def start(self) -> None:
        await self.orchestrator.start()

    async def admit(self) -> None:
        for gateway in self.gateways:
            self._started.append(gateway)
            await gateway.start(self.orchestrator)
        for one in self._fleet_agents:
            self._announced.append(one)
            await one.start()

    async def close(self, grace: float, candidacy: Candidacy | None = None) -> None:
        from anywire.fleet import leave

        # All at once: a gateway stops accepting as the first thing it does, and is done when the last of its tasks is.
        loop = asyncio.get_running_loop()
        ending = [gateway.close() for gateway in self._started]
        ending += [leave(one, grace) for one in self._announced]
        closing = [loop.create_task(each) for each in (*ending, self.orchestrator.close(grace))]
        # Each of them has begun when this goes on: no gateway listens any more. Only now may another one take over,
        # which may need the same port.
        await asyncio.sleep(0)
        if candidacy is not None:
            closing.append(loop.create_task(candidacy.close()))
        try:
            async with asyncio.timeout(grace + SETTLE):
                results = await asyncio.gather(*closing, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    log.error("while shutting down: %s", result, exc_info=result)
        except TimeoutError:
            log.error("the shutdown took over %.0f s and is given up", grace + SETTLE)


class _Candidate(_Service):
    """Says that it is ready when it is elected and not before."""

    async def admit(self) -> None:
        await super().admit()
        _say_ready(self.gateways, self._config)


@asynccontextmanager
async def serving(config: Config, plugins: Plugins, stop: Stop) -> AsyncIterator[Served]:
    """An orchestrator with its gateways, clients and parents; at the end it refuses new tasks, finishes the running
    ones, and goes."""
    if config.standby.enabled:
        raise ConfigError(
            "standby.enabled is for orchestrators alone: use `anywire serve`, and `anywire agent` beside it"
        )
    service = _Service(config, plugins)
    grace = 0.0
    try:
        await stop.unless(service.start())
        await stop.unless(service.admit())
        yield Served(service.orchestrator, service.gateways)
        grace = config.shutdown_grace
    finally:
        await service.close(grace)


async def work(agent: Agent, config: Config, stop: Stop, announce: bool = True) -> None:
    """One agent until it is asked to stop: it drains, and goes."""
    try:
        await stop.unless(agent.start())
        if announce:
            models = ", ".join(agent.engine.status().models) or "no model"
            used = names(config)
            typer.echo(f"ready: agent {agent.info.agent_id}, engine {agent.engine.name} ({models}), over {used}")
            sys.stdout.flush()
        await stop.wait()
        try:
            async with asyncio.timeout(config.shutdown_grace):
                await agent.drain()
        except TimeoutError:
            log.warning("tasks were still running after %g s (shutdown_grace) and are ended", config.shutdown_grace)
    finally:
        await agent.close()


def names(config: Config) -> str:
    return ", ".join(each.name for each in config.transports)


def serve(
    file: options.File = None,
    host: options.Host = None,
    port: options.Port = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    join: options.Join = None,
    standby: options.Standby = False,
    strength: options.Strength = None,
    scheduler: options.Scheduler = None,
    selector: options.Selector = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run an orchestrator with its gateways."""
    from anywire import assembly
    from anywire.cli import eventloop

    config, plugins = options.settle(
        file,
        host=host,
        port=port,
        transports=transports,
        dds_domain=dds_domain,
        join=join,
        standby=standby,
        strength=strength,
        scheduler=scheduler,
        selector=selector,
        plugin_files=plugin_files,
        log_level=log_level,
    )
    _refuse_alone(config, plugins)
    elects = assembly.make_elects(config, plugins) if config.standby.enabled else None

    async def role(stop: Stop) -> None:
        if elects is not None:
            await stop.unless(_stand_by(elects, config, plugins))
            return
        async with serving(config, plugins, stop) as served:
            _say_ready(served.gateways, config)
            await stop.wait()

    eventloop.run(role)


async def _stand_by(elects: Elects, config: Config, plugins: Plugins) -> None:
    from anywire.standby import Standby

    standby = Standby(
        elects,
        lambda: _Candidate(config, plugins),
        strength=config.standby.strength,
        grace=config.shutdown_grace,
        lease=config.agents.timeout,
    )
    await standby.run()


def _say_ready(gateways: Sequence[Gateway], config: Config) -> None:
    for gateway in gateways:
        typer.echo(f"ready: {gateway.address} ({names(config)})")
    sys.stdout.flush()


def agent(
    file: options.File = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    slots: options.Slots = None,
    agent_id: options.AgentId = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run one agent with its engine."""
    from anywire import assembly
    from anywire.cli import eventloop, logs, supervision

    if supervised:
        config = supervision.inherited_config()
        logs.configure(config.log_level)
        plugins = assembly.load_plugins(config)
    else:
        config, plugins = options.settle(
            file,
            engine=engine,
            model=model,
            slots=slots,
            agent_id=agent_id,
            transports=transports,
            dds_domain=dds_domain,
            plugin_files=plugin_files,
            log_level=log_level,
        )
    _refuse_alone(config, plugins)
    one = assembly.make_agent(config, plugins)

    async def role(stop: Stop) -> None:
        if supervised:
            supervision.stop_with_parent(stop)
        await work(one, config, stop)

    eventloop.run(role)


def _refuse_alone(config: Config, plugins: Plugins) -> None:
    """A process of its own is of no use to a transport inside one process."""
    inside = [
        each.name for each in config.transports if not plugins.load("transports", each.name).capabilities.inter_process
    ]
    if len(inside) == len(config.transports):
        raise ConfigError(
            f"the transport {inside[0]} works inside of one process only: use `anywire up --transport {inside[0]}`, "
            "or another transport"
        )
