"""What the service ``nats`` publishes at the real nats-server, as a reader that knows the contract alone sees it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.deliberation_bench import ANN, BOB, Council, request
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.long_form import SOAK
from tests.system.event_stream import Event, client, count, events, jetstream, twice

from anywire.context import Services
from anywire.errors import AnywireError
from anywire.testing.doubles import Script
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.service import DeliberationService
from anywire_service_nats import deliberation_messages
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.service import NatsService
from anywire_service_nats.subjects import COMPLETED_DURABLE, FAILED_DURABLE

pytestmark = [pytest.mark.timeout(600 if SOAK else 120), needs_nats_server]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
COMPLETED, FAILED = "agent.response.completed", "agent.response.failed"


class Bench:
    def __init__(self, served: ServiceBench, kept: KeptDeliberations) -> None:
        self.served, self.kept = served, kept

    @property
    def services(self) -> Services:
        return self.served.host

    def metric(self, name: str, **labels: str) -> float:
        found = self.served.host.metrics()
        return sum(each.value for plugin, each in found if plugin == "nats" and each.name == name
                   and labels.items() <= each.labels.items())  # fmt: skip

    async def deliberate(self, name: str, caller: Any = ANN, **members: Any) -> Deliberation:
        carried = {each: members.pop(each) for each in ("trace", "priority") if each in members}
        question = self.kept.question(request(id=name, **members), caller)
        await self.kept.submit(msgspec.structs.replace(question, **carried))
        found = await expect(self.kept.get(name, caller, 60), "the deliberation has ended")
        assert found is not None
        return found

    async def all_published(self) -> None:
        await polled(
            lambda: self.metric("pending_deliberations") == self.metric("waiting_messages") == 0, "all is published"
        )


@asynccontextmanager
async def bench(
    folder: Path, server: NatsServer, engine: Council | None = None, first: str = "deliberation", **settings: Any
) -> AsyncIterator[Bench]:
    deliberation = DeliberationService(DeliberationConfig(folder=folder / "kept"))
    publishing = NatsService(NatsServiceConfig(servers=[server.url], folder=folder / "outbox", **settings))
    services = (deliberation, publishing) if first == "deliberation" else (publishing, deliberation)
    async with service_bench(*services, state=folder, engine=engine or Council(), slots=64) as served:
        kept = deliberation.offered
        assert kept is not None
        yield Bench(served, kept)


async def all_events(server: NatsServer, least: int = 0) -> list[Event]:
    """What the streams of deliberations have, once it is as much."""

    async def found() -> list[Event]:
        while True:
            some = [event for each in ("agent.>", "orchestration.>", "deliberation.>")
                    for event in await events(server, each)]  # fmt: skip
            if len(some) >= least:
                return some

    return await expect(found(), f"{least} events are in their streams")


@pytest.mark.parametrize("first", ["deliberation", "nats"])
async def test_a_collector_of_the_contract_counts_all_members_once(tmp_path: Path, first: str) -> None:
    async with jetstream(tmp_path) as server, bench(tmp_path, server, first=first) as own:
        state = await own.deliberate("q-1", members=3, trace=TRACE, priority=7, metadata={"story_id": "s-1"})
        await own.all_published()
        answers = await events(server, COMPLETED, COMPLETED_DURABLE)
        assert not await events(server, FAILED, FAILED_DURABLE)
        assert not await events(server, COMPLETED, COMPLETED_DURABLE), "each is seen once"
        assert not twice(answers)
        for each in answers:
            assert each.body["event_type"] == COMPLETED
            assert each.body["correlation_id"] == each.payload["task_id"] == "q-1"
            assert each.body["producer"] == "anywire"
            assert each.body["idempotency_key"] == each.id
            assert each.payload["num_agents"] == len(answers) == 3
            assert each.payload["proposal"]["content"]
            assert (each.heads["traceparent"], each.heads["Anywire-Priority"]) == (TRACE, "7")
        assert {each.payload["agent_id"] for each in answers} == {"member-1", "member-2", "member-3"}
        (ended,) = await events(server, "orchestration.deliberation.completed")
        (result,) = await events(server, "deliberation.completed")
        (dispatched,) = await events(server, "orchestration.task.dispatched")
        assert (ended.payload["task_id"], ended.payload["story_id"]) == ("q-1", "s-1")
        assert result.payload["winner"] == ended.payload["winner"] == state.winner
        assert dispatched.payload["task_id"] == "q-1"
        assert own.metric("published_messages", subject=COMPLETED) == 3
        assert own.metric("connected") == 1


async def test_members_that_fail_are_counted_too(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, asked: "fail" if member == "member-2" and kind == "proposal" else "answer")
    async with jetstream(tmp_path) as server, bench(tmp_path, server, engine) as own:
        await own.deliberate("q-1", members=3)
        await own.all_published()
        answers = await events(server, "agent.response.>")
        assert sorted(each.subject for each in answers) == [COMPLETED, COMPLETED, FAILED]
        (failed,) = [each for each in answers if each.subject == FAILED]
        assert failed.payload["agent_id"] == "member-2"
        assert failed.payload["error"]
        engine.behaviour = lambda member, kind, asked: "fail"
        await own.deliberate("q-2", members=2)
        await own.all_published()
        (ended,) = await events(server, "orchestration.deliberation.failed")
        assert (ended.payload["task_id"], bool(ended.payload["error"])) == ("q-2", True)
        (result,) = await events(server, "deliberation.failed")
        assert result.payload["status"] == "failed"


async def test_deliberations_complete_while_the_server_is_killed_again_and_again(tmp_path: Path) -> None:
    drawn = random.Random(None if SOAK else 5)
    names = [f"q-{number}" for number in range(20 if SOAK else 3)]
    async with jetstream(tmp_path) as server, bench(tmp_path, server) as own:
        for name in names:
            going = asyncio.create_task(own.deliberate(name, members=2))
            await asyncio.sleep(drawn.uniform(0, 0.05))
            await server.stop()
            assert (await going).status == "completed"
            await server.restart()
            await asyncio.sleep(drawn.uniform(0, 0.2))
        await own.all_published()
        found = await all_events(server, least=5 * len(names))
    assert not twice(found)
    assert Counter(each.payload["task_id"] for each in found) == dict.fromkeys(names, 5)


async def test_one_that_cannot_be_published_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def due(state: Deliberation, *others: Any) -> Any:
        if state.question.id == "bad":
            raise ValueError("its metadata are none")
        return deliberation_messages.due(state, *others)

    monkeypatch.setattr("anywire_service_nats.told_deliberations.due", due)
    async with jetstream(tmp_path) as server, bench(tmp_path, server) as own:
        await own.deliberate("bad", members=2)
        await own.deliberate("good", members=2)
        await own.all_published()
        assert {each.payload["task_id"] for each in await all_events(server)} == {"good"}
    assert "not all is published of the deliberation bad" in caplog.messages


async def test_the_older_form_is_published_where_it_is_set(tmp_path: Path) -> None:
    async with jetstream(tmp_path) as server, bench(tmp_path, server, envelope="flat", producer="ours") as own:
        await own.deliberate("q-1", members=2, trace=TRACE)
        await own.all_published()
        answers = await events(server, COMPLETED)
        assert len(answers) == 2
        for each in answers:
            assert {"event_id", "case_id", "ts", "task_id", "proposal"} <= set(each.body)
            assert (each.body["case_id"], each.body["producer"]) == ("q-1", "ours")
            assert each.body["trace_id"] == TRACE.split("-")[1]


async def test_deliberations_of_two_tenants_with_one_id_are_both_told(tmp_path: Path) -> None:
    async with jetstream(tmp_path) as server, bench(tmp_path, server) as own:
        await own.deliberate("q-1", members=2)
        await own.deliberate("q-1", BOB, members=2)
        await own.all_published()
        assert len(await events(server, COMPLETED)) == 4
        results = await events(server, "deliberation.completed")
        assert [each.payload["tenant"] for each in results] == ["lab", "other"]


async def test_tasks_are_told_where_that_is_set(tmp_path: Path) -> None:
    service = NatsService
    async with jetstream(tmp_path) as server:
        publishing = service(NatsServiceConfig(servers=[server.url], folder=tmp_path / "outbox", publish=["tasks"]))
        async with service_bench(publishing, state=tmp_path) as served:
            await served.ask()
            with pytest.raises(AnywireError):
                await served.ask(Script("fails", fail_after=0).body())
            ended = await expect(events(server, "task.*", least=2), "both have ended")
            assert [each.subject for each in ended] == ["task.completed", "task.failed"]
            assert ended[1].payload["error_type"] == "engine_failed"
            assert ended[0].payload["agent_id"] == "agent"
            dispatched = await events(server, "orchestration.task.dispatched")
            assert {each.payload["task_id"] for each in dispatched} == {each.payload["task_id"] for each in ended}


async def test_the_orchestrator_starts_and_works_without_a_server_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with jetstream(tmp_path, runs=False) as server, bench(tmp_path, server) as own:
        assert (await own.deliberate("q-1", members=2)).status == "completed"
        assert own.metric("connected") == 0
        await polled(lambda: own.metric("waiting_messages") == 5, "five messages wait")
        await server.restart()
        await own.all_published()
        assert len(await all_events(server)) == 5
    lines = [each for each in caplog.messages if server.url.partition("//")[2] in each]
    assert len([each for each in lines if "nobody listens there" in each]) == 1
    assert len([each for each in lines if "connected to the NATS server" in each]) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("authorization { token: secret }", "does not let this end in"),
        ("", "has no JetStream"),
    ],
)
async def test_a_server_that_cannot_be_used_is_told_with_what_would_do(
    tmp_path: Path, settings: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = NatsServer(tmp_path, settings)
    async with server, bench(tmp_path, server) as own:
        await own.deliberate("q-1", members=2)
        await polled(lambda: own.metric("waiting_messages") == 5, "five messages wait")
    assert len([each for each in caplog.messages if told in each]) == 1
    assert not [each for each in caplog.records if each.exc_info]


def allowed(page: Path) -> str:
    """The permissions that the page lists, as the server's configuration has them."""
    (row,) = re.findall(r"^\| the subjects above, (.*) \| (.*) \|$", page.read_text(), re.MULTILINE)
    published, subscribed = ([*re.findall(r"`([^`]+)`", each)] for each in row)
    published += ["agent.response.>", "orchestration.>", "deliberation.>"]
    rights = f"publish: {json.dumps(published)}, subscribe: {json.dumps(subscribed)}"
    return f'authorization {{ users: [{{user: "us", password: "pw", permissions: {{ {rights} }} }}] }}'


async def test_the_permissions_that_the_page_lists_are_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "nats.md"
    async with (
        jetstream(tmp_path, allowed(page)) as server,
        bench(tmp_path, server, user="us", password="pw") as own,
    ):
        await own.deliberate("q-1", members=2)
        await own.all_published()
        assert own.metric("published_messages") == 5
        await server.cut()  # what was sent is searched for
        await own.deliberate("q-2", members=2)
        await own.all_published()
    assert not [each for each in caplog.messages if "does not let this end's user" in each]


async def test_streams_that_are_there_are_used_and_never_changed(tmp_path: Path) -> None:
    async with jetstream(tmp_path) as server:
        async with client(server) as stream:
            await stream.add_stream(name="planning", subjects=["agent.response.>"], max_msgs=1000)
            await stream.add_stream(name="ORCHESTRATION", subjects=["orchestration.task.>"])
            before = await stream.stream_info("planning")
        async with bench(tmp_path, server, stream_bytes=1024 * 1024, stream_age=60) as own:
            await own.deliberate("q-1", members=2)
            await own.all_published()
        async with client(server) as stream:
            assert (await stream.stream_info("planning")).config == before.config
            assert (await stream.stream_info("planning")).state.messages == 2
            made = await stream.stream_info("DELIBERATIONS")
            assert (made.config.max_bytes, made.config.max_age) == (1024 * 1024, 60)
            # The name is taken, and a part of its subjects: what is missing has a stream of its own.
            other = await stream.stream_info("ANYWIRE_ORCHESTRATION_DELIBERATION_COMPLETED")
            assert other.state.messages == 1


async def test_without_a_stream_messages_wait_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with jetstream(tmp_path) as server, bench(tmp_path, server, make_streams=False) as own:
        await own.deliberate("q-1", members=2)
        await polled(lambda: own.metric("held_subjects") > 0, "nobody keeps it")
        await polled(lambda: own.metric("waiting_messages") == 5, "five messages wait")
        async with client(server) as stream:
            await stream.add_stream(name="everything", subjects=["agent.>", "orchestration.>", "deliberation.>"])
        await own.all_published()
        assert await count(server, "everything") == 5
    assert [each for each in caplog.messages if "make one, or set services.nats.make_streams" in each]


async def test_what_the_server_does_not_take_is_told_to_collectors_in_its_short_form(tmp_path: Path) -> None:
    class Wordy(Council):
        def _text(self, member: str, kind: str, does: str, body: str) -> str:
            text = super()._text(member, kind, does, body)
            return text * 400 if kind in ("proposal", "revision") and member == "member-1" else text

    async with jetstream(tmp_path, "max_payload: 8KB") as server, bench(tmp_path, server, Wordy()) as own:
        await own.deliberate("q-1", members=2, rounds=0)
        await own.all_published()
        answers = {each.payload["agent_id"]: each for each in await events(server, "agent.response.>")}
        assert answers["member-1"].subject == FAILED
        assert answers["member-1"].payload["error_type"] == "payload_too_large"
        assert answers["member-2"].subject == COMPLETED
        assert own.metric("failed_messages") == 0


async def test_what_was_not_put_by_a_process_that_died_is_found_by_the_next(tmp_path: Path) -> None:
    """The deliberations that ended are kept, and the outbox has nothing of them: as if it had died in between."""
    async with jetstream(tmp_path) as server:
        async with service_bench(
            DeliberationService(DeliberationConfig(folder=tmp_path / "kept")),
            state=tmp_path,
            engine=Council(),
            slots=64,
        ) as served:
            kept = served.host.get("deliberation")
            for name in ("q-1", "q-2"):
                await kept.submit(kept.question(request(id=name, members=2), ANN))
                await kept.get(name, ANN, 60)
        for _ in range(2):  # a further start finds nothing new
            async with bench(tmp_path, server) as own:
                found = await all_events(server, least=10)
                assert len(found) == 10
                assert not twice(found)
                await own.all_published()


async def test_an_orchestrator_that_takes_over_tells_nothing_again(tmp_path: Path) -> None:
    """It has an outbox of its own, and begins long after the stream has forgotten the ids of what the first one told;
    one deliberation was under way."""
    engine = Council()
    async with jetstream(tmp_path) as server:
        async with bench(tmp_path, server, engine, duplicate_window=0.1) as own:
            await own.deliberate("q-1", members=2)
            engine.hold("score")
            await own.kept.submit(own.kept.question(request(id="q-2", members=2), ANN))
            await engine.all_asked("score", 4)
            await own.all_published()
            assert len(await all_events(server, least=8)) == 8
        (tmp_path / "outbox").rename(tmp_path / "that of the first one")
        async with bench(tmp_path, server, duplicate_window=0.1) as own:
            await polled(lambda: own.metric("found_messages") == 8, "all that was told is found")
            await expect(own.kept.get("q-2", ANN, 60), "it goes on")
            await own.deliberate("q-3", members=2)
            await own.all_published()
            found = await all_events(server, least=15)
            assert not twice(found)
            assert Counter(each.payload["task_id"] for each in found) == {"q-1": 5, "q-2": 5, "q-3": 5}


async def test_what_another_one_has_published_meanwhile_is_not_published_from_an_old_outbox(tmp_path: Path) -> None:
    """The first one ends while the server is away, and begins again after another one had its deliberations."""
    async with jetstream(tmp_path, runs=False) as server:
        async with bench(tmp_path, server, duplicate_window=0.1) as own:
            await own.deliberate("q-1", members=2)
            await polled(lambda: own.metric("waiting_messages") == 5, "five messages wait")
        (tmp_path / "outbox").rename(tmp_path / "that of the first one")
        await server.restart()
        async with bench(tmp_path, server, duplicate_window=0.1) as own:
            assert len(await all_events(server, least=5)) == 5
        (tmp_path / "outbox").rename(tmp_path / "that of the second one")
        (tmp_path / "that of the first one").rename(tmp_path / "outbox")
        async with bench(tmp_path, server, duplicate_window=0.1) as own:
            await polled(lambda: own.metric("found_messages") == 5, "all that was told is found")
            await own.all_published()
            assert len(await all_events(server)) == 5


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
