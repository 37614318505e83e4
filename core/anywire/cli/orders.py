"""``anywire drain``, ``isolate`` and ``restore``: what an operator orders of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.cli.agent_state import agent_state, why
from anywire.cli.inspect import asked
from anywire.cli.tables import print_json
from anywire.printable import escaped

if TYPE_CHECKING:
    from anywire.cli.fleet_source import Item

AgentId = Annotated[
    str, typer.Argument(metavar="AGENT", help="Id of the agent, as `anywire agents` tells it.", show_default=False)
]
Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why: shown with the agent, in events and in the audit log."),
]


@options.asks
def drain(agent_id: AgentId, given: options.Given, reason: Reason = "", as_json: options.Json = False) -> None:
    """Send an agent no further task. What runs on it ends there. It holds until `restore`, or until the orchestrator
    ends."""
    _order(given, agent_id, "drain", reason, as_json)


@options.asks
def isolate(agent_id: AgentId, given: options.Given, reason: Reason = "", as_json: options.Json = False) -> None:
    """Take an agent's tasks away. It gets no further one, and what runs on it moves to other agents; a task that cannot
    be moved ends with an error. It holds until `restore`, or until the orchestrator ends."""
    _order(given, agent_id, "isolate", reason, as_json)


@options.asks
def restore(agent_id: AgentId, given: options.Given, reason: Reason = "", as_json: options.Json = False) -> None:
    """Let an agent get tasks again. Ends what was ordered of it; one that is quarantined is tried at once with a task
    that is no client's."""
    _order(given, agent_id, "restore", reason, as_json)


def _order(given: options.Given, agent_id: str, order: str, reason: str, as_json: bool) -> None:
    from anywire.cli import stream

    told, where = asked(given, lambda source: source.order_agent(agent_id, order, reason))
    if as_json:
        print_json(told)
        return
    try:
        line = _line(told)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise stream.no_answer(where) from error
    typer.echo(escaped(line))


def _line(told: Item) -> str:
    agent_id, health = told["id"], told["health"]
    if health["order"]:
        return f"{agent_id} is {health['order']}"
    if health["state"] == "quarantined":
        return f"{agent_id} is restored, and still quarantined: it is being tried ({health['reason']})"
    if health["state"] != "closed":
        return f"{agent_id} is restored, and its {agent_state('ready', '', health['state'])}: {why(health)}"
    return f"{agent_id} is restored"
