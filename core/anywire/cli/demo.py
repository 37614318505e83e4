"""``anywire demo``: everything once, on this machine, with nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.cli.chat import show
from anywire.config import DEFAULT_GATEWAY, Config, replaced
from anywire.errors import ConfigError
from anywire.plugins import package_of

if TYPE_CHECKING:
    from anywire.cli.stream import Answer
    from anywire.plugins import Plugins
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
    """Start an orchestrator and two agents, stream one answer, show where the time went, and end."""
    from rich.console import Console

    from anywire.cli import stream
    from anywire.roles import stop
    from anywire.roles.agent_configs import agent_configs
    from anywire.roles.orchestrator_and_agents import running

    # Port 0 is any free one, so that a demo disturbs nothing that runs.
    config, plugins = given.settle(port=0, quiet=True)
    config = _apart(config, plugins)
    agents = None if config.agents else AGENTS
    console = Console(highlight=False)

    async def role(asked: Stop) -> bool:
        what = f"{config.engine.name} over {config.transport_names}"
        console.print(f"Starting an orchestrator and {len(agent_configs(config, agents))} agents ({what}) …")
        async with running(config, plugins, asked, agents) as served:
            if not served.address:
                package = package_of("gateways", DEFAULT_GATEWAY)
                raise ConfigError(f"the demo asks over HTTP, and no gateway runs: pip install {package}")
            async with stream.client(served.address) as client:
                chosen = await asked.unless(stream.first_model(client))
                console.print(f"[bold]{served.address}[/] serves {chosen}", f"\n[dim]> {prompt}[/]\n", sep="\n")
                answer = await asked.unless(stream.ask(client, chosen, prompt, max_tokens, show))
            console.print("\n")
            console.print(_table(answer))
        return True

    if not stop.run(role):
        raise typer.Exit(1)


def _table(answer: Answer) -> object:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("agent", answer.agent)
    table.add_row("transport", answer.transport)
    table.add_row("time to first token", f"{1000 * answer.first:.1f} ms")
    table.add_row("tokens", f"{answer.tokens} ({answer.tokens_per_second:.0f}/s, {answer.finish_reason})")
    for span, milliseconds in answer.stages.items():
        table.add_row(f"  {span.replace('-', ' → ')}", f"{milliseconds:.3f} ms", style="dim")
    return table


def _apart(config: Config, plugins: Plugins) -> Config:
    """With options of the transports that keep the demo apart from all else on this machine, where none are set."""
    chosen = {
        each.name: {**each.options, **plugins.load("transports", each.name).free_options(each.options)}
        for each in config.transports
    }
    return replaced(config, transports=chosen)
