"""Turns at the bounds of what is kept, with many items, and of callers who have nothing to do with each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_serving import ScriptedEngine, hangs, says
from tests.integration.known_keys import KnownKeys, bearer
from tests.responses.conversing import conversing
from tests.responses.test_kept_conversations import ALICE, BOB, LONG_AGO, begin, end, opened, response, talk, texts

from anywire.caller import Caller
from anywire.conversation_items import MAX_ITEMS
from anywire.engine import Delta, EngineProgress
from anywire.errors import InvalidRequest, PayloadTooLarge, QueueFull, ShuttingDown
from anywire.messages import TaskRequest
from anywire_service_conversations.database import Database
from anywire_service_conversations.store import Store


def test_a_turn_does_not_push_out_its_own_conversation(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept", max_kept=2)
    talk(database, "c")
    end(database, response("r1", "one", conversation="c"))
    end(database, response("r2", "two", conversation="c"))
    assert texts(database.history("", "c")[0]) == ["one", "re: one", "two", "re: two"]
    assert (database.response("r1"), database.response("r2") is None) == (None, False)
    database.close()
    database = opened(tmp_path / "one", max_kept=1)
    talk(database, "c")
    with pytest.raises(QueueFull):
        end(database, response("r", "one", conversation="c"))
    assert end(database, response("r", "one", conversation="c"), store=False)
    assert len(database.history("", "c")[0]) == 2
    database.close()


def test_a_turn_of_a_conversation_that_is_not_kept_any_more_is_not_whole(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept")
    talk(database, "c")
    database.remove("c")
    with pytest.raises(InvalidRequest) as refused:
        end(database, response("r", "one", conversation="c"))
    assert (refused.value.status, refused.value.detail_code) == (404, "conversation_not_found")
    assert database.response("r") is None
    assert end(database, response("r", "one", conversation="c", status="failed", output=[]))
    with pytest.raises(InvalidRequest, match="no conversation"):
        database.append("c", [], LONG_AGO)
    database.close()


def test_who_has_more_and_cannot_give_way_does_not_keep_others_out(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept", max_kept=4)
    for number in range(3):
        begin(database, response(f"a{number}", "x", background=True, output=[]))
    end(database, response("b0", "x", BOB))
    end(database, response("b1", "x", BOB))
    assert {name for (name,) in database._rows("SELECT id FROM kept")} == {"a0", "a1", "a2", "b1"}
    with pytest.raises(QueueFull):
        end(database, response("a3", "x"))
    database.close()


def test_room_for_a_long_item_is_made_at_once(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept", max_kept=100_000, max_bytes=2**21, max_history_bytes=2**21)
    with database._transaction():
        database._run_many(
            "INSERT INTO kept (id, kind, tenant, caller, created, used, ended, size, data) "
            "VALUES (?, 'response', 'alice', 'a', 0, ?, 1, 50, x'')",
            [(f"r{number}", time.time()) for number in range(20_000)],
        )
    before = time.process_time()
    talk(database, "c", ALICE, "x" * 2_000_000)
    assert time.process_time() - before < 10, "the time must not grow with the square of what goes"
    assert len(database.history("", "c")[0]) == 1
    database.close()


def test_items_that_two_callers_have_are_found_by_both(tmp_path: Path) -> None:
    database = opened(tmp_path / "kept", max_history_bytes=6000)
    root = Caller("root", "house", "operate")
    talk(database, "c", BOB)
    turn = response("r", "x" * 2500, root, conversation="c")
    end(database, turn)
    name = turn.response["output"][0]["id"]
    for who in (BOB, root):
        assert database.items([name], who) == {name: turn.response["output"][0]}
    assert database.items([name], ALICE) == {}
    another = response("s", "y" * 2500, BOB)
    end(database, another)
    with pytest.raises(PayloadTooLarge, match="named"):
        database.items([name, another.response["output"][0]["id"], another.input[0]["id"]], BOB)
    database.close()


async def test_a_short_input_that_names_a_long_item_often_is_refused(tmp_path: Path) -> None:
    engine = says("done")
    async with conversing(tmp_path, engine, max_body_bytes=2**20) as at:
        first = await at.client.responses.create(model="m", input="x" * 300_000)
        (item,) = [each async for each in at.client.responses.input_items.list(first.id)]
        named: Any = {"type": "item_reference", "id": item.id}
        await at.client.responses.create(model="m", input=[named, named], store=False)
        # OpenAI's client takes long for so many.
        for name, times, status, why in ((item.id, 1000, 413, "input names"), ("m", MAX_ITEMS + 1, 400, "at most")):
            body = {"model": "m", "input": [{"type": "item_reference", "id": name}] * times}
            async with at.http.post("/v1/responses", json=body) as answer:
                assert (answer.status, why in await answer.text()) == (status, True)


async def test_a_stranger_neither_learns_of_a_turn_nor_keeps_a_conversation_from_one(tmp_path: Path) -> None:
    engine = hangs()
    keys = KnownKeys(alice="use", bob="use")
    async with conversing(tmp_path, engine, access=keys) as at:
        async with at.http.post("/v1/conversations", json={}, headers=bearer("alice")) as answer:
            name = (await answer.json())["id"]
        body = {"model": "m", "input": "x", "conversation": name}
        asking = asyncio.ensure_future(at.http.post("/v1/responses", json=body, headers=bearer("alice")))
        await engine.began.wait()
        async with at.http.post("/v1/responses", json=body, headers=bearer("bob")) as answer:
            assert answer.status == 404
        asking.cancel()
        await engine.cancelled.wait()


async def test_a_conversation_that_is_deleted_while_items_are_added_is_not_there(tmp_path: Path) -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("done", "", "stop")

    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        for _ in range(5):
            name = (await at.client.conversations.create()).id
            where, item = f"/v1/conversations/{name}", {"items": [{"role": "user", "content": "x"}]}
            answers = await asyncio.gather(
                at.http.delete(where), *(at.http.post(f"{where}/items", json=item) for _ in range(4))
            )
            assert answers[0].status == 200
            assert {each.status for each in answers[1:]} <= {200, 404}
            for each in answers:
                each.release()


async def test_a_body_that_takes_long_to_decode_is_refused_while_others_are_answered(tmp_path: Path) -> None:
    async with conversing(tmp_path, says("done")) as at:
        lists = b'{"items":[' + b"[]," * 300_000 + b"[]]}"
        async with at.http.post("/v1/conversations", data=lists) as answer:
            assert (answer.status, "lists and objects" in await answer.text()) == (413, True)
        text = "é" * 400_000
        made = await at.client.conversations.create(items=[{"role": "user", "content": text}])
        (item,) = [each async for each in at.client.conversations.items.list(made.id)]
        content: Any = item.model_dump()["content"]
        assert content[0]["text"] == text


async def test_a_turn_that_ends_after_the_service_is_told_that_it_shuts_down(tmp_path: Path) -> None:
    store = Store(Database(tmp_path / "kept", 1, 2**20, 2**16))
    assert await store.open()
    await store.close()
    with pytest.raises(ShuttingDown):
        await store.do(lambda database: database.running())
