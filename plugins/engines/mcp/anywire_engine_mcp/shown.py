"""How ``anywire mcp`` prints what agents have said."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anywire.printable import escaped


def print_servers(agents: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(agents)
        return
    rows = [
        (
            str(each["server"]),
            agent_id,
            _state(each),
            str(each.get("transport", "")),
            str(len(each["tools"])),
            _why(each),
        )
        for agent_id, told in agents.items()
        for each in told.get("servers", ())
    ]
    if rows:
        _print_table(("server", "agent", "state", "transport", "tools", "why"), rows)
    elif not any("error" in told for told in agents.values()):
        typer.echo("no MCP servers: name them in `engine.servers` of an agent with the engine mcp")
    for agent_id, told in agents.items():
        if "error" in told:
            typer.echo(escaped(f"{agent_id} did not answer: {told['error']}"), err=True)


def print_tools(server: Mapping[str, Any], as_json: bool) -> None:
    tools = [each for each in server["tools"] if isinstance(each, dict)]
    if as_json:
        _print_json(tools)
        return
    if not tools:
        state = _state(server)
        typer.echo(
            escaped(f"{server['server']} is {state}: no tools are known; `anywire mcp start {server['server']}`")
        )
        return
    rows = [(str(each.get("name", "")), _arguments(each), _first_line(each.get("description"))) for each in tools]
    _print_table(("tool", "arguments", "what it does"), rows)


def print_ordered(server: str, done: Mapping[str, Mapping[str, Any]], as_json: bool) -> bool:
    """Whether all agents have done it."""
    if as_json:
        _print_json(done)
    for agent_id, told in done.items():
        if as_json:
            continue
        if "error" in told:
            typer.echo(escaped(f"{server} at {agent_id}: {told['error']}"), err=True)
        else:
            tools = f" with {told['tools']} tools" if told.get("state") == "running" else ""
            typer.echo(escaped(f"{server} at {agent_id} is {_state(told)}{tools}"))
    return not any("error" in told for told in done.values())


def print_result(result: Mapping[str, Any], as_json: bool) -> bool:
    """Whether the tool has not failed."""
    failed = result.get("is_error") is True
    if as_json:
        _print_json(result)
    else:
        typer.echo(escaped(str(result.get("text", "")), keep="\n\t"), err=failed)
    return not failed


def _state(server: Mapping[str, Any]) -> str:
    return str(server.get("state", "stopped"))


def _why(server: Mapping[str, Any]) -> str:
    """Why it does not run, where something went wrong."""
    if _state(server) != "crashed":
        return ""
    return str(server.get("reason", ""))


def _arguments(tool: Mapping[str, Any]) -> str:
    schema = tool.get("schema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    required = schema.get("required") if isinstance(schema, dict) else None
    required = required if isinstance(required, list) else []
    names = [str(name) for name in properties] if isinstance(properties, dict) else []
    return ", ".join(name if name in required else f"[{name}]" for name in names)


def _first_line(text: Any) -> str:
    return str(text or "").strip().partition("\n")[0]


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(*head, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*[Text(escaped(each)) for each in row])
    # In a pipe nothing is cut to the width of a screen.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
