"""The processes of a fleet over DDS: started, opened, told what to do, and gone afterwards."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import psutil

import fleet_member
from fleet_member import AgentCount, Asked, MemberSpec, Met
from patience import FACTOR

IN_FLIGHT = 32
"""Tasks each hub has under way."""

PATIENCE = 180.0 * FACTOR
"""Seconds until something awaited is given up; no measure of speed."""


class Member:
    """One process of the fleet, which does one command at a time."""

    def __init__(self, spec: MemberSpec, process: asyncio.subprocess.Process) -> None:
        self.spec, self._process = spec, process
        self.usage = psutil.Process(process.pid)

    @classmethod
    async def start(cls, spec: MemberSpec) -> Member:
        return cls(
            spec,
            await asyncio.create_subprocess_exec(
                *(sys.executable, fleet_member.__file__, msgspec.json.encode(spec).decode()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 26,
            ),
        )

    async def up(self) -> None:
        """Wait until it takes commands."""
        await self._reply(str)

    async def do(self, kind: Any, *command: Any) -> Any:
        """The result of a command, as a ``kind``."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        return await self._reply(kind)

    async def _reply(self, kind: Any) -> Any:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"{self.spec.name} has not answered for {PATIENCE:g} s") from None
        if not line:
            code = await self._process.wait()
            raise RuntimeError(f"{self.spec.name} ended with {code}; what it wrote to its standard error says why")
        return msgspec.json.decode(line, type=kind)

    def dismiss(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def ended(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


class Discovery(NamedTuple):
    """Seconds until every hub had joined every agent there was: since the processes were told to open, and since they
    were started; seconds of CPU time from opening on, of all processes."""

    links: int
    since_opening: float
    since_start: float
    cpu: float


class Fleet:
    """The processes of a fleet. ``processes`` is how many the agents are spread over; ``meeting`` is in how many
    seconds the hubs must have joined them all."""

    def __init__(
        self, agents: int, hubs: int, processes: int, options: dict[str, Any], *, lease: float, meeting: float
    ) -> None:
        self._meeting = meeting
        self.agent_ids = [f"agent-{number:03}" for number in range(agents)]
        self.hub_ids = [f"hub-{number}" for number in range(hubs)]
        self._specs = [
            MemberSpec("agents", f"agents-{number}", self.agent_ids[number::processes], options, lease)
            for number in range(processes)
        ]
        self._hub_specs = [MemberSpec("hub", name, self.agent_ids, options, lease) for name in self.hub_ids]
        self.agents: list[Member] = []
        self.hubs: list[Member] = []

    @property
    def members(self) -> list[Member]:
        return [*self.agents, *self.hubs]

    async def open_at_once(self) -> Discovery:
        """Start all but the last process, then open them all; return when their links are there."""
        began = time.monotonic()
        for spec in self._hub_specs:
            self.hubs.append(await Member.start(spec))
        for spec in self._specs[:-1]:
            self.agents.append(await Member.start(spec))
        await _all(member.up() for member in self.members)
        return await self._open(began, self.members)

    async def open_last(self) -> Discovery:
        """Start and open the last process."""
        began = time.monotonic()
        self.agents.append(await Member.start(self._specs[-1]))
        await self.agents[-1].up()
        return await self._open(began, self.agents[-1:])

    async def _open(self, began: float, members: Sequence[Member]) -> Discovery:
        count = sum(len(member.spec.agents) for member in self.agents)
        opening, cpu = time.monotonic(), cpu_seconds(self.members)
        await _all(member.do(None, "open") for member in members)
        met = await self._met(count, self._meeting)
        spent = cpu_seconds(self.members) - cpu
        if any(each.known < count for each in met):
            known = ", ".join(f"{each.known} (lost on the way {each.lost})" for each in met)
            raise RuntimeError(f"after {self._meeting:g} s the hubs know not {count} agents but {known}")
        last = max(each.at for each in met)
        return Discovery(count * len(self.hubs), last - opening, last - began, spent)

    async def _met(self, count: int, seconds: float) -> list[Met]:
        return await _all(hub.do(Met, "meet", count, seconds) for hub in self.hubs)

    async def ask(self, tasks: int) -> list[Asked]:
        """Every hub at the same time asks every agent so many times."""
        found: list[Asked] = await _all(hub.do(Asked, "ask", tasks, IN_FLIGHT) for hub in self.hubs)
        return found

    async def counts(self) -> list[AgentCount]:
        found = await _all(member.do(list[AgentCount], "count") for member in self.agents)
        return [count for each in found for count in each]

    async def lost(self) -> int:
        """How often a hub has lost an agent."""
        return sum(each.lost for each in await self._met(0, 0.0))

    async def close(self) -> None:
        """The agents first: none of them then waits for a hub that is going too."""
        try:
            await _end(self.agents)
        finally:
            await _end(self.hubs)


async def _end(members: Iterable[Member]) -> None:
    async with asyncio.TaskGroup() as ending:
        for member in members:
            member.dismiss()
            ending.create_task(member.ended())


async def _all(doing: Iterable[Any]) -> list[Any]:
    return list(await asyncio.gather(*doing))


def cpu_seconds(members: Iterable[Member]) -> float:
    return sum(sum(member.usage.cpu_times()[:2]) for member in members)


@asynccontextmanager
async def fleet(
    agents: int, hubs: int, processes: int, options: dict[str, Any], *, lease: float = 1.0, meeting: float = 120.0
) -> AsyncIterator[Fleet]:
    """A fleet of which nothing is left afterwards, whatever happens; see `Fleet`."""
    made = Fleet(agents, hubs, processes, options, lease=lease, meeting=meeting)
    try:
        yield made
    finally:
        await made.close()
