"""``python -m anywire_experiment.run.process ROLE AGENTS``: one process of a system under test, as ``anywire serve``
and ``anywire agent`` are, but spoken to by the runner.

The configuration is the first line of its standard input; after that each line is a command. ``settings``: tell what
the transports were asked for and granted. ``whole``: tell when all agents are there and ready, and one has answered.
``available``: tell when all are, and no breaker of theirs is open; and until then whenever it changes why not.
``counters``: tell what the orchestrator has counted.
It tells what happens as JSON lines on its standard output, and ends with its standard input or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from anywire.config import Config
from anywire.errors import AnywireError
from anywire.plugins import PluginKind, Plugins
from anywire.roles import assembly, logs
from anywire.roles.agent_role import work
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.orchestrator_role import Served, serving
from anywire.roles.parent import inherited_config
from anywire.roles.ready import keep_what_is_there
from anywire.roles.stop import Stop, run
from anywire.selector import AgentView
from anywire.transport import Transport
from anywire_experiment.run.agents_well import all_well, answered

AGENT = "agent"
"""What agents' names begin with."""


def tell(event: str, **members: Any) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.write(msgspec.json.encode({"event": event, **members}).decode() + "\n")
    sys.__stdout__.flush()


def obey(stop: Stop, commands: Mapping[str, Callable[[], object]]) -> None:
    """Carry out the commands of standard input, and stop at its end."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    rest = b""

    def readable() -> None:
        nonlocal rest
        block = os.read(descriptor, 4096)
        if not block:
            loop.remove_reader(descriptor)
            stop.request("the runner ended")
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            commands[line.decode()]()

    loop.add_reader(descriptor, readable)


class _Plugins(Plugins):
    """Remembers the transports it makes, so that they can be asked later for their settings."""

    def __init__(self, sources: list[str]) -> None:
        super().__init__()
        self._made: list[Transport] = []
        for each in sources:
            self.add(each)

    def create(
        self,
        kind: PluginKind,
        name: str,
        options: Mapping[str, Any],
        section: str = "",
        parts: Callable[[str, Mapping[str, Any], str], Any] | None = None,
    ) -> Any:
        made = super().create(kind, name, options, section, parts)
        if kind == "transports":
            self._made.append(made)
        return made

    def tell_settings(self) -> None:
        told = [
            {
                "transport": each.name,
                "asked": each.config.model_dump(mode="json"),
                "granted": dict(each.effective_settings()),
            }
            for each in self._made
        ]
        tell("settings", transports=told)


class _Orchestrator:
    """What the orchestrator's process answers to."""

    def __init__(self, served: Served, agents: int) -> None:
        self._served = served
        self._names = {f"{AGENT}-{number}" for number in range(1, agents + 1)}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By what is asked, the newest."""

    def whole(self) -> None:
        self._tasks["whole"] = asyncio.create_task(self._tell_whole())

    def available(self) -> None:
        self._tasks["available"] = asyncio.create_task(self._tell_available())

    def counters(self) -> None:
        stats = self._served.orchestrator.stats()
        wasted = {f"hedges_{name}": number for name, number in stats["hedging"].items()}
        tell("counters", counters={**stats["events"], **wasted})

    async def _tell_available(self) -> None:
        await all_well(self._served, self._names, lambda why: tell("awaited", reason=why))
        tell("available")

    async def _tell_whole(self) -> None:
        def all_ready(agents: list[AgentView]) -> bool:
            return {each.agent_id for each in agents if each.status.state == "ready"}.issuperset(self._names)

        orchestrator = self._served.orchestrator
        await orchestrator.agents_until(all_ready)
        try:
            stream = await answered(self._served)
        except AnywireError as error:
            tell("refused", reason=f"{error.code}: {error}")
            return
        tell("whole", transport=stream.transport, agent=stream.agent_id)


async def _serve(config: Config, plugins: _Plugins, agents: int, inside: bool, stop: Stop) -> None:
    count = None if config.agents else agents
    context = running(config, plugins, stop, count) if inside else serving(config, plugins, stop)
    async with context as served:
        orchestrator = _Orchestrator(served, agents)
        asked = {
            "settings": plugins.tell_settings,
            "whole": orchestrator.whole,
            "available": orchestrator.available,
            "counters": orchestrator.counters,
        }
        obey(stop, asked)
        keep_what_is_there()
        tell("started", url=served.address, answers=list(asked))
        await stop.wait()


async def _work(config: Config, plugins: _Plugins, stop: Stop) -> None:
    agent = assembly.make_agent(config, plugins)
    obey(stop, {"settings": plugins.tell_settings})
    await work(agent, config, stop)


def main() -> int:
    role, agents = sys.argv[1], int(sys.argv[2])
    sys.stdout = sys.stderr  # what plugins print is for the log
    try:
        config = inherited_config()
        logs.configure(config.log_level, config.log_format)
        plugins = _Plugins(config.plugins)
        if role == AGENT:
            run(lambda stop: _work(config, plugins, stop))
        else:
            run(lambda stop: _serve(config, plugins, agents, role == "all", stop))
    except AnywireError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
