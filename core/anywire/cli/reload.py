"""``anywire reload``: have a running orchestrator read its configuration again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from anywire.cli import options
from anywire.cli.tables import print_json
from anywire.printable import escaped

if TYPE_CHECKING:
    import httpx


@options.asks_server
def reload(given: options.Given, as_json: options.Json = False) -> None:
    """Have a running orchestrator read its configuration again. No task or stream ends for it. Tells what counts from
    now on, and what counts after a restart."""
    from anywire.cli import stream
    from anywire.cli.plugin_commands import ServerOfOptions

    async def ask(client: httpx.AsyncClient) -> tuple[Any, str]:
        return await stream.post(client, "/v1/config/reload", {}), str(client.base_url)

    told, where = ServerOfOptions(given).ask(ask)
    if as_json:
        print_json(told)
        return
    try:
        changed, restart = ", ".join(told["changed"]), ", ".join(told["restart"])
    except (KeyError, TypeError) as error:
        raise stream.no_answer(where) from error
    typer.echo(escaped(f"counts from now on: {changed or 'nothing has changed'}"))
    if restart:
        typer.echo(escaped(f"counts after a restart: {restart}"))
