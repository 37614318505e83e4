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
    "fleet",
    "lan",
    "keys",
    "launcher",
    "ray_address",
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
    """Run an orchestrator and agents on this machine. They are started and ended together."""
    from anywire.cli.fleet_records import recording
    from anywire.cli.serve import say_served
    from anywire.roles import stop
    from anywire.roles.agent_configs import agent_configs
    from anywire.roles.alive import telling_alive
    from anywire.roles.orchestrator_and_agents import running

    settled, plugins = given.serving(apart=True)
    count = len(agent_configs(settled.config, agents))

    with recording() as tell:

        async def role(asked: Stop) -> None:
            async with (
                telling_alive(settled.config.alive_file),
                running(settled.config, plugins, asked, agents) as served,
            ):
                say_served(settled, served, tell, f"{count} agents, ")
                await asked.wait()

        stop.run(role)
