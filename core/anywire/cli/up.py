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
    on_demand: Annotated[
        int | None,
        typer.Option(
            "--on-demand",
            min=0,
            metavar="N",
            help="Agents to start beyond those while tasks wait, at most. Short for --set on_demand.most=N.",
        ),
    ] = None,
    no_page: Annotated[
        bool,
        typer.Option("--no-page", help="Serve no page at /ui. Default: serve it where the service ui is installed."),
    ] = False,
) -> None:
    """Run an orchestrator and agents on this machine. They are started and ended together."""
    from anywire.cli.fleet_records import recording
    from anywire.cli.serve import say_served
    from anywire.config import replaced
    from anywire.roles import assembly, stop
    from anywire.roles.agent_configs import agent_configs
    from anywire.roles.alive import telling_alive
    from anywire.roles.orchestrator_and_agents import running
    from anywire.roles.reload import Reload

    settled, plugins = given.serving(apart=True)
    config = settled.config
    if on_demand is not None:
        config = replaced(config, on_demand=config.on_demand.model_dump() | {"most": on_demand})
    if not no_page:
        config = assembly.with_page(config, plugins)
    count = f"{len(agent_configs(config, agents))} agents"
    if config.on_demand.most:
        count += f", up to {config.on_demand.most} more on demand"

    reload = Reload(settled.told, given.told)
    with recording() as tell:

        async def role(asked: Stop) -> None:
            async with (
                telling_alive(config.alive_file),
                reload.listening(),
                running(config, plugins, asked, agents) as served,
            ):
                reload.serves(served)
                say_served(settled, served, tell, f"{count}, ")
                await asked.wait()

        stop.run(role)
