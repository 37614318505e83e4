"""``anywire mcp``: the MCP servers of agents. What a command needs beyond its options is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from anywire.asked_fleet import AskedFleet, GivenFleet, asks_fleet, until_interrupted
from anywire_engine_models.cli.after import After

app = typer.Typer(
    name="mcp",
    help="List, start and stop MCP servers. Calls their tools, and tells their logs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Server = Annotated[
    str,
    typer.Argument(metavar="SERVER", help="Label of the server, as `anywire mcp list` tells it.", show_default=False),
]
AgentId = Annotated[
    str | None,
    typer.Option("--agent", metavar="ID", help="Ask this agent. Default: all that have the server."),
]
OneAgent = Annotated[
    str | None,
    typer.Option("--agent", metavar="ID", help="Ask this agent. Default: one that has the server, and runs it if any."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
@asks_fleet
def list_servers(given: GivenFleet, agent_id: AgentId = None, as_json: Json = False) -> None:
    """List the MCP servers of all agents. Tells their states, and how many tools they have."""
    from anywire_engine_mcp import asked_agents, shown

    agents = given.ask(lambda fleet: asked_agents.listed(fleet, agent_id))
    shown.print_servers(agents, as_json)


@app.command()
@asks_fleet
def start(given: GivenFleet, server: Server, agent_id: AgentId = None, as_json: Json = False) -> None:
    """Start a server. Ends when its tools are known, or with an error that says why it does not start."""
    _order(given, "start", server, agent_id, as_json)


@app.command()
@asks_fleet
def stop(given: GivenFleet, server: Server, agent_id: AgentId = None, as_json: Json = False) -> None:
    """Stop a server. Calls under way end with an error."""
    _order(given, "stop", server, agent_id, as_json)


@app.command()
@asks_fleet
def restart(given: GivenFleet, server: Server, agent_id: AgentId = None, as_json: Json = False) -> None:
    """Stop a server and start it again."""
    _order(given, "restart", server, agent_id, as_json)


@app.command()
@asks_fleet
def tools(given: GivenFleet, server: Server, agent_id: OneAgent = None, as_json: Json = False) -> None:
    """List the tools of a server. Tells their arguments, an optional one in brackets."""
    from anywire_engine_mcp import asked_agents, shown

    shown.print_tools(given.ask(lambda fleet: asked_agents.status(fleet, server, agent_id)), as_json)


@app.command()
@asks_fleet
def call(
    given: GivenFleet,
    server: Server,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="Name of the tool.", show_default=False)],
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON", help="Arguments of the tool as a JSON object. Default: none.", show_default=False
        ),
    ] = None,
    agent_id: OneAgent = None,
    as_json: Json = False,
) -> None:
    """Call a tool and print its result. Exit status 1 when the tool says that it failed."""
    from anywire_engine_mcp import asked_agents, shown

    read = asked_agents.read_arguments(arguments) if arguments is not None else {}
    result = given.ask(lambda fleet: asked_agents.call(fleet, server, tool, read, agent_id))
    if not shown.print_result(result, as_json):
        raise typer.Exit(1)


@app.command()
@asks_fleet
def logs(
    given: GivenFleet,
    server: Server,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000, help="Lines to begin with.")] = 100,
    after: After = "",
    agent_id: OneAgent = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each line.")] = False,
) -> None:
    """Print what a server wrote on its standard error. One that is followed goes on where it was when the connection
    breaks."""
    from anywire_engine_mcp import asked_agents
    from anywire_engine_models.cli import followed_log

    found: list[str] = [] if agent_id is None else [agent_id]

    def ask(after: str, show: Callable[[Any], None]) -> None:
        async def ask_fleet(fleet: AskedFleet) -> None:
            if not found:  # the same agent each time
                found.append(await asked_agents.one(fleet, server))
            arguments = {"lines": lines, "follow": follow} | ({"after": after} if after else {})
            await asked_agents.each_line(fleet, server, arguments, found[0], show)

        given.ask(ask_fleet)

    with until_interrupted(follow):
        followed_log.print_log(ask, after=after, follow=follow, as_json=as_json)


def _order(given: GivenFleet, order: str, server: str, agent_id: str | None, as_json: bool) -> None:
    from anywire_engine_mcp import asked_agents, shown

    done = given.ask(lambda fleet: asked_agents.ordered(fleet, order, server, agent_id))
    if not shown.print_ordered(server, done, as_json):
        raise typer.Exit(1)
