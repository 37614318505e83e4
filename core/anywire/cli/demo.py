"""``anywire demo``: everything once, on this machine, with nothing left behind."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.cli.chat import show

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop
    from anywire.cli.stream import Answer
    from anywire.config import Config

PROMPT = "Explain in two sentences what a message bus is."
MAX_TOKENS = 128
AGENTS = 2


def demo(
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = PROMPT,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = MAX_TOKENS,
    file: options.File = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Start an orchestrator and two agents, stream one answer, show where the time went, and end."""
    from rich.console import Console

    from anywire.cli import eventloop, stream
    from anywire.cli.serve import names
    from anywire.cli.up import running

    # Port 0 is any free one, so that a demo disturbs nothing that runs.
    config, plugins = options.settle(
        file,
        port=0,
        engine=engine,
        model=model,
        transports=transports,
        dds_domain=dds_domain,
        plugin_files=plugin_files,
        log_level=log_level,
        quiet=True,
    )
    config = _on_free_domain(config)
    console = Console(highlight=False)

    async def role(stop: Stop) -> bool:
        console.print(f"Starting an orchestrator and {AGENTS} agents ({config.engine.name} over {names(config)}) …")
        async with running(config, plugins, AGENTS, stop) as served:
            async with stream.client(served.address) as client:
                chosen = await stop.unless(stream.first_model(client))
                console.print(f"[bold]{served.address}[/] serves {chosen}", f"\n[dim]> {prompt}[/]\n", sep="\n")
                answer = await stop.unless(stream.ask(client, chosen, prompt, max_tokens, show))
            console.print("\n")
            console.print(_table(answer))
        return True

    if not eventloop.run(role):
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


def _on_free_domain(config: Config) -> Config:
    """Where dds is used and no domain was chosen: one that nobody uses on this machine."""
    from anywire.config import replaced

    dds = config.transport("dds")
    if dds is None or "domain" in dds.options:
        return config
    chosen = {each.name: dict(each.options) for each in config.transports}
    chosen["dds"]["domain"] = free_domain()
    return replaced(config, transports=chosen)


def free_domain() -> int:
    """A DDS domain whose well-known ports are free. Domains up to 100 keep clear of the system's ephemeral ports."""
    candidates = random.sample(range(10, 101), 91)
    return next((domain for domain in candidates if _is_free(domain)), candidates[0])


def _is_free(domain: int) -> bool:
    # RTPS 9.6.1.1: a domain has 250 ports from 7400; +0 is discovery by multicast, +10 the first participant's.
    for port in (7400 + 250 * domain, 7410 + 250 * domain):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
