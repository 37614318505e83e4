"""``anywire up``: an orchestrator and its agents on this machine, started and ended together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options

if TYPE_CHECKING:
    from anywire.roles.stop import Stop


@options.takes(
    "host",
    "port",
    "engine",
    "model",
    "slots",
    "agent_id",
    "transports",
    "dds_domain",
    "join",
    "scheduler",
    "selector",
)
def up(
    given: options.Given,
    agents: Annotated[
        int | None,
        typer.Option("--agents", "-n", min=1, help="Agents to start. Default: 1, or those that `agents` lists."),
    ] = None,
) -> None:
    """Run an orchestrator and agents on this machine, started and ended together."""
    from anywire.roles import stop
    from anywire.roles.agent_configs import agent_configs
    from anywire.roles.orchestrator_and_agents import running
    from anywire.roles.ready import say_ready

    config, plugins = given.settle()
    count = len(agent_configs(config, agents))

    async def role(asked: Stop) -> None:
        async with running(config, plugins, asked, agents) as served:
            for address in served.addresses:
                say_ready(f"{address} ({count} agents, {config.transport_names})")
            await asked.wait()

    stop.run(role)
