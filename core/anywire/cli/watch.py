"""``anywire watch``: agents, queue and tasks of a running orchestrator, as they are and as they go on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from anywire.cli import options

RATE_MAX = 20.0


@options.asks
def watch(
    given: options.Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print what is known now, and end.")] = False,
    types: Annotated[
        str, typer.Option("--types", metavar="LIST", help="Print these events alone, a line each: task.ended,agent.*")
    ] = "",
    after: Annotated[str, typer.Option("--after", metavar="ID", help="Begin after the event of this id.")] = "",
    task_id: Annotated[str, typer.Option("--task", metavar="ID", help="Show this task alone.")] = "",
    only_agent: Annotated[str, typer.Option("--agent", metavar="ID", help="Show this agent and its tasks alone.")] = "",
    follow: Annotated[
        str, typer.Option("--follow", metavar="TASK", help="Print the text of a task from now on, and end with it.")
    ] = "",
    texts: Annotated[bool, typer.Option("--text", help="Show the text of running tasks too.")] = False,
    rate: Annotated[
        float, typer.Option("--rate", min=0.1, max=RATE_MAX, help="Most times per second that the view is drawn.")
    ] = 4.0,
) -> None:
    """Watch a running orchestrator. Shows its agents, its queue and its tasks, and slows nobody."""
    from anywire.cli import watching
    from anywire.cli.fleet_source import fleet_place
    from anywire.roles.stop import run

    place = fleet_place(given)
    if follow:
        result = run(lambda stop: watching.follow(place, follow, stop, as_json))
    elif once:
        result = run(lambda stop: stop.unless(watching.once(place, as_json, only_agent, task_id)))
    else:
        lines = as_json or bool(types) or not sys.stdout.isatty()
        show = watching.lines if lines else watching.live
        wanted = watching.Wanted(types, after, only_agent, task_id, texts, as_json, rate)
        result = run(lambda stop: show(place, stop, wanted))
    if result is False:
        raise BrokenPipeError
