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
    from anywire.orchestrator import Orchestrator
    from anywire.plugins import Plugins

log = logging.getLogger(__name__)

SETTLE = 5.0
"""Seconds a role gets beyond its grace to give everything back."""


class Served(NamedTuple):
    orchestrator: Orchestrator
    gateways: Sequence[Gateway]

    @property
    def address(self) -> str:
        return self.gateways[0].address


@asynccontextmanager
async def serving(config: Config, plugins: Plugins, stop: Stop) -> AsyncIterator[Served]:
    """An orchestrator with its gateways, clients and parents; at the end it refuses new tasks, finishes the running
    ones, and goes."""
    from anywire import assembly
    from anywire.fleet import leave

    orchestrator = assembly.make_orchestrator(config, plugins)
    gateways = assembly.make_gateways(config, plugins)
    fleet_agents = assembly.make_fleet_agents(config, plugins, orchestrator)
    started: list[Gateway] = []
    announced: list[Agent] = []
    grace = 0.0
    try:
        await stop.unless(orchestrator.start())
        for gateway in gateways:
            started.append(gateway)
            await stop.unless(gateway.start(orchestrator))
        for one in fleet_agents:
            announced.append(one)
            await stop.unless(one.start())
        yield Served(orchestrator, gateways)
        grace = config.shutdown_grace
    finally:
        # All at once: a gateway stops accepting now, and is done when the last of its tasks is.
        closing = [
            *(leave(one, grace) for one in announced),
            orchestrator.close(grace),
            *(gateway.close() for gateway in started),
        ]
        try:
            async with asyncio.timeout(grace + SETTLE):
                results = await asyncio.gather(*closing, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    log.error("while shutting down: %s", result, exc_info=result)
        except TimeoutError:
            log.error("the shutdown took over %.0f s and is given up", grace + SETTLE)


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
    scheduler: options.Scheduler = None,
    selector: options.Selector = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run an orchestrator with its gateways."""
    from anywire.cli import eventloop

    config, plugins = options.settle(
        file,
        host=host,
        port=port,
        transports=transports,
        dds_domain=dds_domain,
        join=join,
        scheduler=scheduler,
        selector=selector,
        plugin_files=plugin_files,
        log_level=log_level,
    )
    _refuse_alone(config, plugins)

    async def role(stop: Stop) -> None:
        async with serving(config, plugins, stop) as served:
            for gateway in served.gateways:
                typer.echo(f"ready: {gateway.address} ({names(config)})")
            sys.stdout.flush()
            await stop.wait()

    eventloop.run(role)


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
