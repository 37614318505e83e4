"""Tasks and deliberations are submitted by message: taken once, answered once, in a reply and in an event."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.process_fleet import Fleet
from tests.integration.nats_servers import needs_nats_server
from tests.system.nats_rig import Outside, background, deliberation, jetstream_server, orchestrator, outside
from tests.system.test_nats_worker import Locked

from anywire.testing.patience import expect

pytestmark = needs_nats_server
COMPLETED, FAILED = "anywire.submitted.completed", "anywire.submitted.failed"
STREAM, DURABLE = "ANYWIRE_SUBMISSIONS", "anywire-submissions"
SUBMISSIONS: dict[str, Any] = {"submissions": {}}
CHAT = {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}


async def prepared(others: Outside) -> None:
    await others.stream(STREAM, "anywire.submit.*")


class Replies:
    """What comes to a reply subject."""

    def __init__(self, others: Outside) -> None:
        self.subject = others.client.new_inbox()
        self._client = others.client
        self._subscription: Any = None

    async def __aenter__(self) -> Replies:
        self._subscription = await self._client.subscribe(self.subject)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._subscription.unsubscribe()

    async def next(self) -> dict[str, Any]:
        message = await expect(self._subscription.next_msg(timeout=60), "a reply comes")
        found: dict[str, Any] = msgspec.json.decode(message.data)
        return found


@pytest.mark.parametrize("kept", [True, False])
async def test_a_task_is_answered_by_a_reply_and_an_event_once(tmp_path: Path, kept: bool) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, *([background] if kept else []), **SUBMISSIONS),
        Replies(others) as replies,
    ):
        await prepared(others)
        for _ in range(2):
            heads = {"Nats_Msg_Id": "mine", "Anywire_Reply": replies.subject, "Anywire_Priority": "2"}
            await others.publish("anywire.submit.chat", CHAT, **heads)
        if kept:
            accepted = await replies.next()
            assert (accepted["id"], accepted["status"]) == ("mine", "accepted")
        ended = await replies.next()
        assert (ended["id"], ended["kind"], ended["status"], ended["cut"]) == ("mine", "chat", "completed", False)
        assert ended["content"]
        (event,) = await others.until(COMPLETED, 1, "the end is told")
        assert event.payload == ended
        assert (event.payload["usage"]["completion_tokens"], event.payload["finish_reason"]) == (4, "stop")
        embed = {"model": "synthetic", "input": "hello"}
        await others.publish("anywire.submit.embedding", embed)
        found = await others.until(COMPLETED, 2, "the embedding is told")
        assert found[1].payload["extra"]
        await others.until_acknowledged(STREAM, DURABLE)
        assert len(await others.all(COMPLETED)) == 2


async def test_a_deliberation_is_taken_as_rest_takes_it(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, deliberation, **SUBMISSIONS) as bench,
        Replies(others) as replies,
    ):
        await prepared(others)
        asked = {"task": "tabs or spaces?", "members": 2, "rounds": 0, "id": "d-1"}
        await others.publish("anywire.submit.deliberation", asked, Anywire_Reply=replies.subject)
        accepted = await replies.next()
        assert (accepted["status"], accepted["deliberation_id"]) == ("accepted", "d-1")
        ended = await replies.next()
        assert (ended["deliberation_id"], ended["id"]) == ("d-1", "d-1")
        assert (await bench.call("GET", "/deliberations/{id}", id="d-1")).status == 200  # type: ignore[union-attr]
        (event,) = await others.until(COMPLETED if ended["status"] == "completed" else FAILED, 1, "the end is told")
        assert event.payload == ended
        wrong = {"task": "x", "members": 0}
        await others.publish("anywire.submit.deliberation", wrong, Nats_Msg_Id="wrong", Anywire_Reply=replies.subject)
        refused = await replies.next()
        assert (refused["id"], refused["status"], refused["error_type"]) == ("wrong", "failed", "invalid_request")
        assert refused["param"] == "members"


async def test_what_is_refused_is_told_and_what_is_nothing_is_kept(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, background, submissions={"keep_trying": 0}),
        Replies(others) as replies,
    ):
        await prepared(others)
        for wrong, error in (
            ({"model": "synthetic"}, "invalid_request"),
            (CHAT | {"stream": True}, "invalid_request"),
            (CHAT | {"model": "nobody"}, "model_not_found"),
        ):
            await others.publish("anywire.submit.chat", wrong, Anywire_Reply=replies.subject)
            refused = await replies.next()
            assert (refused["status"], refused["error_type"]) == ("failed", error)
        await others.publish("anywire.submit.chat", b"nonsense")
        await others.publish("anywire.submit.other", CHAT)
        await others.publish("anywire.submit.chat", CHAT, Anywire_Reply="agent.response.completed")
        letters = await others.until("deadletter", 3, "they are kept")
        assert [each.payload["topic"].rpartition(".")[2] for each in letters] == ["chat", "other", "chat"]
        assert len(await others.all(FAILED)) == 3


async def test_where_keys_are_needed_a_name_is_its_tenants_own(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, access=Locked(), **SUBMISSIONS),
        Replies(others) as replies,
    ):
        await prepared(others)
        for key, status in (("bad", "failed"), ("", "failed"), ("good", "completed")):
            heads = {"Anywire_Key": key} if key else {}
            await others.publish("anywire.submit.chat", CHAT, Anywire_Id="n", Anywire_Reply=replies.subject, **heads)
            ended = await replies.next()
            assert (ended["id"], ended["status"]) == ("n", status)
            assert "good" not in str(ended)


async def test_who_wants_a_reply_is_told_what_is_not_understood_and_whose_it_was(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, **SUBMISSIONS),
        Replies(others) as replies,
    ):
        await prepared(others)
        heads = {"Anywire_Id": "n", "Anywire_Reply": replies.subject}
        await others.publish("anywire.submit.chat", b"{", **heads)
        refused = await replies.next()
        assert (refused["id"], refused["status"], refused["error"]) == ("n", "refused", "it is no JSON")
        await others.publish("anywire.submit.chat", CHAT, Anywire_Tenant="acme", **heads)
        ended = await replies.next()
        assert (ended["id"], ended["status"], ended["tenant"]) == ("n", "completed", "acme")


async def test_another_submission_with_the_same_name_is_refused(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, **SUBMISSIONS),
        Replies(others) as replies,
    ):
        await prepared(others)
        await others.publish("anywire.submit.chat", CHAT, Anywire_Id="n", Anywire_Reply=replies.subject)
        assert (await replies.next())["status"] == "completed"
        other = CHAT | {"messages": [{"role": "user", "content": "something else"}]}
        await others.publish("anywire.submit.chat", other, Anywire_Id="n", Anywire_Reply=replies.subject)
        refused = await replies.next()
        assert (refused["id"], refused["status"]) == ("n", "refused")
        assert "use a new id" in refused["error"]
        await others.until("deadletter", 1, "it is kept")


async def test_killed_processes_leave_each_submission_one_end(tmp_path: Path, options_of: Any) -> None:
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await prepared(others)
        settings = {"servers": server.url, "folder": str(tmp_path / "nats"), "submissions": {"redelivery": 1.0}}
        fleet = Fleet(
            tmp_path,
            "zeromq",
            options_of("zeromq"),
            services={
                "nats": settings,
                "background": {"folder": str(tmp_path / "tasks")},
                "deliberation": {"folder": str(tmp_path / "kept")},
            },
            lease={"timeout": 1.0, "heartbeat_interval": 0.2},
        )
        try:
            await fleet.serve()
            await fleet.begin("a", ttft=100)
            for number in range(12):
                await others.publish("anywire.submit.chat", CHAT, Nats_Msg_Id=f"chat-{number}")
            asked = {"task": "tabs or spaces?", "members": 2, "rounds": 0, "quorum": 1}
            await others.publish("anywire.submit.deliberation", asked, Nats_Msg_Id="d-1")
            await others.until(COMPLETED, 3, "some have ended")
            await fleet.kill_server()
            await server.cut()
            await fleet.serve()
            ended = [*await others.until(COMPLETED, 12, "the tasks have ended")]
            await others.until_acknowledged(STREAM, DURABLE)
            await expect(_told(others, "d-1"), "the deliberation has ended")
            ended = [*await others.all(COMPLETED), *await others.all(FAILED)]
            names = sorted(each.payload["id"] for each in ended)
            assert names == sorted([f"chat-{number}" for number in range(12)] + ["d-1"])
            assert fleet.server is not None
            await fleet.server.end(signal.SIGTERM)
        finally:
            await fleet.end()


async def _told(others: Outside, name: str) -> None:
    while name not in [each.payload["id"] for subject in (COMPLETED, FAILED) for each in await others.all(subject)]:
        pass
