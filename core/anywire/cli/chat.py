"""``anywire chat``: one prompt to a running server, its answer as it comes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop


def show(text: str) -> None:
    """A piece of an answer on the terminal, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Which model [default: the server's first].")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")] = None,
    url: options.Url = None,
    file: options.File = None,
    host: options.Host = None,
    port: options.Port = None,
) -> None:
    """Ask a running server and print the answer as it comes."""
    from anywire.cli import eventloop, stream

    server = options.base_url(url, file, host, port)

    async def role(stop: Stop) -> bool:
        async with stream.client(server) as client:
            chosen = model if model is not None else await stop.unless(stream.first_model(client))
            answer = await stop.unless(stream.ask(client, chosen, prompt, max_tokens, show))
        print()
        if sys.stderr.isatty():
            print(
                f"[{answer.agent} over {answer.transport}: first token after {1000 * answer.first:.0f} ms, "
                f"{answer.tokens} tokens, {answer.tokens_per_second:.0f} tokens/s]",
                file=sys.stderr,
            )
        return True

    if not eventloop.run(role):
        raise typer.Exit(1)
