"""``anywire serve`` and ``anywire agent``: the two roles, one process each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anywire.cli import options
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.config import Config
    from anywire.plugins import Plugins
    from anywire.roles.orchestrator_role import Served
    from anywire.roles.stop import Stop


@options.takes("host", "port", "transports", "dds_domain", "join", "standby", "strength", "scheduler", "selector")
def serve(given: options.Given) -> None:
    """Run an orchestrator with its gateways and services."""
    from anywire.roles import orchestrator_role, stop
    from anywire.roles.ready import say_ready

    config, plugins = given.settle()
    _refuse_alone(config, plugins)

    def ready(served: Served) -> None:
        for address in served.addresses:
            say_ready(f"{address} ({config.transport_names})")

    async def role(asked: Stop) -> None:
        await orchestrator_role.serve(config, plugins, asked, ready)

    stop.run(role)


@options.takes("engine", "model", "slots", "agent_id", "transports", "dds_domain")
def agent(given: options.Given) -> None:
    """Run one agent with its engine."""
    from anywire.roles import agent_role, assembly, stop
    from anywire.roles.ready import say_ready

    config, plugins = given.settle()
    _refuse_alone(config, plugins)
    one = assembly.make_agent(config, plugins)

    async def role(asked: Stop) -> None:
        await agent_role.work(one, config, asked, lambda: say_ready(agent_role.description(one, config)))

    stop.run(role)


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
