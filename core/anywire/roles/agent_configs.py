"""Which agents run beside an orchestrator on this machine: a configuration for each."""

from __future__ import annotations

import os
import socket

from anywire.config import AgentsEntry, Config, replaced
from anywire.errors import ConfigError


def agent_configs(config: Config, count: int | None = None) -> dict[str, Config]:
    """The configuration of each agent by its id: those that ``agents`` lists, else ``count`` (1 by default) of the
    sections ``engine`` and ``agent``.

    Ids are the entry's, or the one of the section ``agent``, or are made of host and pid; a number is added unless an
    entry with an id has one agent. Raises `ConfigError` when ``count`` is given beside a list, and for an id that two
    agents would have.
    """
    if config.agents and count is not None:
        raise ConfigError("the section agents says how many agents there are: leave --agents out")
    entries = config.agents or [AgentsEntry(count=count or 1)]
    base = config.agent.id or f"{socket.gethostname()}-{os.getpid()}"
    made: dict[str, Config] = {}
    numbers: dict[str, int] = {}
    for entry in entries:
        of_entry = entry_config(config, entry)
        stem = entry.id or base
        for _ in range(entry.count):
            number = numbers[stem] = numbers.get(stem, 0) + 1
            agent_id = stem if entry.id and entry.count == 1 else f"{stem}-{number}"
            if agent_id in made:
                raise ConfigError(f"agents: two agents would have the id {agent_id!r}")
            made[agent_id] = replaced(of_entry, agent=of_entry.agent.model_dump() | {"id": agent_id})
    return made


def entry_config(config: Config, entry: AgentsEntry) -> Config:
    """The configuration of agents of one sort."""
    own = entry.model_dump(include={"slots", "queue", "specialization", "device"}, exclude_none=True)
    engine = entry.engine if entry.engine is not None else config.engine
    return replaced(config, agents=[], engine=engine.model_dump(), agent=config.agent.model_dump() | own)
