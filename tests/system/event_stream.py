"""JetStream as tests use it: a real nats-server that keeps its streams over its lives, and a reader that knows nothing
of Anywire but what the contract of existing clients says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nats
import nats.js.api
import nats.js.errors
from tests.integration.nats_servers import NatsServer

from anywire.testing.patience import PATIENCE


class Event(NamedTuple):
    subject: str
    id: str
    heads: dict[str, str]
    body: dict[str, Any]

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["payload"]
        return found


@asynccontextmanager
async def jetstream(folder: Path, settings: str = "", *, runs: bool = True) -> AsyncIterator[NatsServer]:
    """A server; without ``runs`` it is still to be started."""
    server = NatsServer(folder, f'jetstream {{ store_dir: "{folder / "jetstream"}" }}\n{settings}')
    try:
        if runs:
            await server.restart()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client(server: NatsServer, **options: Any) -> AsyncIterator[Any]:
    """JetStream at the server, over a connection that ends with it."""
    connection = await nats.connect(server.url, allow_reconnect=False, connect_timeout=PATIENCE, **options)
    try:
        yield connection.jetstream(timeout=PATIENCE)
    finally:
        await connection.close()


async def events(server: NatsServer, subject: str, durable: str = "", least: int = 0) -> list[Event]:
    """Every event of the subject (which may have wildcards) that its stream has, in its order, once ``least`` are
    there. All are acknowledged. A ``durable`` goes on where it was."""
    found: list[Event] = []
    async with client(server) as stream:
        while True:
            try:
                reading = await stream.pull_subscribe(subject, durable=durable or None)
                break
            except nats.js.errors.NotFoundError:  # no stream has it
                if not least:
                    return []
                await asyncio.sleep(0.02)
        while True:
            pending = (await reading.consumer_info()).num_pending
            if not pending and len(found) >= least:
                return found
            if not pending:
                await asyncio.sleep(0.02)
                continue
            for each in await reading.fetch(min(pending, 500), timeout=PATIENCE):
                heads = dict(each.headers or {})
                found.append(Event(each.subject, heads.get("Nats-Msg-Id", ""), heads, json.loads(each.data)))
                await each.ack()


async def count(server: NatsServer, name: str) -> int:
    """Messages of a stream."""
    async with client(server) as stream:
        return int((await stream.stream_info(name)).state.messages)


def twice(found: Sequence[Event]) -> list[str]:
    """Ids that came more than once."""
    return [name for name, times in Counter(each.id for each in found).items() if times > 1]
