"""Commands of plugins, given what they need of the command line (`anywire.asked_fleet`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from anywire.asked_fleet import is_asking_fleet
from anywire.cli import options
from anywire.cli.inspect import asked
from anywire.errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from anywire.asked_fleet import AskedFleet
    from anywire.roles.stop import Stop

Answer = TypeVar("Answer")


class FleetOfOptions:
    """The fleet that the shared options of a command mean."""

    def __init__(self, given: options.Given) -> None:
        self._given = given

    @property
    def is_named(self) -> bool:
        return self._given.names_fleet

    @property
    def is_known(self) -> bool:
        from anywire.cli.fleet_records import running_fleets

        return self.is_named or bool(running_fleets())

    def ask(self, work: Callable[[AskedFleet], Awaitable[Answer]]) -> Answer:
        found, _ = asked(self._given, work)
        return found

    def ask_server(self, work: Callable[[httpx.AsyncClient], Awaitable[Answer]]) -> Answer:
        from anywire.cli import stream
        from anywire.cli.asked_server import Server
        from anywire.roles.stop import run

        server = self._given.target()
        if not isinstance(server, Server):
            raise ConfigError(
                "this command asks over HTTP: leave --transport, --dds-domain and --lan out, or name the server with "
                "--url"
            )

        async def role(stop: Stop) -> tuple[Answer]:
            async with stream.client(server) as client:
                return (await stop.unless(work(client)),)

        found = run(role)
        if found is None:
            raise typer.Exit(options.INTERRUPTED)
        return found[0]


def with_fleet(app: typer.Typer) -> typer.Typer:
    """``app``, each command of which that asks a fleet has the options for it and gets what they mean."""
    for command in (*app.registered_commands, *([app.registered_callback] if app.registered_callback else ())):
        if command.callback is not None and is_asking_fleet(command.callback):
            command.callback = _given_fleet(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_fleet(group.typer_instance)
    return app


def _given_fleet(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def command(given: options.Given, **values: Any) -> None:
        function(given=FleetOfOptions(given), **values)

    return options.asks(command)
