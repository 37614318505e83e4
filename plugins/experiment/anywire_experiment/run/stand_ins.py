"""The servers behind the agents of a cell: one process for all of them, which fails as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from anywire.config import replaced
from anywire_experiment.plan.fault_kinds import StandInServers
from anywire_experiment.run.managed import Died, Managed
from anywire_experiment.run.system import System

NAME = "stand-in"
"""Of the process among those of a cell."""


class StandIns(Managed):
    """Use `begin` before the system starts, and `stop` after it has ended."""

    KIND: ClassVar[str] = "the servers "

    def __init__(self, servers: StandInServers, system: System, cpus: Sequence[int], log: Path, died: Died) -> None:
        self._system = system
        arguments = ["anywire_experiment.faults.serve", str(len(system.agents)), str(servers.pace)]
        super().__init__(NAME, arguments, cpus, log, died)

    async def begin(self) -> None:
        """Start them, and have each agent ask its own. Raises `CellFailed`."""
        await self.start()
        urls = (await self.hear("serving"))["urls"]
        configs = self._system.configs
        for name, url in zip(self._system.agents, urls, strict=True):
            configs[name] = replaced(configs[name], engine={**configs[name].engine.model_dump(), "base_url": url})

    def behind(self, agent: str) -> OneServer:
        return OneServer(self, list(self._system.agents).index(agent))


class OneServer:
    """The server of one agent (`anywire_experiment.run.injection.Server`)."""

    def __init__(self, servers: StandIns, number: int) -> None:
        self._servers, self._number = servers, number

    async def fail(self, how: str) -> None:
        await self._obeyed({"do": "fail", "server": self._number, "how": how})

    async def heal(self) -> None:
        await self._obeyed({"do": "heal", "server": self._number})

    async def _obeyed(self, command: dict[str, object]) -> None:
        self._servers.say(msgspec.json.encode(command).decode())
        await self._servers.hear("done")
