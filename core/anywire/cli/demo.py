"""``anywire demo``: everything once, on this machine, with nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anywire.asked_fleet import INTERRUPTED
from anywire.cli import options
from anywire.cli.question import Question
from anywire.cli.shown_text import ShownText
from anywire.errors import ConfigError
from anywire.printable import escaped

if TYPE_CHECKING:
    from anywire.cli.stream import Answer
    from anywire.roles.stop import Stop

PROMPT = "Explain in two sentences what a message bus is."
MAX_TOKENS = 128
AGENTS = 2


@options.takes("engine", "model", "transports", "dds_domain")
def demo(
    given: options.Given,
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = PROMPT,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = MAX_TOKENS,
) -> None:
    """Stream one answer and show where its time went. Starts an orchestrator and two agents, and ends them."""
    from rich.console import Console
    from rich.text import Text

    from anywire.cli import stream
    from anywire.cli.asked_server import known_by
    from anywire.config import DEFAULT_GATEWAY
    from anywire.plugins import package_of
    from anywire.roles import stop
    from anywire.roles.agent_configs import agent_configs
    from anywire.roles.orchestrator_and_agents import running

    # Port 0 is any free one, so that a demo disturbs nothing that runs.
    settled, plugins = given.serving(apart=True, quiet=True, port=0)
    config = settled.config
    agents = None if config.agents else AGENTS
    console = Console(highlight=False)

    async def role(asked: Stop) -> bool:
        what = f"{config.engine.name} over {config.transport_names}"
        console.print(f"Starting an orchestrator and {len(agent_configs(config, agents))} agents ({what}) …")
        async with running(config, plugins, asked, agents) as served:
            if not served.address:
                package = package_of("gateways", DEFAULT_GATEWAY)
                raise ConfigError(f"the demo asks over HTTP, and no gateway runs: pip install {package}")
            server = known_by(served.address, served.tls.certificate if served.tls else None)
            async with stream.client(server._replace(key=served.access.own_key)) as client:
                chosen = await asked.unless(stream.first_model(client))
                console.print(Text(served.address, "bold"), "serves", Text(escaped(chosen)))
                console.print(Text(f"\n> {prompt}\n", "dim"))
                answer = await asked.unless(stream.ask(client, chosen, Question(prompt, max_tokens), ShownText().show))
            console.print("\n")
            console.print(_table(answer))
        return True

    if not stop.run(role):
        raise typer.Exit(INTERRUPTED)


def _table(answer: Answer) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("agent", Text(escaped(answer.agent)))
    table.add_row("transport", Text(escaped(answer.transport)))
    table.add_row("time to first token", f"{1000 * answer.first:.1f} ms")
    ended = escaped(answer.finish_reason)
    table.add_row("tokens", Text(f"{answer.tokens} ({answer.tokens_per_second:.0f}/s, {ended})"))
    for span, milliseconds in answer.stages.items():
        table.add_row(Text(f"  {escaped(span).replace('-', ' → ')}"), f"{milliseconds:.3f} ms", style="dim")
    return table
