"""How what a running orchestrator does is followed and shown: ``anywire watch`` at work."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import typer

from anywire.errors import AnywireError, NoAgent

if TYPE_CHECKING:
    from anywire.cli.fleet_source import Item, Place, Source
    from anywire.cli.watch_picture import Picture, Task
    from anywire.roles.stop import Stop

FOLLOWED = 64
"""Tasks whose text is read at a time with ``--text``; further ones are left out."""
RETRY_FIRST, RETRY_MOST = 0.2, 5.0
"""Seconds until an orchestrator that is gone is looked for again; twice as long each time."""

Emit = Callable[["Item"], None]


class Wanted:
    """What the options ask for."""

    def __init__(
        self, types: str, after: str, agent_id: str, task_id: str, texts: bool, as_json: bool, rate: float
    ) -> None:
        self.types, self.after, self.agent_id, self.task_id = types, after, agent_id, task_id
        self.texts, self.as_json, self.rate = texts, as_json, rate

    def shows(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is about the agent or task that is asked for."""
        return (not self.task_id or event.get("task_id") == self.task_id) and (
            not self.agent_id or event.get("agent_id") == self.agent_id
        )


async def follow(place: Place, task_id: str, stop: Stop, as_json: bool) -> bool:
    from anywire.cli import watch_views
    from anywire.cli.watch_output import Output
    from anywire.roles.stop import StopRequested

    output = Output(stop)

    async def read() -> None:
        async with place.open() as source, aclosing(source.follow(task_id)) as chunks:
            async for chunk in chunks:
                if as_json:
                    output.print(watch_views.as_json(chunk))
                else:
                    output.write(watch_views.safe_text(chunk["text"]))

    try:
        with contextlib.suppress(StopRequested):
            await stop.unless(read())
        if not as_json:
            output.print("")
    finally:
        output.close()
    return not output.broken


async def once(place: Place, as_json: bool, agent_id: str, task_id: str) -> bool:
    from rich.console import Console

    from anywire.cli import watch_views
    from anywire.cli.watch_picture import Picture

    async with place.open() as source:
        agents, tasks, stats = await source.list("agents"), await source.list("tasks"), await source.stats()
    if as_json:
        agents = [each for each in agents if agent_id in ("", each["id"])]
        tasks = [each for each in tasks if task_id in ("", each["id"]) and agent_id in ("", each["agent_id"])]
        typer.echo(watch_views.as_json({"agents": agents, "tasks": tasks, "stats": stats}))
        return True
    picture = Picture(agent_id, task_id)
    picture.set(agents, tasks, stats)
    # In a pipe nothing is cut to the width of a screen.
    width = None if sys.stdout.isatty() else 400
    Console(highlight=False, width=width, height=10_000).print(watch_views.View(picture))
    return True


async def lines(place: Place, stop: Stop, wanted: Wanted) -> bool:
    from anywire.cli import watch_views
    from anywire.cli.watch_output import Output
    from anywire.cli.watch_picture import Picture
    from anywire.roles.stop import StopRequested

    output, picture = Output(stop), Picture()
    line = watch_views.as_json if wanted.as_json else watch_views.as_line

    def emit(event: Item) -> None:
        if wanted.shows(event) or event["type"] in ("missed", "reset", "interrupted"):
            output.print(line(event))

    try:
        with contextlib.suppress(StopRequested):
            await stop.unless(_watched(place, wanted, picture, emit))
    finally:
        output.close()
    return not output.broken


async def live(place: Place, stop: Stop, wanted: Wanted) -> bool:
    from anywire.cli.watch_picture import Picture

    picture = Picture(wanted.agent_id, wanted.task_id)
    watching = asyncio.ensure_future(_watched(place, wanted, picture, lambda event: None))
    showing = asyncio.ensure_future(_show(picture, wanted.rate))
    try:
        await stop.unless(asyncio.wait((watching, showing), return_when=asyncio.FIRST_COMPLETED))
    finally:
        for each in (watching, showing):
            each.cancel()
        results = await asyncio.gather(watching, showing, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return True


async def _watched(place: Place, wanted: Wanted, picture: Picture, emit: Emit) -> None:
    """Take in what happens, for ever. An orchestrator that is gone is looked for again. Raises what keeps the first one
    from being found."""
    from anywire.cli.fleet_source import Interrupted
    from anywire.cli.stream import ServerError

    after, pause, met = wanted.after, 0.0, False
    while True:
        reason = "the orchestrator has ended"
        try:
            async with (
                place.open() as source,
                _Texts(source, picture, wanted, emit),
                aclosing(source.events(wanted.types, after)) as events,
            ):
                async for event in events:
                    if not event:
                        picture.set(await source.list("agents"), await source.list("tasks"), await source.stats())
                        met, pause = True, RETRY_FIRST
                        continue
                    after = event.get("id", after)
                    picture.add(event)
                    emit(event)
        except (Interrupted, ServerError, NoAgent) as error:
            if not met:
                raise
            reason = str(error)
        if pause == RETRY_FIRST:
            gone = {"type": "interrupted", "reason": reason}
            picture.add(gone)
            emit(gone)
        await asyncio.sleep(pause)
        pause = min(2 * pause, RETRY_MOST)


class _Texts:
    """Follows running tasks where the text of tasks is asked for."""

    def __init__(self, source: Source, picture: Picture, wanted: Wanted, emit: Emit) -> None:
        self._source, self._picture, self._wanted, self._emit = source, picture, wanted, emit
        self._following: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> None:
        if self._wanted.texts:
            self._picture.began = self._begin

    async def __aexit__(self, *failure: object) -> None:
        self._picture.began = lambda task: None
        following = list(self._following.values())
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    def _begin(self, task: Task) -> None:
        task_id = task.task_id
        shown = self._picture.shows(task) and (self._wanted.task_id in ("", task_id))
        if task_id in self._following or not shown or len(self._following) >= FOLLOWED:
            return
        task.followed, task.missing = True, task.chunks > 0
        self._following[task_id] = following = asyncio.ensure_future(self._read(task_id))
        following.add_done_callback(lambda done: self._following.pop(task_id, None))

    async def _read(self, task_id: str) -> None:
        with contextlib.suppress(AnywireError):  # how it ended is an event
            async with aclosing(self._source.follow(task_id)) as chunks:
                async for chunk in chunks:
                    self._picture.add_text(task_id, chunk)
                    if chunk["text"]:
                        self._emit({"type": "text", "task_id": task_id, "seq": chunk["seq"], "text": chunk["text"]})


async def _show(picture: Picture, rate: float) -> None:
    """Draw at every change, ``rate`` times per second at most, until cancelled; ages make it change each second."""
    from rich.console import Console
    from rich.live import Live

    from anywire.cli.watch_views import View

    changed = asyncio.Event()
    picture.changed = changed.set
    with Live(View(picture), console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            await asyncio.sleep(1 / rate)
            changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1)
