"""Existing workers publish answers; the collector counts them, tells the end once, and is asked how it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from tests.integration.nats_servers import needs_nats_server
from tests.long_form import SOAK
from tests.system.nats_rig import jetstream_server, orchestrator, outside, read

from anywire.caller import OPERATOR, Caller
from anywire.events import PluginEvent
from anywire.route import Response
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench
from anywire_service_nats.collector.database import Database
from anywire_service_nats.envelopes import Envelope

pytestmark = needs_nats_server
TASKS = 40 if SOAK else 6
"""Between the answers of every second one the server is killed."""
COLLECTOR: dict[str, Any] = {"collector": {}}
STREAM, DURABLE = "AGENT_RESPONSES", "anywire-collector"
COMPLETED, FAILED = "orchestration.deliberation.completed", "orchestration.deliberation.failed"


def answer(task: str, agent: str, producer: str = "worker", agents: int = 3, **more: Any) -> Envelope:
    payload = {"task_id": task, "agent_id": agent, "role": "DEV", "status": "completed", "num_agents": agents}
    payload |= {"proposal": {"content": f"{agent} says so"}, "duration_ms": 12, "constraints": {"story_id": "s-1"}}
    return Envelope(
        type="agent.response.completed",
        id=f"{task}:{agent}",
        correlation=task,
        time=1_700_000_000.0,
        producer=producer,
        payload=payload | more,
    )


def failure(task: str, agent: str) -> Envelope:
    payload = {"task_id": task, "agent_id": agent, "error": "out of memory", "error_type": "OOM"}
    return Envelope(
        type="agent.response.failed",
        id=f"{task}:{agent}",
        correlation=task,
        time=1_700_000_000.0,
        producer="worker",
        payload=payload,
    )


async def shown(bench: ServiceBench, task: str) -> dict[str, Any]:
    response = await bench.call("GET", "/collected-tasks/{id}", id=task)
    assert isinstance(response, Response), response
    found: dict[str, Any] = msgspec.json.decode(response.body)
    return found


async def counted(bench: ServiceBench, task: str, answers: int) -> dict[str, Any]:
    """The task once so many agents were heard."""
    collected = bench.host.get("nats").collected
    heard = 0

    async def wait() -> None:
        nonlocal heard
        while heard < answers:
            found = await collected.get(task, OPERATOR)
            heard = len(found.answers) if found is not None else 0

    await expect(wait(), f"{answers} agents are counted", seen=lambda: f"; there are {heard}")
    return await shown(bench, task)


def told(bench: ServiceBench, name: str) -> dict[str, float]:
    """Numbers of that name by their label."""
    return {
        next(iter(metric.labels.values()), ""): metric.value
        for service, metric in bench.host.metrics()
        if service == "nats" and metric.name == name
    }


async def test_answers_of_existing_workers_are_counted_in_both_forms(tmp_path: Path) -> None:
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        async with orchestrator(server, tmp_path, **COLLECTOR) as bench:
            await others.stream(STREAM, "agent.response.>")
            await others.tell(answer("t-7", "a"))
            await others.tell(answer("t-7", "b"), "flat")
            await others.tell(answer("t-7", "b", duration_ms=99))
            half = await counted(bench, "t-7", 2)
            assert (half["status"], half["answered"], half["num_agents"]) == ("collecting", 2, 3)
            await others.tell(failure("t-7", "c"))
            (message,) = await others.until(COMPLETED, 1, "the end is told")
            payload = message.payload
            assert (payload["task_id"], payload["story_id"], payload["role"]) == ("t-7", "s-1", "DEV")
            assert [each["id"] for each in payload["decisions"]] == ["a", "b"]
            assert payload["decisions"][0]["rationale"] == "a says so"
            assert payload["failed_agents"] == ["c"]
            assert read(message).producer == "anywire"
            whole = await shown(bench, "t-7")
            assert (whole["status"], whole["reason"]) == ("completed", "c: out of memory")
            assert whole["answers"][0]["proposal"] == {"content": "a says so"}
            await others.tell(answer("t-7", "late"))
            for agent in ("a", "b"):
                await others.tell(failure("t-8", agent))
            await others.tell(answer("t-8", "x", agents=2))
            await others.until_acknowledged(STREAM, DURABLE)
            assert await others.all(FAILED) == []
        ends = [each.payload for each in await others.all(COMPLETED)]
        assert [(each["task_id"], each["failed_agents"]) for each in ends] == [("t-7", ["c"]), ("t-8", ["a", "b"])]


async def test_all_failed_is_failed_and_what_is_missing_is_late(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, collector={"time_limit": 0.2}) as bench,
    ):
        await others.stream(STREAM, "agent.response.>")
        for agent in "ab":
            await others.tell(msgspec.structs.replace(failure("t-1", agent), id=f"x{agent}"))
        await others.tell(answer("t-2", "a"))
        messages = await others.until(FAILED, 2, "both ends are told")
        by_task = {each.payload["task_id"]: each.payload for each in messages}
        assert by_task["t-1"]["error"] == "a: out of memory; b: out of memory"
        assert (by_task["t-2"]["error_type"], (await shown(bench, "t-2"))["status"]) == ("timeout", "timed_out")
        assert "1 of 3" in by_task["t-2"]["error"]


async def test_what_is_counted_survives_the_orchestrator(tmp_path: Path) -> None:
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.stream(STREAM, "agent.response.>")
        async with orchestrator(server, tmp_path, **COLLECTOR) as bench:
            await others.tell(answer("t-7", "a"))
            await counted(bench, "t-7", 1)
        await others.tell(answer("t-7", "b"))
        await others.tell(answer("t-7", "c"))
        async with orchestrator(server, tmp_path, **COLLECTOR) as bench:
            await others.until(COMPLETED, 1, "the end is told")
        async with orchestrator(server, tmp_path, **COLLECTOR) as bench:
            assert (await shown(bench, "t-7"))["answered"] == 3
        assert len(await others.all(COMPLETED)) == 1
    kept = Database(tmp_path / "nats" / "collected", 10, 10**6)
    assert kept.open()
    try:
        assert kept.untold(10) == []
    finally:
        kept.close()


async def test_a_killed_server_costs_no_answer_and_tells_no_end_twice(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, **COLLECTOR) as bench,
    ):
        await others.stream(STREAM, "agent.response.>")
        for number in range(TASKS):
            task = f"t-{number}"
            await others.tell(answer(task, "a"))
            await others.tell(answer(task, "b"))
            if number % 2:
                await server.cut()
            await others.tell(answer(task, "c"))
        messages = await others.until(COMPLETED, TASKS, "all ends are told")
        assert sorted(each.payload["task_id"] for each in messages) == sorted(f"t-{number}" for number in range(TASKS))
        await others.until_acknowledged(STREAM, DURABLE)
        assert len(await others.all(COMPLETED)) == TASKS
        assert sum(told(bench, "collected_tasks").values()) == TASKS


async def test_own_answers_are_not_counted_and_what_is_not_understood_is_told(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, **COLLECTOR) as bench,
    ):
        await others.stream(STREAM, "agent.response.>")
        seen: list[PluginEvent] = []
        bench.orchestrator.events.subscribe("test", seen.append, PluginEvent)
        await others.tell(answer("own", "a", producer="anywire", agents=1))
        await others.publish("agent.response.completed", b"\xff\x00 nonsense")
        await others.publish("agent.response.completed", {"task_id": "t"})
        await others.tell(answer("t", "a", proposal=None))
        await others.tell(msgspec.structs.replace(answer("t", "a"), type="agent.response.progress", id="other"))
        await others.tell(answer("good", "a", agents=1))
        letters = await others.until("deadletter", 4, "what is not understood is kept")
        (ended,) = await others.until(COMPLETED, 1, "the good one is told")
        assert ended.payload["task_id"] == "good"
        await others.until_acknowledged(STREAM, DURABLE)
        assert letters[0].payload["raw"].endswith("nonsense")
        assert {each.payload["topic"] for each in letters} == {"agent.response.completed", "agent.response.progress"}
        assert letters[2].payload["reason"] == "it has no proposal"
        assert told(bench, "not_understood") == {"collector": 4.0}
        assert told(bench, "heard_answers") == {"own": 1.0, "counted": 1.0}
        names = [event.name for event in seen if event.source == "nats"]
        assert names.count("message.not_understood") == 4


async def test_tenants_see_their_own_alone(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, collector={"tenant": "lab"}) as bench,
    ):
        await others.stream(STREAM, "agent.response.>")
        await others.tell(answer("t", "a", agents=1))
        collected = bench.host.get("nats").collected
        await counted(bench, "t", 1)
        for caller, sees in ((Caller("x", "lab"), True), (Caller("y", "other"), False), (OPERATOR, True)):
            assert (await collected.get("t", caller) is not None) == sees
            assert bool(await collected.list(caller)) == sees


async def test_where_there_is_no_room_answers_wait_in_their_stream(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, collector={"max_tasks": 1, "time_limit": 3.0}) as bench,
    ):
        await others.stream(STREAM, "agent.response.>")
        await others.tell(answer("first", "a", agents=2))
        await counted(bench, "first", 1)
        await others.tell(answer("second", "a", agents=1))
        await polled(lambda: told(bench, "heard_answers").get("no_room"), "the second has no room")
        await others.tell(answer("first", "b", agents=2))
        messages = await others.until(COMPLETED, 2, "both are told")
        assert [each.payload["task_id"] for each in messages] == ["first", "second"]
