"""Which agents run beside an orchestrator on this machine: a configuration for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection

import msgspec

from anywire.config import AgentsEntry, Config, replaced
from anywire.errors import ConfigError


class AgentSort(msgspec.Struct, frozen=True):
    """Agents of one entry: their configurations by id. ``most`` further ones may be started on demand."""

    config: Config
    stem: str
    agents: dict[str, Config]
    most: int

    def further(self, taken: Collection[str]) -> tuple[str, Config]:
        """The id and configuration of one more, whose id is not ``taken``."""
        number = len(self.agents) + 1
        while (agent_id := f"{self.stem}-{number}") in taken:
            number += 1
        return agent_id, _named(self.config, agent_id)


def agent_configs(config: Config, count: int | None = None) -> dict[str, Config]:
    """The configuration of each agent by its id, those on demand left out; see `agent_sorts`."""
    return {agent_id: own for sort in agent_sorts(config, count) for agent_id, own in sort.agents.items()}


def agent_sorts(config: Config, count: int | None = None) -> list[AgentSort]:
    """The agents that ``agents`` lists, by entry, else ``count`` (1 by default) of the sections ``engine`` and
    ``agent``.

    Ids are the entry's, or the one of the section ``agent``, or are made of host and pid; a number is added unless an
    entry with an id has one agent. Raises `ConfigError` when ``count`` is given beside a list, and for an id that two
    agents would have.
    """
    if config.agents and count is not None:
        raise ConfigError("the section agents says how many agents there are: leave --agents out")
    entries = config.agents or [AgentsEntry(count=count or 1)]
    base = config.agent.id or f"{socket.gethostname()}-{os.getpid()}"
    sorts: list[AgentSort] = []
    known: set[str] = set()
    numbers: dict[str, int] = {}
    for entry in entries:
        of_entry = entry_config(config, entry)
        stem = entry.id or base
        made: dict[str, Config] = {}
        for _ in range(entry.count):
            number = numbers[stem] = numbers.get(stem, 0) + 1
            agent_id = stem if entry.id and entry.count == 1 else f"{stem}-{number}"
            if agent_id in known:
                raise ConfigError(f"agents: two agents would have the id {agent_id!r}")
            known.add(agent_id)
            made[agent_id] = _named(of_entry, agent_id)
        most = config.on_demand.most if entry.on_demand is None else entry.on_demand
        sorts.append(AgentSort(of_entry, stem, made, most))
    return sorts


def _named(config: Config, agent_id: str) -> Config:
    return replaced(config, agent=config.agent.model_dump() | {"id": agent_id})


def entry_config(config: Config, entry: AgentsEntry) -> Config:
    """The configuration of agents of one sort."""
    own = entry.model_dump(include={"slots", "queue", "specialization", "device"}, exclude_none=True)
    engine = entry.engine if entry.engine is not None else config.engine
    return replaced(config, agents=[], engine=engine.model_dump(), agent=config.agent.model_dump() | own)
