"""The command ``anywire ui``: opens the page of a running orchestrator in the browser."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.asked_fleet import GivenServer, asks_server
from anywire.errors import AnywireError, ConfigError, InvalidRequest, Unauthenticated

if TYPE_CHECKING:
    import httpx

app = typer.Typer()


@app.callback(invoke_without_command=True)
@asks_server
def ui(
    given: GivenServer,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the address of the page, and open no browser.")
    ] = False,
) -> None:
    """Open the page of the running orchestrator in the browser."""
    address = given.ask(page_address)
    typer.echo(address)
    if not print_only and not webbrowser.open(address):
        typer.echo("no browser was found here: open this address yourself", err=True)


async def page_address(client: httpx.AsyncClient) -> str:
    """The address of the page at the server of ``client``; it signs the browser in where the client has a key. Raises
    `ConfigError` where the page is not served, `Unauthenticated` for a key that does not count, and `InvalidRequest`
    where the server refuses otherwise."""
    page = f"{str(client.base_url).rstrip('/')}/ui"
    answer = await client.get("/ui")
    if answer.status_code == 404:
        raise ConfigError(
            f"there is no page at {page}: install anywire-service-ui on that machine, and with `anywire serve` add "
            "the service ui to its configuration (services: {ui: {}})"
        )
    if not answer.is_success:
        raise _refusal(answer)
    key = client.headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        return page
    answer = await client.post("/v1/ui/codes", json={"key": key})
    if not answer.is_success:
        raise _refusal(answer)
    return f"{page}#code={answer.json()['code']}"


def _refusal(answer: httpx.Response) -> AnywireError:
    """The error that a server's answer tells."""
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        message = f"{answer.url} answered {answer.status_code}, with no answer of an Anywire server"
    if answer.status_code == 401:
        return Unauthenticated(f"{message}; set ANYWIRE_API_KEY to a key of this server", status=401)
    return InvalidRequest(message, status=answer.status_code)
