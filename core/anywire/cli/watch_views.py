"""How ``anywire watch`` shows what it knows: lines, or a picture of the terminal's size that changes in place."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from anywire.printable import printable

if TYPE_CHECKING:
    from anywire.cli.watch_picture import Agent, Item, Picture, Task

_COLOURS = {
    "ready": "green",
    "failed": "red",
    "lost": "red",
    "quarantined": "red",
    "open": "red",
    "half_open": "yellow",
    "isolated": "yellow",
    "drained": "yellow",
    "running": "green",
    "ended": "dim",
    "held": "yellow",
}
TEXTS = 8
"""Tasks whose text is shown at a time: those that began last."""
_HEAD = ("type", "id", "at_ns", "time", "version", "trace", "priority", "stages")
"""Members of an event that a line for people leaves out."""


def safe_text(text: str) -> str:
    """Text of an answer with its lines, without what could control a terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else " " for each in text)


def as_json(event: Item) -> str:
    return json.dumps(event, separators=(",", ":"))


def as_line(event: Item) -> str:
    """An event for people: the time, its type, and what it says. Members that say nothing are left out."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.get("time", time.time())))
    said = {name: value for name, value in event.items() if name not in _HEAD and value not in ("", 0, None, {}, [])}
    told = [f"{name}={_short(value)}" for name, value in said.items()]
    return printable(" ".join([clock, str(event["type"]), *told]))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _cell(text: object, colour: str = "") -> Text:
    return Text(printable(str(text)), style=_COLOURS.get(colour, ""), overflow="ellipsis", no_wrap=True)


def _colour(agent: Agent) -> str:
    """What of its state gives the colour."""
    if agent.lost:
        return "lost"
    return agent.health if agent.health != "closed" else agent.order or agent.state


class View:
    """A renderable of the picture as it is when it is drawn, with as many rows as there is room for."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        picture = self._picture
        rows = max(4, (options.height or 10_000) - 12)
        agents = self._agents(rows // 2)
        shown = picture.shown_tasks()
        texts = [each for each in shown if each.followed and each.place != "ended"][-TEXTS:]
        left = max(2, rows - agents.row_count - 2 * len(texts))
        yield Group(self._head(), Text(), agents, Text(), self._tasks(shown[:left]), *map(self._text, texts))

    def _head(self) -> Text:
        picture = self._picture
        present = [each for each in picture.agents.values() if not each.lost]
        answered = picture.ends["answered"]
        parts = [f"agents: {len(present)}"]
        parts += [f"{place}: {picture.count(place)}" for place in ("queued", "held", "running")]
        parts += [f"answered: {answered}", f"failed: {picture.ends.total() - answered}"]
        parts.append(f"tokens/s: {sum(each.tokens_per_second() for each in present):.0f}")
        if picture.missed:
            parts.append(f"events missed: {picture.missed}")
        if picture.state:
            parts.append(picture.state)
        return Text(printable("  ".join(parts)), style="bold")

    def _agents(self, room: int) -> Table:
        table = _table("agent", "state", "load", "tokens/s", "errors", "models", "host", "engine", "over")
        for agent in self._picture.shown_agents()[:room]:
            table.add_row(
                _cell(agent.agent_id),
                _cell(agent.told_state(), _colour(agent)),
                _cell(f"{self._picture.load(agent.agent_id)}/{agent.slots}"),
                _cell(f"{agent.tokens_per_second():.0f}"),
                _cell(agent.errors),
                _cell(", ".join(agent.models)),
                _cell(agent.host),
                _cell(agent.engine),
                _cell(agent.transport),
            )
        return table

    def _tasks(self, tasks: list[Task]) -> Table:
        table = _table("task", "place", "agent", "over", "model", "seconds", "tenant", "why")
        for task in tasks:
            table.add_row(
                _cell(task.task_id),
                _cell(task.place, "failed" if task.error else task.place),
                _cell(", ".join(task.agents.values()) or task.last_agent),
                _cell(task.transport),
                _cell(task.model),
                _cell(f"{task.age():.1f}"),
                _cell(task.tenant),
                _cell(": ".join(filter(None, (task.error, task.why)))),
            )
        return table

    def _text(self, task: Task) -> Group:
        return Group(
            Text(f"{task.task_id}{' (from its middle)' if task.missing else ''}", style="bold"), _Tail(task.text)
        )


class _Tail:
    """The end of a text, one line wide."""

    def __init__(self, text: str) -> None:
        self._text = printable(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._text[-(options.max_width - 1) :], no_wrap=True, overflow="crop")


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
