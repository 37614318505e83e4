"""``anywire chat``: one prompt to a running server, its answer as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.asked_fleet import INTERRUPTED
from anywire.cli import options
from anywire.cli.asked_server import Server
from anywire.cli.question import Question
from anywire.cli.settle import OverTransports
from anywire.cli.shown_text import ShownText
from anywire.errors import NoAgent
from anywire.printable import escaped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anywire.cli.stream import Answer
    from anywire.roles.client import Client
    from anywire.roles.stop import Stop


@options.asks
def chat(
    given: options.Given,
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to ask. Default: the server's first.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = None,
    priority: Annotated[
        int, typer.Option("--priority", min=-1000, max=1000, help="Priority of the task, for schedulers that heed it.")
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", help="Most seconds until the answer is complete. Default: the server's own."
        ),
    ] = None,
) -> None:
    """Ask a running server and print the answer as it comes."""
    from anywire.roles.stop import run

    if timeout is not None and not 0 < timeout <= 86_400:
        raise typer.BadParameter("expected seconds above 0 and at most 86400", param_hint="--timeout")
    question = Question(prompt, max_tokens, priority, timeout or 0.0)
    found = given.target()
    role = _over_http(found, model, question) if isinstance(found, Server) else _over_transports(found, model, question)
    answer = run(role)
    if answer is None:
        raise typer.Exit(INTERRUPTED)
    if sys.stderr.isatty():
        print(
            f"[{escaped(answer.agent)} over {escaped(answer.transport)}: first token after {1000 * answer.first:.0f} "
            f"ms, {answer.tokens} tokens, {answer.tokens_per_second:.0f} tokens/s]",
            file=sys.stderr,
        )


@asynccontextmanager
async def _showing() -> AsyncIterator[ShownText]:
    """Whatever comes after the answer, an error too, begins on a new line."""
    shown = ShownText()
    try:
        yield shown
    finally:
        shown.end_line()


def _over_http(server: Server, model: str | None, question: Question) -> Callable[[Stop], Any]:
    from anywire.cli import stream

    async def role(stop: Stop) -> Answer:
        async with stream.client(server, stream.OVER_TRANSPORT) as client, _showing() as shown:
            chosen = model if model is not None else await stop.unless(stream.first_model(client))
            return await stop.unless(stream.ask(client, chosen, question, shown.show))

    return role


def _over_transports(found: OverTransports, model: str | None, question: Question) -> Callable[[Stop], Any]:
    from anywire.roles import assembly
    from anywire.roles.client import Client

    transports = assembly.make_transports(found.config, found.plugins)

    async def role(stop: Stop) -> Answer:
        asked = Client(*transports, lease=found.config.lease.timeout, key=found.key, admitted=found.admitted)
        async with asked as client, _showing() as shown:
            # Also with a model named: once an orchestrator has told its models, a wrong one is known at once.
            models = await stop.unless(client.models())
            if model is None and not models:
                raise NoAgent("the orchestrator has no model: no agent has joined it yet (see `anywire agents`)")
            return await stop.unless(_ask(client, model if model is not None else models[0], question, shown))

    return role


async def _ask(client: Client, model: str, question: Question, shown: ShownText) -> Answer:
    """Stream one chat answer over the client plane."""
    import msgspec

    from anywire.cli.stream import Answer, body_of
    from anywire.submission import Submission

    began = time.perf_counter()
    body = msgspec.json.encode(body_of(model, question)).decode()
    stream = client.submit(
        Submission("chat", model, body, stream=True, priority=question.priority, deadline_s=question.timeout)
    )
    answer = Answer()
    async with aclosing(client.pieces(stream)) as pieces:
        async for piece in pieces:
            if piece.text:
                answer.total = time.perf_counter() - began
                answer.first = answer.first or answer.total
                answer.pieces += 1
                shown.show(piece.text)
            answer.finish_reason = piece.finish_reason or answer.finish_reason
            answer.tokens = int(piece.usage.get("completion_tokens", 0)) or answer.tokens
    answer.tokens = answer.tokens or answer.pieces
    answer.agent, answer.transport = stream.agent_id, stream.transport
    return answer
