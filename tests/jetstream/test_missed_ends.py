"""Deliberations whose end was missed are told all the same: it was at another orchestrator, or too much waited."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.deliberation.deliberation_bench import ANN, Council, request
from tests.deliberation.memory_store import Kept, kept

from anywire.clock import SystemClock
from anywire.context import Context
from anywire.errors import PluginFailed
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import service_bench
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.service import DeliberationService
from anywire_service_deliberation.testing.store_kit import ended, full, new
from anywire_service_nats import told_deliberations
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.service import NatsService
from anywire_service_nats.told_deliberations import ToldDeliberations
from reserved import free_ports

__all__ = ["kept"]  # a fixture


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
        first = await expect(offered.get("q-1", ANN, 60), "it has ended")
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
        over = {"status": "failed", "reason": "time", "ended": first.ended + 1, "expires": first.expires + 1}
        kept.states[key] = msgspec.structs.replace(state, **over)
        question = msgspec.structs.replace(first.question, id="q-3")
        kept.states[key[0], "q-3"] = msgspec.structs.replace(first, question=question)
        kept.owner = None
        await polled(lambda: waiting() == 5 + 5 + 5, "all of them are put")


async def test_what_ended_while_too_many_waited_is_told_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_deliberations, "MOST_PENDING", 1)
    monkeypatch.setattr(told_deliberations, "PAUSE", 0.01)
    (port,) = free_ports(1)
    engine = Council()
    deliberation: Any = DeliberationService(DeliberationConfig(folder=tmp_path / "kept"))
    publishing = NatsService(
        NatsServiceConfig(servers=[f"nats://127.0.0.1:{port}"], folder=tmp_path / "outbox", outbox_messages=11)
    )
    async with service_bench(deliberation, publishing, state=tmp_path, engine=engine, slots=64) as served:
        offered = deliberation.offered

        def waiting() -> float:
            found = {each.name: each.value for plugin, each in served.host.metrics() if plugin == "nats"}
            return found["waiting_messages"]

        names = ("q-1", "q-2", "q-3")
        engine.hold("score")
        for number, name in enumerate(names, 1):
            await offered.submit(offered.question(request(id=name, members=2), ANN))
            await polled(lambda: waiting() == 3 * number, "that it was taken in, and its answers, are put")  # noqa: B023
        engine.release("score")
        for name in names:
            await expect(offered.get(name, ANN, 60), "it has ended")
        await polled(lambda: waiting() == 11, "the outbox is full")
        publishing._parts._parts[0]._outbox._tables._most_messages = 100  # type: ignore[attr-defined]
        await polled(lambda: waiting() == 15, "all of them are put")


async def test_what_was_not_looked_at_because_something_failed_is_looked_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a newer state of another one comes meanwhile."""
    monkeypatch.setattr(told_deliberations, "PAUSE", 0.01)
    missed, newer = over("missed"), over("newer")

    class Kept:
        fails = True

        def listen(self, changed: Any) -> Any:
            self.changed = changed
            return lambda: None

        def listen_opened(self, opened: Any) -> Any:
            return lambda: None

        async def list(self, caller: Any, limit: int) -> Any:
            if self.fails:
                self.fails = False
                self.changed(newer, False)
                raise PluginFailed("the servers are away")
            return [missed]

        async def get(self, name: str, caller: Any) -> Any:
            return missed if name == "missed" else newer

    box = Outbox(tmp_path, "payload", 100, 10**6)
    await box.open()
    context = SimpleNamespace(services={"deliberation": Kept()}, clock=SystemClock())
    told = ToldDeliberations(cast("Context", context), box, "anywire", ["deliberations"])
    told.all_started()
    await polled(lambda: box.messages == 6, "both are put")
    await told.close()
    await box.close()


def over(name: str) -> Deliberation:
    return ended(full(new(name)))
