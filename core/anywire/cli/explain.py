"""``anywire explain``: how the agents of one task were chosen."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options
from anywire.cli.inspect import asked
from anywire.cli.tables import print_json
from anywire.printable import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

TaskId = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="Id of a task, running or ended, as the header x-anywire-task, `anywire tasks` and events tell it.",
        show_default=False,
    ),
]


@options.asks
def explain(task: TaskId, given: options.Given, as_json: options.Json = False) -> None:
    """Tell how the agents of one task were chosen. Ended tasks are kept too, the newest pipeline.explained_tasks."""
    from anywire.cli import stream

    found, where = asked(given, lambda source: source.explain(task))
    if as_json:
        print_json(found)
        return
    try:
        lines = list(explained(found))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise stream.no_answer(where) from error
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in lines:
        typer.echo(wrapped(escaped(line), width))


def wrapped(line: str, width: int) -> str:
    """The line broken between words where it is longer than ``width``, what follows indented by four more; with 0 as it
    is."""
    indent = line[: len(line) - len(line.lstrip())] + "    "
    if len(line) <= width or width <= 2 * len(indent):
        return line
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def explained(task: dict[str, Any]) -> Iterator[str]:
    """The lines that tell of a task (`anywire.views.record_json`)."""
    model, agent, seconds = task["model"], task["agent_id"], task["age_ms"] / 1e3
    if task["place"] != "ended":
        state = f"{task['place']}{': ' * bool(task['why'])}{task['why']}, for {seconds:.3f} s"
    elif task["error"]:
        state = f"ended with {task['error']} after {seconds:.3f} s: {task['message']}"
    else:
        state = f"answered by {agent} over {task['transport']} after {seconds:.3f} s"
    yield f"task {task['id']} for {model}: {state}"
    if not task["decisions"]:
        yield "  no agent was chosen yet" if task["place"] != "ended" else "  no agent was chosen"
    for number, each in enumerate(task["decisions"], 1):
        yield from _decision(number, each)


def _decision(number: int, each: dict[str, Any]) -> Iterator[str]:
    what = f"chose {each['agent_id']} for" if each["agent_id"] else "let it wait for an agent with"
    times = f", {each['repeated']} times" if each["repeated"] > 1 else ""
    yield (
        f"  {number}. after {each['after_ms']:.1f} ms {each['selector']} {what} {each['model']}"
        f"{times} (took {each['took_us']:.0f} us)"
    )
    scores = each["scores"]
    for agent in each["considered"]:
        agent_id = agent["agent_id"]
        score = f", score {scores[agent_id]:g}" if agent_id in scores else ""
        mark = "*" if agent_id == each["agent_id"] else " "
        yield f"     {mark} {agent_id}: {agent['in_flight']} of {agent['slots']} slots in use{score}"
    more = each["candidates"] - len(each["considered"])
    if more > 0:
        yield f"       and {more} candidates more"
    for out in each["left_out"]:
        rest = out["count"] - len(out["agents"])
        yield f"       left out: {', '.join(out['agents'])}{f' and {rest} more' if rest else ''}: {out['why']}"
    if each["reason"]:
        yield f"       reason: {each['reason']}"
