"""What has ended at another orchestrator is told by the one that has the deliberations again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.deliberation_bench import ANN, Council, request
from tests.deliberation.memory_store import Kept, MemoryStore

from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import service_bench
from anywire_service_deliberation import deliberations, stores
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.service import DeliberationService
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.service import NatsService
from reserved import free_ports


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(MemoryStore, "kept", Kept())
    monkeypatch.setitem(stores.BUILT_IN, "memory", MemoryStore)
    monkeypatch.setattr(deliberations, "LOCK_PAUSE", 0.01)
    return MemoryStore.kept


async def test_what_ended_at_another_orchestrator_that_told_nobody_is_told(tmp_path: Path, kept: Kept) -> None:
    (port,) = free_ports(1)
    engine = Council()
    deliberation: Any = DeliberationService(DeliberationConfig(folder=tmp_path / "kept", store="memory"))
    publishing = NatsService(NatsServiceConfig(servers=[f"nats://127.0.0.1:{port}"], folder=tmp_path / "outbox"))
    async with service_bench(deliberation, publishing, state=tmp_path, engine=engine, slots=64) as served:
        offered = deliberation.offered

        def waiting() -> float:
            found = {each.name: each.value for plugin, each in served.host.metrics() if plugin == "nats"}
            return found["waiting_messages"] if not found["pending_deliberations"] else -1

        await offered.submit(offered.question(request(id="q-1", members=2), ANN))
        ended = await expect(offered.get("q-1", ANN, 60), "it has ended")
        await polled(lambda: waiting() == 5, "all of it is put")
        engine.hold("critique")
        await offered.submit(offered.question(request(id="q-2", members=2), ANN))
        await engine.all_asked("critique", 1)
        await polled(lambda: waiting() == 6, "that it was taken in is put")
        assert kept.owner is not None
        kept.owner.lose()
        await polled(lambda: not served.orchestrator.tasks(), "nothing of it is under way here")
        # There it ends, and a further one is taken in and ends.
        ((key, state),) = [each for each in kept.states.items() if each[0][1] == "q-2"]
        over = {"status": "failed", "reason": "time", "ended": ended.ended + 1, "expires": ended.expires + 1}
        kept.states[key] = msgspec.structs.replace(state, **over)
        question = msgspec.structs.replace(ended.question, id="q-3")
        kept.states[key[0], "q-3"] = msgspec.structs.replace(ended, question=question)
        kept.owner = None
        await polled(lambda: waiting() == 5 + 5 + 5, "all of them are put")
