"""``Idempotency-Key``: a request that is sent again runs once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, serving

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest, StreamCorrupted
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import Chunk, TaskRequest
from anywire.task_stream import TaskStream
from anywire_gateway_openai import idempotency
from anywire_gateway_openai.idempotency import KeptAnswers, Scope

CHAT: Any = {"model": "m", "messages": MESSAGES}
STREAM: Any = CHAT | {"stream": True}
KEY = {"Idempotency-Key": "k1"}
SCOPE = Scope("who", "tenant", "k1")


class Counting:
    """An engine that answers with the number of its run, in two pieces; it waits before the second one."""

    def __init__(self) -> None:
        self.runs = 0
        self.may = asyncio.Event()
        self.fails = False
        self.engine = ScriptedEngine(self._script)

    async def _script(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        self.runs += 1
        number = self.runs
        if self.fails:
            raise EngineFailed("broken")
        yield Delta(f"run {number} ")
        await self.may.wait()
        yield Delta("done", finish_reason="stop")


def client(served: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(served.url)


async def post(http: aiohttp.ClientSession, body: Any, headers: dict[str, str] = KEY) -> tuple[int, str, Any]:
    async with http.post("/v1/chat/completions", json=body, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_a_request_that_is_sent_again_gets_the_same_answer(body: Any) -> None:
    counting = Counting()
    counting.may.set()
    async with serving(counting.engine) as served, client(served) as http:
        first, again, other = [await post(http, body, {"Idempotency-Key": key}) for key in ("k1", "k1", "k2")]
    assert counting.runs == 2
    assert [each[0] for each in (first, again, other)] == [200] * 3
    assert "run 1 " in first[1]
    assert "run 1 " in again[1]
    assert "run 2 " in other[1]
    assert first[2]["x-anywire-task"] == again[2]["x-anywire-task"] != other[2]["x-anywire-task"]
    assert ["x-anywire-replayed" in each[2] for each in (first, again, other)] == [False, True, False]


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_while_the_first_one_runs_the_second_follows_it(body: Any) -> None:
    counting = Counting()
    async with serving(counting.engine) as served, client(served) as http:
        first = asyncio.ensure_future(post(http, body))
        await counting.engine.began.wait()
        second = asyncio.ensure_future(post(http, body))
        async with http.get("/v1/tasks") as answer:
            assert len((await answer.json())["data"]) == 1
        counting.may.set()
        for status, text, _ in await asyncio.gather(first, second):
            assert status == 200
            assert "run 1 " in text
            assert "done" in text
    assert counting.runs == 1


async def test_a_client_that_went_away_comes_back_for_its_answer() -> None:
    counting = Counting()
    async with serving(counting.engine) as served, client(served) as http:
        async with http.post("/v1/chat/completions", json=STREAM, headers=KEY) as answer:
            assert b"run 1 " in await answer.content.readuntil(b"\n\n") + await answer.content.readuntil(b"\n\n")
        # The connection is cut here.
        counting.may.set()
        ended = await served.observer.ended.get()
        assert ended.error == ""
        status, text, headers = await post(http, STREAM)
        assert (status, headers["x-anywire-replayed"]) == (200, "true")
        assert "run 1 " in text
        assert "done" in text
    assert counting.runs == 1


async def test_without_a_key_a_client_that_goes_away_ends_its_task() -> None:
    counting = Counting()
    async with serving(counting.engine) as served, client(served) as http:
        async with http.post("/v1/chat/completions", json=STREAM) as answer:
            await answer.content.readuntil(b"\n\n")
        await counting.engine.cancelled.wait()


async def test_a_failed_request_runs_anew() -> None:
    counting = Counting()
    counting.may.set()
    async with serving(counting.engine) as served, client(served) as http:
        counting.fails = True
        assert (await post(http, CHAT))[0] == 502
        counting.fails = False
        status, text, headers = await post(http, CHAT)
    assert (status, "run 2 " in text, "x-anywire-replayed" in headers) == (200, True, False)


async def test_a_key_for_another_request_is_refused() -> None:
    counting = Counting()
    counting.may.set()
    async with serving(counting.engine) as served, client(served) as http:
        assert (await post(http, CHAT))[0] == 200
        status, text, headers = await post(http, STREAM)
        assert (status, headers["x-should-retry"]) == (422, "false")
        assert "idempotency_key_reused" in text
        assert (await post(http, CHAT, {"Idempotency-Key": "x" * 256}))[0] == 400
    assert counting.runs == 1


async def test_a_key_is_its_callers_alone(tmp_path: Path) -> None:
    path, headers = tmp_path / "keys.json", []
    for name in ("mine", "other"):
        key = new_key()
        add_key(path, record_of(key, label=name, tenant="one"))
        headers.append({"Authorization": f"Bearer {key}"} | KEY)
    counting = Counting()
    counting.may.set()
    async with serving(counting.engine, access=KeyAccess(path)) as served, client(served) as http:
        answers = [await post(http, CHAT, each) for each in headers]
    assert ["run 1 " in answers[0][1], "run 2 " in answers[1][1]] == [True, True]


# What is kept


def stream() -> TaskStream:
    return TaskStream("t", 0, lambda task_id, reason: None)


def piece(text: str, final: bool = False) -> Chunk:
    return Chunk("h", "t", 1, 0, (text,), final=final)


async def answered(kept: KeptAnswers, scope: Scope = SCOPE, text: str = "x") -> None:
    made = stream()
    reader = kept.add(scope, b"d", made).reader()
    made.push(piece(text, final=True))
    await reader.result()
    reader.close()


async def test_answers_are_kept_for_their_time() -> None:
    now = 0.0
    kept = KeptAnswers(10.0, lambda: now)
    await answered(kept)
    now = 9.0
    found = kept.get(SCOPE, b"d")
    assert found is not None
    assert (await found.reader().result()).deltas == ("x",)
    with pytest.raises(InvalidRequest):
        kept.get(SCOPE, b"e")
    now = 10.0
    assert kept.get(SCOPE, b"e") is None


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT", 3)
    monkeypatch.setattr(idempotency, "MAX_KEPT_CHARS", 3000)
    kept = KeptAnswers(10.0)
    scopes = [SCOPE._replace(key=str(number)) for number in range(5)]
    for scope in scopes:
        await answered(kept, scope)
    assert [kept.get(each, b"d") is None for each in scopes] == [True, True, False, False, False]
    await answered(kept, SCOPE, "x" * 2500)
    assert [kept.get(each, b"d") is None for each in (*scopes, SCOPE)] == [True] * 4 + [False] * 2
    for scope in scopes:
        kept.add(scope, b"d", stream())
    assert [kept.get(each, b"d") is None for each in scopes[:3]] == [True, True, False]


async def test_an_answer_that_is_too_long_is_read_by_the_first_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_CHARS", 1000)
    kept, made = KeptAnswers(10.0), stream()
    shared = kept.add(SCOPE, b"d", made)
    first, second = shared.reader(), shared.reader()
    for _ in range(3):
        made.push(piece("y" * 900))
        assert [chunk.deltas for chunk in await first.take()] == [("y" * 900,)]
    made.push(piece("end", final=True))
    assert (await first.take())[-1].final
    assert await first.take() == []
    with pytest.raises(StreamCorrupted, match="too long"):
        await second.take()
    assert kept.get(SCOPE, b"d") is None
