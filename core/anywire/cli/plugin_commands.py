"""Commands of plugins, given what they need of the command line (`anywire.asked_fleet`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from anywire.asked_fleet import INTERRUPTED, is_asking_fleet, is_asking_server
from anywire.cli import options
from anywire.cli.inspect import asked
from anywire.errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from anywire.asked_fleet import AskedFleet
    from anywire.roles.stop import Stop

Answer = TypeVar("Answer")
_HAS_IT = "__has_what_options_mean__"


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


class ServerOfOptions:
    """The server that the shared options of a command mean."""

    def __init__(self, given: options.Given) -> None:
        self._given = given

    def ask(self, work: Callable[[httpx.AsyncClient], Awaitable[Answer]]) -> Answer:
        from anywire.cli import stream
        from anywire.cli.asked_server import Server
        from anywire.roles.stop import run

        server = self._given.target()
        if not isinstance(server, Server):
            raise ConfigError("no server of that fleet is known here, and this is asked over HTTP: name it with --url")

        async def role(stop: Stop) -> tuple[Answer]:
            async with stream.client(server) as client:
                return (await stop.unless(work(client)),)

        found = run(role)
        if found is None:
            raise typer.Exit(INTERRUPTED)
        return found[0]


def with_fleet(app: typer.Typer) -> typer.Typer:
    """``app``, each command of which that asks a fleet or a server has the options for it and gets what they mean. Safe
    to call again."""
    for command in app.registered_commands:
        command.callback = _given(command.callback)
    if app.registered_callback is not None:
        app.registered_callback.callback = _given(app.registered_callback.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_fleet(group.typer_instance)
    return app


def _given(function: Callable[..., None] | None) -> Callable[..., None] | None:
    if function is None or getattr(function, _HAS_IT, False):
        return function
    if is_asking_fleet(function):
        found = options.asks(_giving(FleetOfOptions, function))
    elif is_asking_server(function):
        found = options.asks_server(_giving(ServerOfOptions, function))
    else:
        return function
    setattr(found, _HAS_IT, True)
    return found


def _giving(kind: Callable[[options.Given], object], function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def command(given: options.Given, **values: Any) -> None:
        function(given=kind(given), **values)

    return command
