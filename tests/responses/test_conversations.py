"""Conversations with OpenAI's own client: what is said in them is kept in order, and reaches the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from openai.types.conversations import Conversation, ConversationItem
from tests.integration.gateway_serving import ScriptedEngine, joined
from tests.integration.known_keys import KnownKeys, bearer
from tests.responses.conversing import House, conversing

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire_gateway_openai.responses.messages import Message

_item: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ConversationItem)
Said = list[tuple[str, str]]


def said_of(body: str) -> Said:
    messages: list[Message] = json.loads(body)["messages"]
    return [(each["role"], str(each["content"])) for each in messages]


async def answering(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
    """Tells how many messages it was given, and the newest."""
    said = said_of(task.body)
    yield Delta(f"{len(said)}: ")
    yield Delta(said[-1][1], "", "stop")


async def kept(at: House, name: str) -> Said:
    """What the client gets of a conversation, once OpenAI's types have found each item without fault."""
    found = []
    async for item in at.client.conversations.items.list(name, order="asc", limit=100):
        checked = _item.validate_python(item.model_dump(mode="json", exclude_unset=True, by_alias=True))
        assert checked.type == "message"
        found.append((checked.role, "".join(part.text for part in checked.content)))
    return found


async def test_a_conversation_is_made_changed_and_deleted(tmp_path: Path) -> None:
    async with conversing(tmp_path, ScriptedEngine(answering)) as at:
        conversations = at.client.conversations
        items: list[Any] = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}]
        made = await conversations.create(items=items, metadata={"topic": "x"})
        Conversation.model_validate(made.model_dump())
        assert made.metadata == {"topic": "x"}
        assert await conversations.retrieve(made.id) == made
        changed = await conversations.update(made.id, metadata={"topic": "y"})
        assert (changed.metadata, changed.created_at) == ({"topic": "y"}, made.created_at)
        added = await conversations.items.create(made.id, items=[{"role": "assistant", "content": "hi"}])
        assert (added.has_more, added.first_id, added.last_id) == (False, added.data[0].id, added.data[0].id)
        assert await kept(at, made.id) == [("developer", "be brief"), ("user", "hello"), ("assistant", "hi")]
        newest = await conversations.items.list(made.id, limit=1)
        assert (newest.data[0].id, newest.has_more) == (added.data[0].id, True)
        one: Any = await conversations.items.retrieve(str(added.data[0].id), conversation_id=made.id)
        assert one == added.data[0]
        assert await conversations.items.delete(one.id, conversation_id=made.id) == changed
        assert len(await kept(at, made.id)) == 2
        with pytest.raises(openai.NotFoundError, match="there is no item"):
            await conversations.items.retrieve(one.id, conversation_id=made.id)
        gone = await conversations.delete(made.id)
        assert (gone.id, gone.deleted, gone.object) == (made.id, True, "conversation.deleted")
        for call in (
            conversations.retrieve(made.id),
            conversations.delete(made.id),
            conversations.items.create(made.id, items=[]),
            at.client.responses.create(model="m", input="x", conversation=made.id),
        ):
            with pytest.raises(openai.NotFoundError, match="there is no conversation"):
                await call
        empty = await conversations.create()
        assert (await kept(at, empty.id), empty.metadata) == ([], {})


async def test_responses_go_on_with_their_conversation(tmp_path: Path) -> None:
    engine = ScriptedEngine(answering)
    async with conversing(tmp_path, engine) as at:
        made = await at.client.conversations.create(items=[{"role": "developer", "content": "be brief"}])
        first = await at.client.responses.create(model="m", input="one", conversation=made.id)
        assert first.conversation is not None
        assert first.conversation.id == made.id
        async with at.client.responses.stream(model="m", input="two", conversation={"id": made.id}) as stream:
            second = await stream.get_final_response()
        assert second.output_text == "4: two"
        await at.client.responses.create(model="m", input="three", conversation=made.id, store=False)
        assert said_of(engine.tasks[-1].body) == [
            ("system", "be brief"), ("user", "one"), ("assistant", "2: one"), ("user", "two"), ("assistant", "4: two"),
            ("user", "three"),
        ]  # fmt: skip
        assert {each.session for each in engine.tasks} == {made.id}
        assert len(await kept(at, made.id)) == 7
        with pytest.raises(openai.BadRequestError, match="belongs to a conversation"):
            await at.client.responses.create(model="m", input="x", previous_response_id=first.id)
        with pytest.raises(openai.BadRequestError, match="name one of them"):
            await at.client.responses.create(model="m", input="x", previous_response_id=first.id, conversation=made.id)
        await at.client.responses.delete(first.id)
        assert len(await kept(at, made.id)) == 7, "what it gave to the conversation stays"


async def test_one_turn_at_a_time_and_a_turn_that_fails_leaves_nothing(tmp_path: Path) -> None:
    may = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await may.wait()
        if "fail" in task.body:
            raise EngineFailed("broken")
        yield Delta("done", "", "stop")

    engine = ScriptedEngine(script)
    async with conversing(tmp_path, engine) as at:
        conversations = at.client.conversations
        made = await conversations.create()
        ask: Any = {"model": "m", "conversation": made.id}
        ways: list[Any] = [{}, {"background": True}]
        for how in ways:
            may.clear()
            engine.began.clear()
            first = asyncio.ensure_future(at.client.responses.create(input="one", **ask, **how))
            await engine.began.wait()
            for other in (
                at.client.responses.create(input="two", **ask),
                conversations.items.create(made.id, items=[{"role": "user", "content": "x"}]),
                conversations.delete(made.id),
            ):
                with pytest.raises(openai.ConflictError, match="is being answered") as refused:
                    await other
                assert (refused.value.code, refused.value.response.headers["retry-after"]) == (
                    "conversation_locked", "1",
                )  # fmt: skip
                assert refused.value.response.headers.get("x-should-retry") != "false"
            may.set()
            await first
            # OpenAI's client comes again by itself.
            await at.client.with_options(max_retries=10).responses.create(input="two", **ask)
        before = await kept(at, made.id)
        assert before == [("user", "one"), ("assistant", "done"), ("user", "two"), ("assistant", "done")] * 2
        with pytest.raises(openai.InternalServerError):
            await at.client.responses.create(input="fail", **ask)
        assert await kept(at, made.id) == before


async def test_a_client_that_goes_away_leaves_its_conversation_free_and_as_it_was(tmp_path: Path) -> None:
    hanging = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("some")
        if "hang" in task.body:
            hanging.set()
            await asyncio.Event().wait()
        yield Delta("thing", "", "stop")

    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        made = await at.client.conversations.create()
        gone = asyncio.ensure_future(at.client.responses.create(model="m", input="hang", conversation=made.id))
        await hanging.wait()
        gone.cancel()
        again = at.client.with_options(max_retries=10)
        await again.responses.create(model="m", input="go on", conversation=made.id)
        assert await kept(at, made.id) == [("user", "go on"), ("assistant", "something")]


async def test_whose_a_conversation_is_decides_who_may_use_it(tmp_path: Path) -> None:
    keys = KnownKeys(alice="use", bob="use", olga="observe", root="operate")
    async with conversing(tmp_path, ScriptedEngine(answering), access=keys) as at:
        async with at.http.post("/v1/conversations", json={"items": []}, headers=bearer("alice")) as answer:
            name = (await answer.json())["id"]
        item = {"items": [{"role": "user", "content": "x"}]}
        calls: list[tuple[str, str, Any]] = [
            ("GET", "", None), ("POST", "", {"metadata": {}}), ("GET", "/items", None), ("POST", "/items", item),
            ("DELETE", "", None),
        ]  # fmt: skip
        for method, path, body in calls:
            for who in ("bob", "olga"):
                where = f"/v1/conversations/{name}{path}"
                async with at.http.request(method, where, json=body, headers=bearer(who)) as answer:
                    assert answer.status == 404, (method, path, who)
            async with at.http.request(method, f"/v1/conversations/{name}{path}", json=body) as answer:
                assert answer.status == 401
        body = {"model": "m", "input": "x", "conversation": name}
        async with at.http.post("/v1/responses", json=body, headers=bearer("bob")) as answer:
            assert answer.status == 404
        for who in ("alice", "root"):
            async with at.http.post("/v1/responses", json=body, headers=bearer(who)) as answer:
                assert answer.status == 200, who


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "", b'{"items": 3}', "items"),
        ("POST", "", b'{"items": [{"role": "user"}]}', "items[0].content"),
        ("POST", "", b'{"items": [{"type": "item_reference", "id": "msg_1"}]}', "items[0]"),
        ("POST", "", b'{"metadata": {"a": 1}}', "metadata.a"),
        ("POST", "", b"{", None),
        ("POST", "", b'{"metadata": {"a": "\\ud800"}}', None),
        ("POST", "", b"[]", None),
        ("POST", "/{id}/items", b"{}", "items"),
        ("POST", "/{id}", b"{}", "metadata"),
        ("GET", "/{id}/items?limit=0", b"", "limit"),
        ("GET", "/{id}/items?after=nothing", b"", "after"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    tmp_path: Path, method: str, path: str, body: bytes, param: str | None
) -> None:
    async with conversing(tmp_path, ScriptedEngine(answering)) as at:
        made = await at.client.conversations.create()
        where = f"/v1/conversations{path}".replace("{id}", made.id)
        async with at.http.request(method, where, data=body) as answer:
            error = (await answer.json())["error"]
            assert answer.status in (400, 404), error
            assert error["param"] == param, error


async def test_a_conversation_that_is_too_long_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    async with conversing(tmp_path, ScriptedEngine(answering), settings={"max_history_bytes": 4096}) as at:
        made = await at.client.conversations.create()
        await at.client.responses.create(model="m", input="x" * 1500, conversation=made.id)
        for streamed in (False, True):
            ask: Any = {"model": "m", "input": "y" * 1000, "conversation": made.id, "stream": streamed}
            if not streamed:
                with pytest.raises(openai.APIStatusError, match="begin a new one"):
                    await at.client.responses.create(**ask)
                continue
            events = [each async for each in await at.client.responses.create(**ask)]
            assert events[-1].type == "response.failed"
        assert len(await kept(at, made.id)) == 2


async def test_a_turn_that_is_sent_again_to_another_agent_has_the_same_history(tmp_path: Path) -> None:
    async def broken(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if task.body:
            raise EngineFailed("broken")
        yield Delta("")

    engines = [ScriptedEngine(answering), ScriptedEngine(broken)]
    async with conversing(tmp_path, engines[0]) as at, joined(at.served, engines):
        made = await at.client.conversations.create()
        prefer = {"x-anywire-prefer": "agent-2"}
        for turn in range(3):
            raw = await at.client.responses.with_raw_response.create(
                model="m", input=f"turn {turn}", conversation=made.id, extra_headers=prefer
            )
            assert (raw.headers["x-anywire-attempts"], raw.headers["x-anywire-agent"]) == ("2", "agent-1")
            assert engines[0].tasks[-1].body == engines[1].tasks[-1].body
        assert [text for role, text in await kept(at, made.id)] == [
            "turn 0", "1: turn 0", "turn 1", "3: turn 1", "turn 2", "5: turn 2",
        ]  # fmt: skip
