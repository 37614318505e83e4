"""An orchestrator with the service ``nats`` and other services, in one process, at a real nats-server; for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from tests.integration.nats_servers import NatsServer

from anywire.access import Access
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.service import Service
from anywire.testing.patience import PATIENCE, expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.service import Background
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.service import DeliberationService
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.envelopes import Envelope, NotUnderstood, decode, encode
from anywire_service_nats.envelopes import headers as headers_of
from anywire_service_nats.service import NatsService

JETSTREAM = 'jetstream {{ store_dir: "{folder}" }}'


@asynccontextmanager
async def jetstream_server(folder: Path, more: str = "") -> AsyncIterator[NatsServer]:
    (folder / "js").mkdir(exist_ok=True)
    async with NatsServer(folder, f"{JETSTREAM.format(folder=folder / 'js')}\n{more}") as server:
        yield server


class Message(NamedTuple):
    subject: str
    headers: dict[str, str]
    body: Any
    """The JSON of the message."""

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body.get("payload", self.body)
        return found


class Outside:
    """A client of the server that knows nothing of Anywire, as existing workers and collectors are."""

    def __init__(self, client: Any) -> None:
        self.client, self.jetstream = client, client.jetstream(timeout=PATIENCE)

    async def publish(self, subject: str, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        heads = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.jetstream.publish(subject, data, headers=heads or None)

    async def tell(self, envelope: Envelope, generation: Any = "payload", **headers: str) -> None:
        heads = headers_of(envelope) | {name.replace("_", "-"): value for name, value in headers.items()}
        await self.jetstream.publish(envelope.type, encode(envelope, generation), headers=heads)

    async def stream(self, name: str, *subjects: str) -> None:
        """Make it, unless the orchestrator was quicker."""
        try:
            await self.jetstream.add_stream(StreamConfig(name=name, subjects=list(subjects)))
        except nats.js.errors.BadRequestError as error:
            assert error.err_code == 10058  # noqa: PT017

    async def all(self, subject: str) -> list[Message]:
        """Every message that the stream of this subject has with it."""
        try:
            stream = await self.jetstream.find_stream_name_by_subject(subject)
        except nats.js.errors.NotFoundError:
            return []
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, filter_subject=subject)
        subscription = await self.jetstream.pull_subscribe(subject, stream=stream, config=config)
        found: list[Message] = []
        info = await subscription.consumer_info()
        while len(found) < info.num_pending:
            for each in await subscription.fetch(100, timeout=PATIENCE):
                found.append(Message(each.subject, dict(each.headers or {}), msgspec.json.decode(each.data)))
        await subscription.unsubscribe()
        await self.jetstream.delete_consumer(stream, info.name)
        return found

    async def until(self, subject: str, count: int, what: str) -> list[Message]:
        """Wait until there are as many messages."""
        seen: list[Message] = []

        async def wait() -> list[Message]:
            nonlocal seen
            while len(seen := await self.all(subject)) < count:  # noqa: ASYNC110 - a stream tells nobody
                await asyncio.sleep(0.05)
            return seen

        return await expect(wait(), what, seen=lambda: f"; there are {len(seen)}: {seen[:3]}")

    async def pending(self, stream: str, durable: str) -> int:
        """Messages that the consumer has not acknowledged."""
        info = await self.jetstream.consumer_info(stream, durable)
        return int(info.num_pending + info.num_ack_pending)

    async def until_acknowledged(self, stream: str, durable: str) -> None:
        async def wait() -> None:
            while True:
                with contextlib.suppress(nats.js.errors.NotFoundError):
                    if not await self.pending(stream, durable):
                        return
                await asyncio.sleep(0.05)

        await expect(wait(), f"all is acknowledged to {durable}")


@asynccontextmanager
async def outside(server: NatsServer) -> AsyncIterator[Outside]:
    client = await nats.connect(server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=_quiet)
    try:
        yield Outside(client)
    finally:
        await client.close()


async def _quiet(error: Exception) -> None:
    """nats-py prints tracebacks otherwise."""


@asynccontextmanager
async def orchestrator(
    server: NatsServer,
    state: Path,
    *others: Callable[[Path], Service],
    access: Access | None = None,
    engine: Any = None,
    **settings: Any,
) -> AsyncIterator[ServiceBench]:
    """A life of an orchestrator whose files are in ``state``, with an agent that answers anything."""
    for name in ("collector", "worker", "submissions"):
        if name in settings:
            settings[name] = {"redelivery": 1.0} | settings[name]
    config = NatsServiceConfig.model_validate({"servers": server.url, "folder": state / "nats"} | settings)
    services = [NatsService(config), *(each(state) for each in others)]
    used = engine or SyntheticEngine(SyntheticConfig.model_validate({"length": 4}))
    async with service_bench(*services, state=state, access=access, engine=used) as bench:
        yield bench


def background(state: Path) -> Service:
    return Background(BackgroundConfig(folder=state / "tasks"))


def deliberation(state: Path) -> Service:
    return DeliberationService(DeliberationConfig(folder=state / "deliberations"))


def read(message: Message) -> Envelope:
    found = decode(msgspec.json.encode(message.body), message.subject, message.headers)
    assert not isinstance(found, NotUnderstood)
    return found
