"""GetDeliberationResult for tasks that agents elsewhere have answered, as another service has counted them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.deliberation.deliberation_bench import Council, asked
from tests.deliberation.grpc_bench import Client, channel_to, listening

from anywire.caller import Caller
from anywire.collected_answers import SERVICE, CollectedAnswer, CollectedStatus, CollectedTask
from anywire.context import Context
from anywire.service import Service, ServiceConfig
from anywire.testing.service_bench import service_bench
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.service import DeliberationService

ANSWERS = (
    CollectedAnswer("theirs-1", "DEV", {"content": "first"}, duration_ms=10, at=1.5),
    CollectedAnswer("theirs-2", "QA", None, "out of memory", "OOM", at=2.0),
    CollectedAnswer("theirs-3", "DEV", "third", at=2.5),
)


class Elsewhere(Service):
    """Offers what tests give it, as the service that counts answers does."""

    name = SERVICE

    def __init__(self, tasks: dict[str, CollectedTask] | None) -> None:
        super().__init__(ServiceConfig())
        self.collected: Any = None if tasks is None else self
        self._tasks = tasks or {}

    @property
    def offered(self) -> Any:
        return self

    async def start(self, context: Context) -> None: ...

    async def close(self) -> None: ...

    async def get(self, task_id: str, caller: Caller) -> CollectedTask | None:
        return self._tasks.get(task_id) if caller.tenant == "lab" else None

    async def list(self, caller: Caller, limit: int = 100) -> Sequence[CollectedTask]:
        return []


def collected(status: CollectedStatus, reason: str = "") -> CollectedTask:
    ended = 0.0 if status == "collecting" else 3.0
    return CollectedTask("t-1", 1.0, 301.0, status, 3, "s-1", ANSWERS, ended, reason)


async def result(
    folder: Path, tasks: dict[str, CollectedTask] | None, *, tenant: str = "lab", name: str = "t-1"
) -> Any:
    kept = DeliberationService(DeliberationConfig(folder=folder / "kept"))
    async with (
        service_bench(kept, Elsewhere(tasks), state=folder, engine=Council(), slots=8) as served,
        listening(served) as gateway,
        channel_to(gateway) as channel,
    ):
        if name == "own":
            await asked(kept.offered, id="own")
        return await Client(channel, (("x-anywire-tenant", tenant),)).result(name)


async def test_it_tells_what_was_counted(tmp_path: Path) -> None:
    found = await result(tmp_path, {"t-1": collected("completed", "theirs-2: out of memory")})
    assert found.status == wire.DELIBERATION_STATUS_COMPLETED
    assert [(each.proposal.author_id, each.proposal.content) for each in found.results] == [
        ("theirs-1", "first"),
        ("theirs-3", "third"),
    ]
    assert (found.winner_id, found.duration_ms, found.error_message) == ("", 2000, "")
    assert found.metadata.tags["reason"] == "theirs-2: out of memory"
    assert found.results[0].proposal.created_at_ms == 1500


async def test_it_has_no_results_before_the_end_and_an_error_without_an_answer(tmp_path: Path) -> None:
    found = await result(tmp_path, {"t-1": collected("collecting")})
    assert (found.status, list(found.results)) == (wire.DELIBERATION_STATUS_IN_PROGRESS, [])
    found = await result(tmp_path, {"t-1": collected("failed", "no memory")})
    assert (found.status, found.error_message) == (wire.DELIBERATION_STATUS_FAILED, "no memory")
    found = await result(tmp_path, {"t-1": collected("timed_out", "late")})
    assert (found.status, found.error_message) == (wire.DELIBERATION_STATUS_TIMEOUT, "late")


async def test_what_nobody_has_counted_is_unknown_and_own_deliberations_come_first(tmp_path: Path) -> None:
    tasks = {"t-1": collected("completed"), "own": collected("failed")}
    for given, tenant, name in ((tasks, "lab", "t-2"), (tasks, "other", "t-1"), (None, "lab", "t-1")):
        found = await result(tmp_path, given, tenant=tenant, name=name)
        assert found.status == wire.DELIBERATION_STATUS_UNKNOWN
    assert "collected" not in (await result(tmp_path, tasks, name="own")).metadata.tags
