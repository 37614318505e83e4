"""Clients that go away while their response in the background is taken in: it is taken back, or found by its key."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_serving import ScriptedEngine, hangs
from tests.responses.conversing import House, conversing, until

from anywire.engine import Delta, EngineProgress
from anywire.messages import TaskRequest
from anywire.testing.patience import expect
from anywire_gateway_openai.responses.background import BackgroundResponses
from anywire_service_conversations.database import Database


class Disk:
    """Keeps a response from being written until ``go``."""

    def __init__(self) -> None:
        self.writes, self.go, self.left = asyncio.Event(), threading.Event(), asyncio.Event()


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    made = Disk()
    loop = asyncio.get_running_loop()
    begin, take = Database.begin, BackgroundResponses.take

    def slow(self: Database, *arguments: Any) -> None:
        loop.call_soon_threadsafe(made.writes.set)
        made.go.wait()
        begin(self, *arguments)

    async def watched(self: BackgroundResponses, *arguments: Any) -> Any:
        try:
            return await take(self, *arguments)
        finally:
            made.left.set()

    monkeypatch.setattr(Database, "begin", slow)
    monkeypatch.setattr(BackgroundResponses, "take", watched)
    yield made
    made.go.set()


async def given_up(at: House, disk: Disk, conversation: str, **more: Any) -> None:
    asking = asyncio.ensure_future(
        at.client.responses.create(model="m", input="x", background=True, conversation=conversation, **more)
    )
    await expect(disk.writes.wait(), "the response is being written")
    asking.cancel()
    await expect(disk.left.wait(), "its client has gone")
    disk.go.set()


async def test_without_a_key_nothing_is_kept_and_its_conversation_is_free(tmp_path: Path, disk: Disk) -> None:
    engine = hangs()
    async with conversing(tmp_path, engine) as at:
        conversation = (await at.client.conversations.create()).id
        await given_up(at, disk, conversation)
        await expect(engine.cancelled.wait(), "its task is cancelled")
        again = at.client.with_options(max_retries=10).conversations
        await again.items.create(conversation, items=[{"role": "user", "content": "free"}])
        kept = at.served.gateway._responses._kept  # type: ignore[union-attr]
        assert kept is not None
        assert await kept.running() == []


async def test_with_a_key_it_goes_on_and_is_found(tmp_path: Path, disk: Disk) -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("done", "", "stop")

    engine = ScriptedEngine(script)
    async with conversing(tmp_path, engine) as at:
        conversation = (await at.client.conversations.create()).id
        key = {"Idempotency-Key": "k"}
        await given_up(at, disk, conversation, extra_headers=key)
        found = await at.client.responses.create(
            model="m", input="x", background=True, conversation=conversation, extra_headers=key
        )
        await until(at, found.id, "completed")
        assert len(engine.tasks) == 1
