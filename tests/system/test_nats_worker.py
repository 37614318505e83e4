"""Requests to agents by message: each is answered once, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.deliberation.process_fleet import Fleet
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.long_form import SOAK
from tests.system.nats_rig import Message, Outside, jetstream_server, orchestrator, outside, read

from anywire.access import OpenAccess, Presented
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.caller import Caller
from anywire.engine import Delta, EngineProgress
from anywire.errors import Unauthenticated
from anywire.messages import TaskRequest
from anywire.testing.patience import polled
from anywire_service_nats.envelopes import Envelope

pytestmark = needs_nats_server
COMPLETED, FAILED = "agent.response.completed", "agent.response.failed"
STREAM, DURABLE = "AGENT_REQUESTS", "anywire-agent-requests"
LIVES, PROCESSES = (20, 20) if SOAK else (3, 2)
"""How often the server is killed, and the orchestrator."""
WORKER: dict[str, Any] = {"worker": {}}


def request(number: int, role: str = "DEV", agents: int = 1, task: str = "", **given: Any) -> Envelope:
    task = task or f"t-{number}"
    payload = {"agent": role, "phase": "BUILD", "task_id": task, "num_agents": agents}
    payload |= {"input": {"prompt": f"do {number}", "tools": [], "token_budget": 20} | given}
    return Envelope(
        type="agent.requests", id=f"request-{number}", correlation=task, time=1.0, producer="planner", payload=payload
    )


async def requests(others: Outside, count: int, begin: int = 0) -> None:
    for number in range(begin, begin + count):
        await others.tell(request(number))


def check(messages: list[Message], count: int) -> None:
    """Each request has one answer, with the fields of the contract."""
    tasks = Counter(each.payload["task_id"] for each in messages)
    assert tasks == Counter(f"t-{number}" for number in range(count))
    ids = [each.headers["Nats-Msg-Id"] for each in messages]
    assert len(set(ids)) == len(ids)
    for each in messages:
        payload = each.payload
        assert read(each).producer == "anywire-worker"
        assert (payload["status"], payload["role"], payload["num_agents"]) == ("completed", "DEV", 1)
        assert payload["proposal"]["content"]
        assert payload["metrics"]["tokens_out"] > 0
        assert each.headers["Nats-Msg-Id"] == f"{payload['task_id']}:{payload['agent_id']}"


@pytest.mark.parametrize("envelope", ["payload", "flat"])
async def test_each_request_is_answered_in_the_fields_of_its_contract(tmp_path: Path, envelope: str) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, envelope=envelope, **WORKER),
    ):
        await others.stream(STREAM, "agent.requests")
        await requests(others, 20)
        messages = await others.until(COMPLETED, 20, "all are answered")
        await others.until_acknowledged(STREAM, DURABLE)
        check(messages, 20)
        await others.tell(request(3), Nats_Msg_Id="again")
        await others.until_acknowledged(STREAM, DURABLE)
        assert len(await others.all(COMPLETED)) == 20


async def test_what_cannot_be_answered_is_failed_or_a_dead_letter(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={"keep_trying": 0}, collector={}) as bench,
    ):
        await others.stream(STREAM, "agent.requests")
        await others.tell(request(0, role="NOBODY"))
        await others.tell(request(1, prompt=""))
        await others.publish("agent.requests", b"{")
        (failed,) = await others.until(FAILED, 1, "the role is refused")
        assert (failed.payload["task_id"], failed.payload["error_type"]) == ("t-0", "invalid_request")
        assert "NOBODY" in failed.payload["error"]
        letters = await others.until("deadletter", 2, "the others are kept")
        assert {each.payload["topic"] for each in letters} == {"agent.requests"}
        # The service's own answer is counted as anybody's.
        (ended,) = await others.until("orchestration.deliberation.failed", 1, "the collector has it")
        assert ended.payload["task_id"] == "t-0"
        await others.until_acknowledged(STREAM, DURABLE)
        del bench


async def test_members_here_and_elsewhere_answer_one_task_together(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={}, collector={}),
    ):
        await others.stream(STREAM, "agent.requests")
        await others.stream("AGENT_RESPONSES", "agent.response.>")
        for number, role in enumerate(("DEV", "QA")):
            await others.tell(request(number, role, agents=3, task="t"))
        theirs = {"task_id": "t", "agent_id": "theirs", "role": "DATA", "num_agents": 3, "proposal": "mine"}
        await others.tell(
            Envelope(type=COMPLETED, id="t:theirs", correlation="t", time=1.0, producer="worker", payload=theirs)
        )
        (ended,) = await others.until("orchestration.deliberation.completed", 1, "three have answered")
        assert {each["role"] for each in ended.payload["decisions"]} == {"DEV", "QA", "DATA"}


async def test_no_more_are_worked_on_than_may_be_and_a_long_one_stays_here(tmp_path: Path) -> None:
    engine = SyntheticEngine(SyntheticConfig.model_validate({"length": 4, "ttft": 100}))
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={"at_once": 2}, engine=engine) as bench,
    ):
        most = 0

        def running() -> float:
            nonlocal most
            numbers = {m.name: m.value for _, m in bench.host.metrics()}
            most = max(most, int(numbers.get("running_agent_requests", 0)))
            return numbers.get("agent_requests", 0)

        await others.stream(STREAM, "agent.requests")
        await requests(others, 8)
        await polled(lambda: running() == 8, "all are answered")
        assert most == 2
        check(await others.until(COMPLETED, 8, "all are answered"), 8)


class CountedEngine(SyntheticEngine):
    """Counts the tasks that it begins."""

    begun = 0

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        self.begun += 1
        async with aclosing(super().run(task)) as deltas:
            async for delta in deltas:
                yield delta


@pytest.mark.parametrize("cut", [False, True])
async def test_a_request_that_takes_long_is_begun_once(tmp_path: Path, cut: bool) -> None:
    """Also when its server is killed meanwhile, and delivers it again."""
    engine = CountedEngine(SyntheticConfig.model_validate({"length": 4, "ttft": 5000}))
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={"redelivery": 2.0}, engine=engine),
    ):
        await others.stream(STREAM, "agent.requests")
        await requests(others, 1)
        await polled(lambda: engine.begun, "it is begun")
        if cut:
            await server.stop()
            await asyncio.sleep(2.2)  # until it is due again
            await server.restart()
        check(await others.until(COMPLETED, 1, "it is answered"), 1)
        await others.until_acknowledged(STREAM, DURABLE)
        info = await others.jetstream.consumer_info(STREAM, DURABLE)
        assert (info.delivered.consumer_seq == 1) == (not cut), "it is delivered again to nobody who works on it"
        assert engine.begun == 1


class Locked(OpenAccess):
    needs_key = True

    def caller(self, presented: Presented) -> Caller:
        if presented.token != "good":
            raise Unauthenticated("this key does not count")
        return Caller("ann", "lab")


async def test_where_keys_are_needed_a_request_needs_one(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, access=Locked(), **WORKER),
    ):
        await others.stream(STREAM, "agent.requests")
        await others.tell(request(0))
        await others.tell(request(1), Anywire_Key="good")
        await others.tell(request(2), Anywire_Key="bad")
        (good,) = await others.until(COMPLETED, 1, "the one with a key is answered")
        refused = await others.until(FAILED, 2, "the others are refused")
        assert good.payload["task_id"] == "t-1"
        assert {each.payload["error_type"] for each in refused} == {"unauthenticated"}


async def test_who_shows_no_key_takes_no_name_away_from_who_does(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, access=Locked(), **WORKER),
    ):
        await others.stream(STREAM, "agent.requests")
        await others.tell(request(1), Nats_Msg_Id="forged")
        (refused,) = await others.until(FAILED, 1, "it is refused")
        await others.tell(request(1), Anywire_Key="good")
        (good,) = await others.until(COMPLETED, 1, "the one with a key is answered all the same")
        assert good.payload["task_id"] == refused.payload["task_id"]
        assert good.payload["agent_id"] != refused.payload["agent_id"]


async def test_requests_with_one_id_are_one_where_they_ask_for_the_same(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, **WORKER),
    ):
        await others.stream(STREAM, "agent.requests")
        for number, role in enumerate(("DEV", "QA")):
            await others.tell(request(1, role, agents=2), Nats_Msg_Id=f"first-{number}")
        await others.until(COMPLETED, 2, "each role is asked")
        await others.tell(request(1, agents=2), Nats_Msg_Id="again")
        await others.tell(request(1, agents=2, prompt="something else"), Nats_Msg_Id="other")
        (letter,) = await others.until("deadletter", 1, "the other one is kept")
        assert "use a new id" in letter.payload["reason"]
        await others.until_acknowledged(STREAM, DURABLE)
        assert len(await others.all(COMPLETED)) == 2


async def test_a_killed_server_costs_no_answer_and_gives_none_twice(tmp_path: Path) -> None:
    engine = SyntheticEngine(SyntheticConfig.model_validate({"length": 4, "ttft": 20}))
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={"at_once": 4}, engine=engine),
    ):
        await others.stream(STREAM, "agent.requests")
        for life in range(LIVES):
            await requests(others, 10, 10 * life)
            await server.cut()
        check(await others.until(COMPLETED, 10 * LIVES, "all are answered"), 10 * LIVES)
        await others.until_acknowledged(STREAM, DURABLE)
        assert len(await others.all(COMPLETED)) == 10 * LIVES


async def test_an_answer_that_the_server_does_not_take_is_told_in_part(tmp_path: Path) -> None:
    engine = SyntheticEngine(SyntheticConfig.model_validate({"length": 5000}))
    async with (
        jetstream_server(tmp_path, "max_payload: 16384") as server,
        outside(server) as others,
        orchestrator(server, tmp_path, worker={"max_tokens": 10_000}, engine=engine),
    ):
        await others.stream(STREAM, "agent.requests")
        await others.tell(request(0, token_budget=5000))
        (message,) = await others.until(COMPLETED, 1, "it is answered")
        proposal = message.payload["proposal"]
        assert proposal["cut"]
        assert 1000 < len(proposal["content"]) <= 4096


async def test_what_is_under_way_is_given_back_at_the_end(tmp_path: Path) -> None:
    slow = SyntheticEngine(SyntheticConfig.model_validate({"length": 4, "ttft": 600_000}))
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.stream(STREAM, "agent.requests")
        async with orchestrator(server, tmp_path, worker={"redelivery": 600, "max_starts": 1}, engine=slow) as bench:
            await requests(others, 3)
            await polled(lambda: len(bench.orchestrator.tasks()) == 3, "they are worked on")
        async with orchestrator(server, tmp_path, worker={"redelivery": 600, "max_starts": 1}):
            check(await others.until(COMPLETED, 3, "all are answered"), 3)
        assert await others.all(FAILED) == []


async def test_a_killed_orchestrator_is_followed_by_one_that_answers_once(tmp_path: Path, options_of: Any) -> None:
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.stream(STREAM, "agent.requests")
        fleet = _fleet(tmp_path, server, options_of("zeromq"))
        try:
            await fleet.serve()
            await fleet.begin("a", ttft=50)
            for life in range(PROCESSES):
                await requests(others, 10, 10 * life)
                await others.until(COMPLETED, 10 * life + 4, "some are answered")
                await fleet.kill_server()
                await fleet.serve()
            check(await others.until(COMPLETED, 10 * PROCESSES, "all are answered"), 10 * PROCESSES)
            await others.until_acknowledged(STREAM, DURABLE)
            assert len(await others.all(COMPLETED)) == 10 * PROCESSES
            assert await others.all(FAILED) == []
            assert fleet.server is not None
            await fleet.server.end(signal.SIGTERM)
        finally:
            await fleet.end()


def _fleet(folder: Path, server: NatsServer, options: dict[str, Any]) -> Fleet:
    settings = {"servers": server.url, "folder": str(folder / "nats"), "worker": {"at_once": 4, "redelivery": 1.0}}
    return Fleet(
        folder,
        "zeromq",
        options,
        services={"nats": settings},
        lease={"timeout": 1.0, "heartbeat_interval": 0.2},
    )
