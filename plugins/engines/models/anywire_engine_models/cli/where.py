"""Where ``anywire models`` asks: an agent that runs here, one behind an orchestrator, or a registry file alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer

from anywire.asked_fleet import AskedFleet, GivenFleet
from anywire.errors import AgentUnavailable, ConfigError
from anywire.files.private_files import config_folder
from anywire_engine_models.cli.beside_agent import opened
from anywire_engine_models.cli.places import PACKAGE, Models, Place, path_here
from anywire_engine_models.local_api.records import LocalApiRecord, running_apis

Answer = TypeVar("Answer")

ENGINES = ("models", "mcp")
"""Engines that may have the commands ``models.*``."""


class BesideAgent:
    """An agent of this user that runs here, by its own routes; after a restart of it, those that it has then. Where it
    is the ``only`` one, that is the only one again."""

    def __init__(self, record: LocalApiRecord, *, only: bool) -> None:
        self._record, self._only = record, only

    def ask(self, work: Callable[[Models], Awaitable[Answer]]) -> Answer:
        self._record = self._now()

        async def ask() -> Answer:
            async with opened(self._record) as models:
                return await work(models)

        return asyncio.run(ask())

    def path_of(self, text: str) -> str:
        return path_here(text)

    def _now(self) -> LocalApiRecord:
        running = running_apis()
        found = [each for each in running if each.url == self._record.url]
        if not found and self._only and len(running) == 1:
            found = running
        return found[0] if found else self._record


class ThroughFleet:
    """An agent of an orchestrator, the only one that may have models where none is named."""

    def __init__(self, given: GivenFleet, agent_id: str | None) -> None:
        self._given, self._agent_id = given, agent_id

    def ask(self, work: Callable[[Models], Awaitable[Answer]]) -> Answer:
        async def ask(fleet: AskedFleet) -> Answer:
            if self._agent_id is None:
                self._agent_id = await _only_agent(fleet)
            return await work(_Agent(fleet, self._agent_id))

        return self._given.ask(ask)

    def path_of(self, text: str) -> str:
        if not text.startswith(PACKAGE) and not Path(text).is_absolute():
            raise typer.BadParameter(f"{text!r} is for the agent's machine: give an absolute path")
        return text


class _Agent:
    def __init__(self, fleet: AskedFleet, agent_id: str) -> None:
        self._fleet, self._agent_id = fleet, agent_id

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        return self._fleet.command(self._agent_id, name, arguments)


def place(
    given: GivenFleet, agent_id: str | None, api: str | None, registry: Path | None = None, *, in_file: bool = False
) -> Place:
    """Where the options lead. ``in_file``: the command can do without an agent. Raises `typer.BadParameter`, and
    `ConfigError` where no agent is found, or several."""
    if sum(each is not None for each in (agent_id, api, registry)) > 1:
        raise typer.BadParameter("give one of --agent, --api and --registry")
    if registry is not None:
        return _file(registry)
    if agent_id is not None:
        return ThroughFleet(given, agent_id)
    running = running_apis()
    if api is not None:
        return BesideAgent(_at(api, running), only=False)
    if given.is_named:
        return ThroughFleet(given, None)
    if len(running) > 1:
        raise ConfigError(f"several agents of yours run here: choose one with --api {_addresses(running)}")
    if running:
        return BesideAgent(running[0], only=True)
    if given.is_known:
        return ThroughFleet(given, None)
    if in_file:
        return _file(None)
    raise ConfigError(
        "no agent of yours with models runs here: start one with `anywire up --engine models`, or name the server of "
        "an orchestrator with --url"
    )


def _file(path: Path | None) -> Place:
    from anywire_engine_models.cli.registry_file import RegistryAlone

    if path is None:
        path = config_folder() / "models.json"
        print(f"no agent of yours runs here: this is the registry file {path}", file=sys.stderr)
        return RegistryAlone(path, seeded=True)
    return RegistryAlone(path)


def _at(url: str, running: list[LocalApiRecord]) -> LocalApiRecord:
    found = next((each for each in running if each.url == url.rstrip("/")), None)
    if found is None:
        known = f"; there is {_addresses(running)}" if running else ""
        raise ConfigError(f"no agent of yours has its routes at {url}{known}: see `local_api` of the engine models")
    return found


def _addresses(running: list[LocalApiRecord]) -> str:
    return ", ".join(f"{each.url} (pid {each.pid})" for each in running)


async def _only_agent(fleet: AskedFleet) -> str:
    agents = await fleet.list("agents")
    fitting = [each for each in agents if each.get("engine") in ENGINES] or agents
    if not fitting:
        raise AgentUnavailable("no agent has joined the orchestrator: see `anywire agents`")
    if len(fitting) > 1:
        names = ", ".join(str(each["id"]) for each in fitting[:20])
        raise ConfigError(f"the orchestrator has several agents: choose one with --agent ({names})")
    return str(fitting[0]["id"])
