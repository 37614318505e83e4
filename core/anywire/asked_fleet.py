"""What the commands of a plugin are given of the command line: the running fleet that their user means.

A distribution adds commands to ``anywire`` by the entry point ``anywire.commands``, a typer app each. A command that
`asks_fleet` has, beside its own options, those by which the core's commands find an orchestrator (``--url``,
``--fleet``, ``--key``, ``--transport`` …); what they mean is its argument ``given``:

    @app.command()
    @asks_fleet
    def greet(given: GivenFleet, agent_id: Annotated[str, typer.Argument()]) -> None:
        async def ask(fleet: AskedFleet) -> list[Any]:
            async with aclosing(fleet.command(agent_id, "greet", {})) as results:
                return [result async for result in results]

        for result in given.ask(ask):
            typer.echo(result)

A command that `asks_server` is one for what a service adds to the HTTP API; its ``given`` is a `GivenServer`. An app
that has a callback in place of commands is one command of the app's name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    import httpx

Answer = TypeVar("Answer")
INTERRUPTED = 130
"""Exit status of a command that was asked to stop before it was done, as a shell tells it of Ctrl-C."""

_FLEET, _SERVER = "__asks_fleet__", "__asks_server__"


class AskedFleet(Protocol):
    """One running orchestrator, over HTTP or a transport."""

    async def list(self, what: str) -> list[dict[str, Any]]:
        """All ``agents`` (`anywire.views.agent_json`) or ``tasks`` (`task_json`) now."""
        ...

    def command(
        self, agent_id: str, name: str, arguments: Mapping[str, Any], *, deadline: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        """Have an agent carry out a command; its results as they come, plain JSON types. ``deadline`` is in seconds,
        0 for none. Closing the generator cancels the command. Raises what the agent raised, as far as its code is
        known (`anywire.errors`), and `AgentUnavailable` where no such agent is there."""
        ...


class GivenFleet(Protocol):
    """What the options of a command say of the fleet."""

    @property
    def is_named(self) -> bool:
        """Whether the user has said which one is meant, or how it is reached."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether it is named, or one of this user's runs on this machine."""
        ...

    def ask(self, work: Callable[[AskedFleet], Awaitable[Answer]]) -> Answer:
        """The result of ``work``, for which an event loop is run. Raises `anywire.errors.AnywireError`, also where no
        orchestrator is found, and `typer.Exit` (130) when the user interrupts it."""
        ...


class GivenServer(Protocol):
    """What the options of a command say of the server."""

    def ask(self, work: Callable[[httpx.AsyncClient], Awaitable[Answer]]) -> Answer:
        """The result of ``work``, which is given a client of the server: it has the address, the certificates and the
        key. What `httpx` raises in it becomes an `anywire.errors.AnywireError`; else as `GivenFleet.ask`."""
        ...


def asks_fleet(function: Callable[..., None]) -> Callable[..., None]:
    """Mark the function of a plugin's command; see the module's text."""
    setattr(function, _FLEET, True)
    return function


@contextmanager
def until_interrupted(follow: bool) -> Iterator[None]:
    """Around what may go on without end: with ``follow`` its user ends it by Ctrl-C, and that is no error."""
    try:
        yield
    except KeyboardInterrupt:
        if not follow:
            raise
    except typer.Exit as ended:
        if not follow or ended.exit_code != INTERRUPTED:
            raise


def is_asking_fleet(function: object) -> bool:
    """Whether `asks_fleet` has marked it."""
    return getattr(function, _FLEET, False) is True


def asks_server(function: Callable[..., None]) -> Callable[..., None]:
    """Mark the function of a plugin's command that asks over HTTP alone; see the module's text."""
    setattr(function, _SERVER, True)
    return function


def is_asking_server(function: object) -> bool:
    """Whether `asks_server` has marked it."""
    return getattr(function, _SERVER, False) is True
