"""``anywire chat``: one prompt to a running server, its answer as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options
from anywire.errors import ConfigError, NoAgent

if TYPE_CHECKING:
    from anywire.cli.stream import Answer
    from anywire.roles.client import Client
    from anywire.roles.stop import Stop
    from anywire.transport import Transport


def show(text: str) -> None:
    """A piece of an answer on the terminal, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to ask. Default: the server's first.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")] = None,
    url: options.Url = None,
    file: options.File = None,
    settings: options.Set = None,
    host: options.Host = None,
    port: options.Port = None,
    transports: options.Over = None,
    dds_domain: options.DdsDomain = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Ask a running server and print the answer as it comes."""
    from anywire.roles.stop import run

    if transports or dds_domain is not None:
        if url is not None or host is not None or port is not None:
            raise typer.BadParameter("--transport asks without HTTP: leave --url, --host and --port out")
        config, plugins = options.settle(
            file,
            settings=settings,
            transports=transports,
            dds_domain=dds_domain,
            plugin_files=plugin_files,
            log_level=log_level,
            quiet=True,
        )
        from anywire.roles import assembly

        if assembly.in_one_process(config, plugins):
            raise ConfigError("a transport that stays inside of one process reaches no server: name another one")
        made = assembly.make_transports(config, plugins)
        role = _over_transports(made, config.lease.timeout, model, prompt, max_tokens)
    else:
        role = _over_http(options.base_url(url, file, host, port, settings), model, prompt, max_tokens)
    answer = run(role)
    if answer is None:
        raise typer.Exit(1)
    if sys.stderr.isatty():
        print(
            f"[{answer.agent} over {answer.transport}: first token after {1000 * answer.first:.0f} ms, "
            f"{answer.tokens} tokens, {answer.tokens_per_second:.0f} tokens/s]",
            file=sys.stderr,
        )


def _over_http(server: str, model: str | None, prompt: str, max_tokens: int | None) -> Callable[[Stop], Any]:
    from anywire.cli import stream

    async def role(stop: Stop) -> Answer:
        async with stream.client(server, stream.OVER_TRANSPORT) as client:
            chosen = model if model is not None else await stop.unless(stream.first_model(client))
            answer = await stop.unless(stream.ask(client, chosen, prompt, max_tokens, show))
        print()
        return answer

    return role


def _over_transports(
    transports: list[Transport], lease: float, model: str | None, prompt: str, max_tokens: int | None
) -> Callable[[Stop], Any]:
    from anywire.roles.client import Client

    async def role(stop: Stop) -> Answer:
        async with Client(*transports, lease=lease) as client:
            # Also with a model named: once an orchestrator has told its models, a wrong one is known at once.
            models = await stop.unless(client.models())
            if model is None and not models:
                raise NoAgent("the orchestrator has no model: no agent has joined it yet (see `anywire agents`)")
            answer = await stop.unless(_ask(client, model if model is not None else models[0], prompt, max_tokens))
        print()
        return answer

    return role


async def _ask(client: Client, model: str, prompt: str, max_tokens: int | None) -> Answer:
    """Stream one chat answer over the client plane."""
    import msgspec

    from anywire.cli.stream import Answer
    from anywire.submission import Submission

    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    began = time.perf_counter()
    stream = client.submit(Submission("chat", model, msgspec.json.encode(body).decode(), stream=True))
    answer = Answer()
    async with aclosing(client.pieces(stream)) as pieces:
        async for piece in pieces:
            if piece.text:
                answer.total = time.perf_counter() - began
                answer.first = answer.first or answer.total
                answer.pieces += 1
                show(piece.text)
            answer.finish_reason = piece.finish_reason or answer.finish_reason
            answer.tokens = int(piece.usage.get("completion_tokens", 0)) or answer.tokens
    answer.tokens = answer.tokens or answer.pieces
    answer.agent, answer.transport = stream.agent_id, stream.transport
    return answer
