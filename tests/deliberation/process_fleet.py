"""An orchestrator with the service ``deliberation`` and its agents, each a process of its own, for tests."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.deliberation import noted_engine
from tests.deliberation.noted_engine import Note, read_notes
from tests.integration.anywire_processes import Process
from tests.patience import FACTOR, PATIENCE

from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.database import Database
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.record import Deliberation
from reserved import free_port

MODEL = "synthetic"


class Fleet:
    """Processes of one configuration in one folder. The orchestrator has the same address in all its lives, so that a
    client finds it again. ``settings`` are of the configuration, beside what is set here."""

    def __init__(self, folder: Path, transport: str, options: dict[str, Any], **settings: Any) -> None:
        self._folder, self._notes = folder / "kept", folder / "notes"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        engine = {"name": "noted", "notes": str(self._notes), "length": 5, "features": {"json": True}}
        config = {
            "transports": {transport: options},
            "server": {"port": port},
            "services": {"deliberation": {"folder": str(self._folder)}},
            "plugins": [noted_engine.__file__],
            "shutdown_grace": 0.1,
            **settings,
            "engine": engine | settings.get("engine", {}),
        }
        self._file = folder / "anywire.yaml"
        self._file.write_text(json.dumps(config))
        self._running: list[Process] = []
        self.agents: dict[str, Process] = {}
        self.server: Process | None = None

    async def serve(self) -> None:
        """Begin another life of the orchestrator."""
        self.server = await self._begin("serve")

    async def kill_server(self) -> None:
        assert self.server is not None
        await self.server.end(signal.SIGKILL)

    async def begin(self, *names: str, slots: int = 8, **engine: Any) -> None:
        """Start agents with those names; ``engine`` are options of their engine."""
        options = [f"engine.{name}={json.dumps(value)}" for name, value in engine.items()]
        given = [part for option in options for part in ("--set", option)]
        started = [self._begin("agent", "--agent-id", name, "--slots", str(slots), *given) for name in names]
        self.agents |= dict(zip(names, await asyncio.gather(*started), strict=True))

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the process of an agent."""
        self.agents[name].process.send_signal(number)

    async def kill(self, name: str) -> None:
        await self.agents.pop(name).end(signal.SIGKILL)

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[DeliberationClient]:
        async with self.http(**headers) as http:
            yield DeliberationClient(http=http, patience=PATIENCE)

    def http(self, tenant: str = "", authorization: str = "") -> httpx.AsyncClient:
        headers = {"x-anywire-tenant": tenant, "authorization": authorization}
        named = {name: value for name, value in headers.items() if value}
        return httpx.AsyncClient(base_url=self.url, headers=named, timeout=PATIENCE)

    def notes(self, question: str = "", tenant: str = "") -> list[Note]:
        """What the agents have noted, of one question."""
        return [
            note for note in read_notes(self._notes) if question in ("", note.question) and tenant in ("", note.tenant)
        ]

    async def stored(self, *wanted: tuple[str, str]) -> list[Deliberation]:
        """What the disk has of them, by tenant and id, while no orchestrator runs."""
        database = Database(self._folder)
        assert await database.open(), "the folder is free"
        try:
            found = [await database.get(tenant, name) for tenant, name in wanted]
        finally:
            await database.close()
        return [state for state in found if state is not None]

    async def end(self) -> None:
        for process in self._running:
            await process.end(signal.SIGKILL)

    async def _begin(self, *arguments: str) -> Process:
        process = await Process.start(*arguments, "--config", str(self._file))
        self._running.append(process)
        return process


async def seen(client: DeliberationClient, name: str, is_it: Callable[[Update], bool]) -> bool:
    """Wait for an event of a deliberation; false when it ends without."""
    async with aclosing(client.events(name)) as updates:
        async for update in updates:
            if is_it(update):
                return True
    return False


async def any_moment(client: DeliberationClient, name: str, drawn: random.Random, works: int, ttft: float) -> None:
    """Wait for a drawn number of answers, and a drawn part of the ``ttft`` seconds that the next ones take: to any
    moment from the id on to the end."""
    left = drawn.randrange(works + 1)

    def is_answered(update: Update) -> bool:
        nonlocal left
        left -= update.name == "answered"
        return left <= 0

    await seen(client, name, is_answered)
    await asyncio.sleep(drawn.uniform(0, ttft))


def lasts(seconds: float) -> float:
    """Seconds that a deliberation of a test may last."""
    return seconds * FACTOR
