"""How ``anywire watch`` shows what it has seen: lines, or a picture of the terminal's size that changes in place."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from anywire.cli.watch_events import Event, Picture, Task

_COLOURS = {"ready": "green", "failed": "red", "lost": "red", "running": "green", "ended": "dim"}
_REPORTED = ("state", "detail", "models", "slots", "active", "queued")
STREAMS = 8
"""Streams whose text is shown at a time: those that began last."""


def printable(text: str) -> str:
    """Text of an answer or a name as one line that can do nothing to a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def as_json(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"))


class Lines:
    """Events as lines for people, without the reports that say nothing new."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[object, ...]] = {}

    def line(self, event: Event) -> str:
        """Empty when there is nothing to tell."""
        told = getattr(self, f"_{event['event']}")(event)
        clock = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        return printable(f"{clock} {told}") if told else ""

    def _agent_joined(self, event: Event) -> str:
        self._reports.pop(event["agent"], None)
        return f"agent {event['agent']} is here ({event['engine']} on {event['host']}, pid {event['pid']})"

    def _agent_reported(self, event: Event) -> str:
        said = tuple(event[name] for name in _REPORTED)
        if self._reports.get(event["agent"]) == said:
            return ""
        self._reports[event["agent"]] = said
        detail = f" ({event['detail']})" if event["detail"] else ""
        load = f"{event['active']} of {event['slots']} slots in use, {event['queued']} queued"
        return f"agent {event['agent']} {event['state']}{detail}: {load}, models {', '.join(event['models']) or 'none'}"

    def _agent_lost(self, event: Event) -> str:
        self._reports.pop(event["agent"], None)
        return f"agent {event['agent']} lost: {event['reason']}"

    def _hub_joined(self, event: Event) -> str:
        return f"hub {event['hub']} is here (on {event['host']}, pid {event['pid']})"

    def _hub_reported(self, event: Event) -> str:
        return ""

    def _hub_lost(self, event: Event) -> str:
        return f"hub {event['hub']} lost: {event['reason']}"

    def _task(self, event: Event) -> str:
        line = (
            f"task {event['task']} attempt {event['attempt']} on {event['agent']} {event['state']}: {event['model']}, "
            f"{event['age_ms'] / 1e3:.1f} s, {event['chunks']} chunks{_end(event)}"
        )
        gap = "…" if event["missing"] else ""
        return f"{line}: {gap}{event['text']}" if event["text"] else line


def _end(event: Event) -> str:
    if event["error"]:
        return f", {event['error']['code']}: {event['error']['message']}"
    return f", {event['finish_reason']}" if event["finish_reason"] else ""


def _cell(text: object, colour: str = "") -> Text:
    return Text(printable(str(text)), style=_COLOURS.get(colour, ""), overflow="ellipsis", no_wrap=True)


class View:
    """A renderable of the picture as it is when it is drawn, with as many rows as there is room for."""

    def __init__(self, picture: Picture, *, texts: bool) -> None:
        self._picture, self._texts = picture, texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        picture = self._picture
        rows = max(4, (options.height or 10_000) - 12)
        agents = self._agents(rows // 2)
        running = sorted(picture.running.values(), key=lambda each: each.began)
        streams = [each for each in running if each.text][-STREAMS:] if self._texts else []
        left = max(2, rows - agents.row_count - 2 * len(streams))
        tasks = self._tasks([*running, *reversed(picture.ended)][:left])
        yield Group(self._head(), Text(), agents, Text(), tasks, *(self._stream(each) for each in streams))

    def _head(self) -> Text:
        picture = self._picture
        totals = [each.reported for each in picture.hubs.values() if each.reported]
        begun, ended, shown = (sum(each[name] for each in totals) for name in ("begun", "ended", "shown"))
        present = sum(not each.lost for each in picture.agents.values())
        text = f"hubs: {len(picture.hubs)}  agents: {present}  tasks running: {begun - ended}, ended: {ended}"
        return Text(f"{text}, shown to observers: {shown}", style="bold")

    def _agents(self, room: int) -> Table:
        table = _table("agent", "state", "slots", "queued", "load", "models", "host", "engine")
        for agent in sorted(self._picture.agents.values(), key=lambda each: (bool(each.lost), each.joined["agent"]))[
            :room
        ]:
            joined, reported = agent.joined, agent.reported
            state = "lost" if agent.lost else reported.get("state", "…")
            why = agent.lost or reported.get("detail", "")
            load = reported.get("resources", {}).get("load1")
            table.add_row(
                _cell(joined["agent"]),
                _cell(f"{state} {why}".rstrip(), state),
                _cell(f"{reported['active']}/{reported['slots']}" if reported else ""),
                _cell(reported.get("queued", "")),
                _cell("" if load is None else f"{load:.2f}"),
                _cell(", ".join(reported.get("models", ()))),
                _cell(joined["host"]),
                _cell(joined["engine"]),
            )
        return table

    def _tasks(self, tasks: list[Task]) -> Table:
        table = _table("task", "attempt", "agent", "over", "model", "state", "seconds", "chunks", "end")
        for task in tasks:
            newest = task.newest
            state = newest["state"]
            table.add_row(
                _cell(newest["task"]),
                _cell(newest["attempt"]),
                _cell(newest["agent"]),
                _cell(newest["transport"]),
                _cell(newest["model"]),
                _cell(state, "failed" if newest["error"] else state),
                _cell(f"{task.seconds():.1f}"),
                _cell(newest["chunks"]),
                _cell(_end(newest).removeprefix(", ")),
            )
        return table

    def _stream(self, task: Task) -> Group:
        head = Text(f"{task.newest['task']}{' (a part was not seen)' if task.missing else ''}", style="bold")
        return Group(head, _Tail(task.text))


class _Tail:
    """The end of a text, one line wide."""

    def __init__(self, text: str) -> None:
        self._text = printable(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._text[-(options.max_width - 1) :], no_wrap=True, overflow="crop")


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
