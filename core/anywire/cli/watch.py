"""``anywire watch``: agents, tasks and streams of a running fleet, as they are and as they go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from queue import Full, Queue
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.errors import ConfigError, PluginError
from anywire.observer import RATE_MAX

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop
    from anywire.cli.watch_events import Event, Picture
    from anywire.config import Config
    from anywire.observer import Observable, Observer, ObserverInfo
    from anywire.plugins import Plugins

LOOK = 1.5
"""Seconds that ``--once`` looks for somebody."""
QUIET = 0.3
"""Seconds without anything new after which ``--once`` has seen what there is."""
MOST = 5.0
BACKLOG = 10_000
"""Lines that wait for a slow reader of the output; more are left out, and counted."""


def watch(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event and line.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print what is known now, and end.")] = False,
    task_id: Annotated[str, typer.Option("--task", metavar="ID", help="Only this task.")] = "",
    only_agent: Annotated[str, typer.Option("--agent", metavar="ID", help="Only this agent and its tasks.")] = "",
    rate: Annotated[
        float, typer.Option("--rate", min=0.1, max=RATE_MAX, help="Most updates per second of one agent or task.")
    ] = 4.0,
    texts: Annotated[bool, typer.Option("--text/--no-text", help="Show the text of answers.")] = True,
    file: options.File = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    fleet: Annotated[
        str | None, typer.Option("--fleet", metavar="NAME", help="Fleet of the transport, where it has several.")
    ] = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Watch a running fleet: agents, tasks, the text of streams. Disturbs nobody, needs no server's address."""
    config, plugins = options.settle(
        file,
        transports=transports,
        dds_domain=dds_domain,
        plugin_files=plugin_files,
        log_level=log_level,
        quiet=True,
    )
    if fleet is not None:
        config = _of_fleet(config, plugins, fleet)
    observed = _observable(config, plugins)

    from anywire.cli import eventloop
    from anywire.cli.watch_events import Events, Picture

    # What is there now is wanted at once.
    info = _observer_info(RATE_MAX if once else rate, texts, config.agents.timeout)

    async def role(stop: Stop) -> bool:
        picture = Picture()
        output = Output(stop) if not once and (as_json or not sys.stdout.isatty()) else None
        emit = picture.add if output is None else _printer(output, as_json)

        async def open_all() -> list[Observer]:
            return [
                await each.open_observer(info, Events(name, emit, task_id=task_id, agent_id=only_agent))
                for name, each in observed.items()
            ]

        observers = await open_all()
        try:
            if once:
                await stop.unless(_settled(picture))
                _print_once(picture, as_json=as_json, texts=texts)
            elif output is not None:
                await stop.wait()
            else:
                await stop.unless(_show(picture, rate, texts=texts))
        finally:
            for observer in observers:
                await observer.close()
            if output is not None:
                output.close()
        return output is None or not output.broken

    if eventloop.run(role) is False:
        raise BrokenPipeError


def _observer_info(rate: float, texts: bool, lease: float) -> ObserverInfo:
    from anywire.identity import hub_info
    from anywire.observer import ObserverInfo

    own = hub_info(lease=lease)
    return ObserverInfo(own.hub_id.replace("hub-", "watch-", 1), own.incarnation, rate, texts, own.lease_ms)


def _of_fleet(config: Config, plugins: Plugins, fleet: str) -> Config:
    from anywire.config import replaced

    chosen = {each.name: dict(each.options) for each in config.transports}
    taking = [name for name in chosen if "fleet" in plugins.load("transports", name).Config.model_fields]
    if not taking:
        raise typer.BadParameter(f"there are no fleets over {', '.join(chosen)}", param_hint="--fleet")
    for name in taking:
        chosen[name]["fleet"] = fleet
    return replaced(config, transports=chosen)


def _observable(config: Config, plugins: Plugins) -> dict[str, Observable]:
    """Those of the configured transports that can be observed, by name. Raises `ConfigError` when there is none."""
    from anywire import assembly
    from anywire.observer import Observable

    made = {each.name: each for each in assembly.make_transports(config, plugins)}
    found: dict[str, Observable] = {name: each for name, each in made.items() if isinstance(each, Observable)}
    blind = [name for name in made if name not in found]
    if not found:
        can = []
        for name in plugins.names("transports"):
            with contextlib.suppress(PluginError):  # one that does not load cannot be observed either
                if issubclass(plugins.load("transports", name), Observable):
                    can.append(name)
        known = ", ".join(can) or "none installed"
        raise ConfigError(f"over {', '.join(blind)} nothing can be observed; transports that can: {known}")
    if blind:
        print(f"what goes over {', '.join(blind)} is not seen: it cannot be observed", file=sys.stderr)
    return found


async def _settled(picture: Picture) -> None:
    """Until everybody who is there has told what is known, and nothing new comes; `MOST` seconds at most."""
    news = asyncio.Event()
    picture.arrived = news.set
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MOST):
            while True:
                nobody = not picture.agents and not picture.hubs
                patience = LOOK if nobody else QUIET if picture.complete else None
                try:
                    await asyncio.wait_for(news.wait(), patience)
                except TimeoutError:
                    return
                news.clear()


def _print_once(picture: Picture, *, as_json: bool, texts: bool) -> None:
    from rich.console import Console

    from anywire.cli import watch_views

    if as_json:
        known: list[Event] = [each.joined for each in picture.hubs.values()]
        known += [each.reported for each in picture.hubs.values() if each.reported]
        for agent in picture.agents.values():
            known += [agent.joined, *([agent.reported] if agent.reported else [])]
        for task in (*picture.running.values(), *picture.ended):
            known.append(task.newest | {"text": task.text, "missing": task.missing})
        for event in known:
            typer.echo(watch_views.as_json(event))
    else:
        # In a pipe nothing is cut to the width of a screen.
        width = None if sys.stdout.isatty() else 400
        Console(highlight=False, width=width, height=10_000).print(watch_views.View(picture, texts=texts))
    if not picture.agents and not picture.hubs:
        typer.echo("Nobody is seen. `anywire doctor` checks the transport; domain and fleet must be theirs.", err=True)


async def _show(picture: Picture, rate: float, *, texts: bool) -> None:
    """Draw at every change, ``rate`` times per second at most, until cancelled; ages make it change each second."""
    from rich.console import Console
    from rich.live import Live

    from anywire.cli.watch_views import View

    changed = asyncio.Event()
    picture.changed = changed.set
    view = View(picture, texts=texts)
    with Live(view, console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            await asyncio.sleep(1 / rate)
            changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1)


def _printer(output: Output, as_json: bool) -> Callable[[Event], None]:
    from anywire.cli import watch_views

    line = watch_views.as_json if as_json else watch_views.Lines().line

    def emit(event: Event) -> None:
        if text := line(event):
            output.print(text)

    return emit


class Output:
    """Lines to stdout from a thread, so that a reader who is slow or stopped stops neither the observer nor Ctrl-C."""

    def __init__(self, stop: Stop) -> None:
        self.broken = False
        self._stop, self._loop = stop, asyncio.get_running_loop()
        self._waiting: Queue[str | None] = Queue(BACKLOG)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="anywire-watch-output", daemon=True)
        self._thread.start()

    def print(self, line: str) -> None:
        try:
            self._waiting.put_nowait(line)
        except Full:
            self._left_out += 1

    def close(self) -> None:
        """Give the reader a second for what is left."""
        with contextlib.suppress(Full):
            self._waiting.put_nowait(None)
        self._thread.join(1)
        if self._left_out:
            print(f"{self._left_out} lines were left out: the reader of the output was too slow", file=sys.stderr)

    def _write(self) -> None:
        descriptor = sys.stdout.fileno()
        while (line := self._waiting.get()) is not None:
            data = memoryview(f"{line}\n".encode())
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                self.broken = True
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    self._loop.call_soon_threadsafe(self._stop.request, "the reader of the output is gone")
                return
