"""``anywire serve`` and ``anywire agent``: the two roles, one process each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from anywire.cli import options
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.cli.fleet_records import FleetRecord
    from anywire.cli.meeting import Serving
    from anywire.config import Config
    from anywire.plugins import Plugins
    from anywire.roles.orchestrator_role import Served
    from anywire.roles.stop import Stop
    from anywire.transport import Transport


@options.takes(
    "host",
    "port",
    "gateways",
    "fleet",
    "lan",
    "keys",
    "transports",
    "dds_domain",
    "join",
    "standby",
    "strength",
    "scheduler",
    "selector",
)
def serve(given: options.Given) -> None:
    """Run an orchestrator with its gateways and services."""
    from anywire.cli.fleet_records import recording
    from anywire.roles import orchestrator_role, stop
    from anywire.roles.alive import telling_alive
    from anywire.roles.reload import Reload

    settled, plugins = given.serving()
    _refuse_alone(settled.config, plugins)
    reload = Reload(settled.told, given.told)
    with recording() as tell:

        def ready(served: Served) -> None:
            reload.serves(served)
            say_served(settled, served, tell)

        async def role(asked: Stop) -> None:
            async with telling_alive(settled.config.alive_file), reload.listening():
                await orchestrator_role.serve(settled.config, plugins, asked, ready)

        stop.run(role)


@options.takes("engine", "model", "slots", "agent_id", "fleet", "lan", "invite", "transports", "dds_domain")
def agent(given: options.Given) -> None:
    """Run one agent with its engine."""
    from anywire.roles import agent_role, assembly, stop
    from anywire.roles.alive import telling_alive
    from anywire.roles.ready import say_ready

    config, plugins = given.joining()
    _refuse_alone(config, plugins)
    one = assembly.make_agent(config, plugins)

    async def role(asked: Stop) -> None:
        async with telling_alive(config.alive_file):
            await agent_role.work(one, config, asked, lambda: say_ready(agent_role.description(one, config)))

    stop.run(role)


def say_served(settled: Serving, served: Served, tell: Callable[[FleetRecord], None], what: str = "") -> None:
    """Say that an orchestrator is ready and where, tell other commands of it, and print the command for other machines
    where it is open to them. ``what`` stands before the transports."""
    from anywire.roles.ready import say_ready

    record = settled.record(served)
    tell(record)
    reached = ", ".join(_described(each, record) for each in served.orchestrator.transports)
    for address in served.addresses:
        say_ready(f"{address} ({what}{reached})")
    if record.invite:
        # On standard output and never in the log: the code is a secret.
        print(f"on another machine: anywire agent --invite {record.invite}", flush=True)


def _described(transport: Transport, record: FleetRecord) -> str:
    """A transport by its name, with the address that agents connect to when it is none of those that are set."""
    bound = record.transports.get(transport.name, {}).get("agent_addresses", [])
    moved = [each for each in bound if each not in getattr(transport.config, "agent_addresses", bound)]
    return f"{transport.name} at {moved[0]}" if moved else transport.name


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
