"""A deliberation as it goes on: a picture for a terminal, a line for each update elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anywire.deliberation_views import Whole
from anywire.printable import escaped, printable
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.record import WorkId
from anywire_service_deliberation.report_tables import points, what
from anywire_service_deliberation.views import one_line

RATE = 4.0
"""Most times per second that the picture is drawn."""
MESSAGE_CHARS = 200

Work = tuple[str, int, str, str]
"""Kind, round, member, about whom."""


class Picture:
    """What is known of a deliberation: how it began to be watched, and what updates have told since. ``changed`` is
    called at each of them."""

    def __init__(self, state: Whole) -> None:
        self.state = state
        self.stage, self.round = state.progress.stage or state.status, state.round
        self.works: dict[Work, str] = {}
        """``asked``, ``done``, ``failed`` or ``late``."""
        self._counts: dict[tuple[str, str], dict[int, Counter[str]]] = {}
        """By kind and member, by round: how many works are in which state."""
        self.agents: dict[str, list[str]] = {each.name: [] for each in state.members}
        self.scores: dict[str, list[float]] = {}
        self.trouble = ""
        """The newest of what went wrong."""
        self.changed: Callable[[], None] = lambda: None

    def add(self, update: Update) -> None:
        """Take in an update; one that is not understood changes nothing."""
        with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
            self._add(update)
            self.changed()

    def _add(self, update: Update) -> None:
        data = update.data
        if update.name in ("stage", "ended"):
            self.stage, self.round = str(data["status"]), int(data.get("round", self.round))
        if update.name not in ("asked", "answered", "failed", "late"):
            return
        work = work_of(data)
        self._put(work, {"answered": "done"}.get(update.name, update.name))
        agent, known = str(data.get("agent", "")), self.agents.setdefault(work[2], [])
        if agent and update.name != "asked":
            known[:] = [*(each for each in known if each != agent), agent]
        if work[0] == "score" and update.name == "answered" and "score" in data:
            self.scores.setdefault(work[3], []).append(float(data["score"]))
        if update.name == "failed":
            self.trouble = line_of(update)

    def counted(self, kind: str, member: str) -> tuple[int, int, int]:
        """Done, failed and asked for, of a member's works of that kind, in the newest round that has any."""
        rounds = self._counts.get((kind, member))
        if not rounds:
            return 0, 0, 0
        states = rounds[max(rounds)]
        return states["done"], states["failed"] + states["late"], states.total()

    def _put(self, work: Work, state: str) -> None:
        kind, number, member, _ = work
        states = self._counts.setdefault((kind, member), {}).setdefault(number, Counter())
        if work in self.works:
            states[self.works[work]] -= 1
        self.works[work] = state
        states[state] += 1

    def __rich__(self) -> Group:
        return Group(self._head(), self._members(), Text(escaped(self.trouble), "yellow"))

    def _head(self) -> Text:
        seconds = max(0.0, time.time() - self.state.submitted)
        told = Text(escaped(one_line(self.state.task, 100)), "bold")
        told.append("\n")
        told.append(escaped(self.stage), "green")
        if self.round and self.state.rounds > 1:
            told.append(f", round {self.round} of {self.state.rounds}")
        told.append(f", {seconds:.0f} s of {self.state.timeout:g} s", "dim")
        return told

    def _members(self) -> Table:
        made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for column in ("member", "role", "model", "agent", "proposal", "critiques", "revision", "scores", "score"):
            made.add_column(column, no_wrap=True)
        for each in self.state.members:
            scores = self.scores.get(each.name, [])
            made.add_row(
                Text(escaped(each.name)),
                Text(escaped(each.role)),
                Text(escaped(each.model)),
                Text(escaped(self._agent(each.name))),
                *(self._cell(kind, each.name) for kind in ("proposal", "critique", "revision", "score")),
                Text(points(sum(scores) / len(scores)) if scores else ""),
            )
        return made

    def _agent(self, member: str) -> str:
        """The newest of a member's agents, and how many others there were."""
        *others, newest = self.agents.get(member) or [""]
        return f"{newest} +{len(others)}" if others else newest

    def _cell(self, kind: str, member: str) -> Text:
        done, failed, asked = self.counted(kind, member)
        if not asked:
            return Text("")
        colour = "red" if failed else "green" if done == asked else "dim"
        if asked == 1:
            return Text("failed" if failed else "done" if done else "…", colour)
        return Text(f"{done}/{asked}{f', {failed} failed' if failed else ''}", colour)


def line_of(update: Update) -> str:
    """A line that tells of an update; empty for one that needs none."""
    data = update.data
    try:
        if update.name == "stage":
            number = int(data.get("round", 0))
            return f"{data['status']}{f', round {number}' if number else ''}"
        if update.name not in ("answered", "failed", "late"):
            return ""
        kind, number, member, about = work_of(data)
        work = f"{member}: {what(kind, number, about)}"
        by = f" by {data['agent']}" if data.get("agent") else ""
        if update.name == "answered":
            over = f" over {data['transport']}" if data.get("transport") else ""
            after = f" after {float(data['seconds']):.1f} s" if "seconds" in data else ""
            score = f": {points(float(data['score']))}" if "score" in data else ""
            return f"{work}{score}{by}{over}{after}"
        if update.name == "late":
            return f"{work}{by}, too late to count"
        why = ": ".join(filter(None, (str(data.get("code", "")), str(data.get("message", "")))))
        again = ", asked again" if data.get("again") else ""
        return f"{work} failed{by} ({printable(why, MESSAGE_CHARS)}){again}"
    except (ValueError, TypeError, KeyError, IndexError):
        return ""


def work_of(data: dict[str, Any]) -> Work:
    """The work that an update is about. Raises what reading something else raises."""
    work = WorkId.of(str(data["work"]))
    return work.kind, work.round, work.member, work.about


async def drawn(picture: Picture, console: Console) -> None:
    """Draw it at every change, `RATE` times per second at most, until cancelled. Its time changes it each second."""
    changed = asyncio.Event()
    picture.changed = changed.set
    with Live(picture, console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.refresh()
            await asyncio.sleep(1 / RATE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1)
            changed.clear()
