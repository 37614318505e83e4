"""What the cache answers, for whom, and what it leaves to agents."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from tests.cache.cached import TellingEngine, ask, caching, chat, front, task, vectors

from anywire.caller import ANYBODY, Caller
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, Forbidden, PluginFailed
from anywire.events import PluginEvent
from anywire.messages import TaskRequest
from anywire.request_log import RequestLog
from anywire.roles.fleet import FleetEngine
from anywire.route import Request, Response
from anywire.service import Service
from anywire.submission import Submission
from anywire.testing.patience import PATIENCE, expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_cache import store as store_module
from anywire_service_cache.asked import read_asked
from anywire_service_cache.config import CacheConfig, SemanticConfig
from anywire_service_cache.payloads import AnswerFile, InMemory
from anywire_service_cache.service import Cache


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does much else is no slow disk, and no agent that makes no embeddings."""
    monkeypatch.setattr(store_module, "READ_TIMEOUT", PATIENCE)
    monkeypatch.setattr(Cache, "before_timeout", 3 * PATIENCE)


def semantic_settings(**settings: Any) -> SemanticConfig:
    return SemanticConfig(model="e", **settings).model_copy(update={"timeout": PATIENCE})


class TestCache(ServiceConformance):
    service = "cache"

    def make(self) -> Service:
        return Cache(CacheConfig(**self.options))


class TestCacheOnDisk(TestCache):
    options = {"store": "sqlite"}  # noqa: RUF012


async def test_what_was_asked_before_is_answered_from_what_is_kept(tmp_path: Path) -> None:
    engine = TellingEngine()
    async with caching(tmp_path, engine) as bench:
        how, first = await ask(bench, chat("hello"))
        assert how == "miss"
        for stream in (False, True, True):
            assert await ask(bench, chat("hello"), stream=stream) == ("hit", first)
        assert engine.answered == 1
        # The same in other words of JSON.
        same = '{"user":"u", "stream":true,"temperature":null, "messages":[{"content":"h\\u0065llo","role":"user"}]}'
        assert await ask(bench, same) == ("hit", first)
        metrics = {(each.name, each.labels.get("how")): each.value for _, each in bench.host.metrics()}
        assert metrics["hits", "exact"] == 4
        assert metrics["misses", None] == metrics["stored", None] == metrics["entries", None] == 1


@pytest.mark.parametrize(
    "other",
    [
        chat("hello!"),
        chat("hello", temperature=1),
        chat("hello", seed=3),
        chat("hello", max_tokens=3),
        chat("hello", n=2),
        chat("hello", tools=[{"type": "function", "function": {"name": "f"}}]),
        chat("hello", response_format={"type": "json_object"}),
        chat("hello", stop=["x"]),
        chat("hello", models=["n"]),
        chat("hello", unknown_option=True),
    ],
)
async def test_whatever_an_answer_depends_on_is_part_of_the_key(tmp_path: Path, other: str) -> None:
    async with caching(tmp_path, TellingEngine("m", "n")) as bench:
        assert (await ask(bench, chat("hello")))[0] == "miss"
        assert (await ask(bench, other))[0] == "miss"


async def test_tenants_models_and_choices_of_agents_are_kept_apart(tmp_path: Path) -> None:
    async with caching(tmp_path, TellingEngine("m", "n")) as bench:
        settings: list[dict[str, Any]] = [
            {"caller": Caller("k1", "a")},
            {"caller": Caller("k1", "b")},
            {"caller": Caller("a")},
            {"caller": ANYBODY},
            {"model": "n"},
            {"kind": "completion"},
            {"prefer": ("agent",)},
            {"avoid": ("agent-2",)},
            # An orchestrator above asks for its tenants with its own key.
            {"caller": Caller("parent", "parent"), "named_tenant": "a"},
            {"caller": Caller("parent", "parent"), "named_tenant": "b"},
        ]
        for each in settings:
            assert (await ask(bench, chat("hello"), **each))[0] == "miss"
        # Two keys of one tenant share.
        assert (await ask(bench, chat("hello"), caller=Caller("k2", "a")))[0] == "hit"
        assert (await ask(bench, chat("hello"), caller=Caller("k2", "a"), named_tenant="a"))[0] == "hit"


async def test_tenants_of_an_orchestrator_above_with_one_key_are_kept_apart(tmp_path: Path) -> None:
    async with caching(tmp_path, passed_on=True) as bench:
        below = FleetEngine(bench.orchestrator, "agent", RequestLog(False))
        answers = []
        for number, tenant in enumerate(("a", "b", "a")):
            asked = TaskRequest("parent", f"t{number}", 1, "chat", "m", chat("hello"), tenant=tenant)
            steps = below.run_for(asked, Caller("key", "parent"))
            answers.append("".join([each.text async for each in steps if isinstance(each, Delta)]))
        assert answers[0] == answers[2] != answers[1]
        # Two orchestrators above: whose the task is has been lost between them.
        for _ in range(2):
            assert (await ask(bench, chat("hello"), hops=2))[0] == ""


async def test_an_answer_of_other_weights_is_stale(tmp_path: Path) -> None:
    engine = TellingEngine()
    async with caching(tmp_path, engine) as bench:
        changed = asyncio.Event()
        stop = bench.orchestrator.listen(changed.set)
        _, first = await ask(bench, chat("hello"))
        engine.load("m", "w2")
        await expect(changed.wait(), "the orchestrator knows the new weights")
        how, second = await ask(bench, chat("hello"))
        assert (how, " w2 " in second, " w1 " in first) == ("miss", True, True)
        assert await ask(bench, chat("hello")) == ("hit", second)
        stop()


async def test_weights_that_change_while_they_answer_leave_nothing(tmp_path: Path) -> None:
    class Changing(TellingEngine):
        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            yield Delta("a")
            self.load("m", f"w{self.answered + 2}")
            while len(offered) < self.answered + 1:
                await told.wait()
                told.clear()
            self.answered += 1
            yield Delta("b", "", "stop")

    told, offered = asyncio.Event(), list[str]()
    engine = Changing()
    async with caching(tmp_path, engine) as bench:

        def changed() -> None:
            digests = [offer.digest for _, offer in bench.orchestrator.offers()["m"]]
            if digests and digests[0] not in (*offered, "w1"):
                offered.append(digests[0])
                told.set()

        stop = bench.orchestrator.listen(changed)
        for _ in range(2):
            assert (await ask(bench, chat("hello"), stream=True))[0] == "miss"
        stop()


async def test_weights_that_nobody_knows_are_left_out_if_that_is_asked_for(tmp_path: Path) -> None:
    for unknown in (True, False):
        async with caching(tmp_path, TellingEngine(digest=""), unknown_weights=unknown) as bench:
            await ask(bench, chat("hello"))
            assert (await ask(bench, chat("hello")))[0] == ("hit" if unknown else "miss")


async def test_what_the_client_says_of_kept_answers_holds(tmp_path: Path) -> None:
    async with caching(tmp_path) as bench:
        assert (await ask(bench, chat("1"), cache_control="no-store"))[0] == ""
        assert (await ask(bench, chat("1")))[0] == "miss"
        assert (await ask(bench, chat("1"), cache_control="no-store"))[0] == ""
        assert (await ask(bench, chat("1"), cache_control="max-age=60"))[0] == "hit"
        assert (await ask(bench, chat("1"), cache_control="max-age=0"))[0] == "miss"
        how, newer = await ask(bench, chat("1"), cache_control="private, No-Cache")
        assert how == "miss"
        assert await ask(bench, chat("1")) == ("hit", newer)
        assert (await ask(bench, chat("1"), hints={"cache_control": "no-store"}))[0] == ""


async def test_what_is_not_to_be_repeated_is_not(tmp_path: Path) -> None:
    def cut(task: TaskRequest, number: int) -> list[Delta]:
        return [Delta(f"{number}", "", "content_filter")]

    def fail(task: TaskRequest, number: int) -> list[Delta]:
        raise EngineFailed("it fails")

    engine = TellingEngine()
    async with caching(tmp_path, engine, only_deterministic=True) as bench:
        for _ in range(2):
            assert (await ask(bench, chat("1", temperature=0.0)))[0] in ("miss", "hit")
            assert (await ask(bench, chat("1", temperature=0.1)))[0] == ""
            assert (await ask(bench, chat("1")))[0] == ""
    async with caching(tmp_path, engine, models=("x*",)) as bench:
        assert (await ask(bench, chat("1")))[0] == ""
    async with caching(tmp_path, engine, max_answer_bytes=3) as bench:
        for _ in range(2):
            assert (await ask(bench, chat("1")))[0] == "miss"
    async with caching(tmp_path, engine) as bench:
        engine.answer = cut
        for _ in range(2):
            assert (await ask(bench, chat("1")))[0] == "miss"
        engine.answer = fail
        for _ in range(2):
            failing = task(bench, chat("2"))
            with pytest.raises(EngineFailed):
                await expect(failing.result(), "the task fails")
            assert failing.notes == {"cache": "miss"}
        engine.answer = engine._tell
        parent = task(bench, chat("3"))
        child = task(bench, chat("3"), parent=parent.task_id)
        assert (await expect(child.result(), "the child's answer")) is not None
        assert child.notes == {}
        body = chat("4", tools=[{"type": "mcp", "server_label": "files"}])
        assert read_asked(Submission("chat", "m", body), CacheConfig()) is None


async def test_more_than_text_is_given_in_the_form_in_which_it_was_given_first(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    def calls(task: TaskRequest, number: int) -> list[Delta]:
        if task.stream:
            steps = [
                {"index": 0, "delta": {"tool_calls": [call]}},
                {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
            ]
            return [
                Delta("so "),
                Delta("be"),
                *(Delta("", json.dumps([each])) for each in steps),
                Delta("", "", "tool_calls"),
            ]
        message = {"role": "assistant", "content": "so be", "tool_calls": [call]}
        whole = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
        return [Delta("so be", json.dumps(whole), "tool_calls")]

    engine = TellingEngine()
    engine.answer = calls
    async with caching(tmp_path, engine) as bench, front(bench) as http:
        client = openai.AsyncOpenAI(base_url=f"{http._base_url}/v1", api_key="none", max_retries=0)
        for stream in (True, False):
            seen: list[Any] = []
            for how in ("miss", "hit"):
                raw = await client.chat.completions.with_raw_response.create(
                    model="m", messages=[{"role": "user", "content": "x"}], stream=stream
                )
                assert raw.headers["x-anywire-cache"] == how
                if not stream:
                    message = raw.parse().choices[0].message  # type: ignore[union-attr]
                    seen.append((message.content, message.tool_calls))
                    continue
                text, tools = "", list[Any]()
                async for chunk in raw.parse():  # type: ignore[union-attr]
                    text += chunk.choices[0].delta.content or ""
                    tools += chunk.choices[0].delta.tool_calls or []
                seen.append((text, tools))
            assert seen[0] == seen[1]
            assert seen[0][0] == "so be"
            assert seen[0][1][0].function.name == "f"
        assert engine.answered == 2
        await client.close()


async def test_over_http_the_head_tells_and_a_streamed_hit_has_the_same_text(tmp_path: Path) -> None:
    async with caching(tmp_path) as bench, front(bench) as http:

        async def post(body: dict[str, Any], **headers: str) -> tuple[str, str]:
            async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                data = await response.read()
                if not body.get("stream"):
                    return response.headers.get("x-anywire-cache", ""), json.loads(data)["choices"][0]["message"][
                        "content"
                    ]
                events = [json.loads(each[6:]) for each in data.decode().split("\n\n") if each.startswith("data: {")]
                parts = [each["choices"][0]["delta"].get("content", "") for each in events if each["choices"]]
                return response.headers.get("x-anywire-cache", ""), "".join(parts)

        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        how, text = await post({**body, "stream": True})
        assert how == "miss"
        assert await post({**body, "stream": True}) == ("hit", text)
        assert await post(body) == ("hit", text)
        assert (await post(body, **{"cache-control": "no-store"}))[0] == ""
        assert (await post(body, **{"x-anywire-tenant": "another"}))[0] == "miss"
        async with http.get("/metrics") as response:
            assert 'anywire_cache_hits_total{how="exact"} 2.0' in await response.text()


async def test_answers_outlive_a_restart_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    engine = TellingEngine()
    settings: dict[str, Any] = {"store": "sqlite", "folder": tmp_path / "kept"}
    async with caching(tmp_path, engine, **settings) as bench:
        _, first = await ask(bench, chat("1"))
        _, second = await ask(bench, chat("2"))
    async with caching(tmp_path, engine, **settings) as bench:
        assert await ask(bench, chat("1"), stream=True) == ("hit", first)
    database = sqlite3.connect(tmp_path / "kept" / "cache.sqlite3")
    database.execute("UPDATE answers SET answer = ?", (b"\xff",))
    database.commit()
    database.close()
    async with caching(tmp_path, engine, **settings) as bench:
        for text, before in (("1", first), ("2", second)):
            how, again = await ask(bench, chat(text))
            assert how == "miss"
            assert again != before
            assert await ask(bench, chat(text)) == ("hit", again)


async def test_a_slow_or_broken_disk_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(InMemory):
        async def get(self, key: bytes) -> bytes | None:
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr(store_module, "READ_TIMEOUT", 0.01)
    service = Cache(CacheConfig())
    async with service_bench(service, state=tmp_path, engine=TellingEngine()) as bench:
        await ask(bench, chat("1"))
        assert service.store is not None
        service.store._payloads = Hangs()
        for _ in range(3):
            assert (await ask(bench, chat("1")))[0] == "miss"
        assert service.counts["failures"] == 1  # it rests after that
        assert not bench.orchestrator.boundary.failures


async def test_callers_clear_what_is_their_own_and_operators_everything(tmp_path: Path) -> None:
    mine, theirs = Caller("k1", "a"), Caller("k2", "b")
    async with caching(tmp_path, TellingEngine("m", "n")) as bench:
        told: list[PluginEvent] = []
        stop = bench.orchestrator.events.subscribe("test", told.append, PluginEvent)

        async def clear(caller: Caller, **query: str) -> int:
            (route,) = [each for each in bench.routes.all() if each.method == "DELETE"]
            answer = await route.handler(Request("DELETE", "/v1/cache", {}, query, {}, b"", caller))
            assert isinstance(answer, Response)
            return int(msgspec.json.decode(answer.body)["cleared"])

        async def fill() -> None:
            for caller in (mine, theirs):
                for model in ("m", "n"):
                    await ask(bench, chat("1"), caller=caller, model=model)

        await fill()
        with pytest.raises(Forbidden):
            await clear(mine, tenant="b")
        assert await clear(mine, model="n") == 1
        assert await clear(mine) == 1
        assert (await ask(bench, chat("1"), caller=theirs))[0] == "hit"
        operator = Caller("op", "", "operate")
        await fill()
        assert await clear(operator, tenant="b") == 2
        assert await clear(operator) == 2
        assert (await ask(bench, chat("1"), caller=theirs))[0] == "miss"
        assert {each.name for each in told} == {"hit", "stored", "cleared"}
        assert {each.tenant for each in told if each.name == "hit"} == {"b"}
        stop()


async def test_equal_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    async with caching(tmp_path) as bench:
        answers = await asyncio.gather(*(ask(bench, chat("1"), stream=each % 2 == 0) for each in range(20)))
        assert all(each[1] for each in answers)
        last = await ask(bench, chat("1"))
        assert last[0] == "hit"
        assert last[1] in {text for _, text in answers}


async def semantic(bench: ServiceBench, body: str, **settings: Any) -> tuple[str, str]:
    stream = task(bench, body, **settings)
    await expect(stream.result(), "the answer")
    return stream.notes.get("cache", ""), stream.notes.get("cache-similarity", "")


async def test_a_question_that_means_the_same_gets_the_same_answer(tmp_path: Path) -> None:
    engine = TellingEngine("m", "e")
    engine.answer = vectors({"cats": [2.0, 0.0], "a cat": [1.0, 0.05], "dogs": [0.0, 1.0]})
    async with caching(tmp_path, engine, semantic=semantic_settings(threshold=0.99)) as bench:
        assert await semantic(bench, chat("cats")) == ("miss", "")
        assert await semantic(bench, chat("cats")) == ("hit", "")
        assert await semantic(bench, chat("a cat")) == ("hit", "0.9988")
        assert await semantic(bench, chat("a cat"), stream=True) == ("hit", "0.9988")
        assert await semantic(bench, chat("dogs")) == ("miss", "")
        # Only the question may differ.
        others: list[tuple[str, dict[str, Any]]] = [
            (chat("a cat", temperature=1), {}),
            (json.dumps({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a cat"}]}), {}),
            (chat("a cat"), {"caller": Caller("k", "b")}),
            (chat("a cat"), {"cache_control": "no-cache"}),
        ]
        for body, settings in others:
            assert await semantic(bench, body, **settings) == ("miss", "")


async def test_without_an_embedding_tasks_go_on(tmp_path: Path) -> None:
    engine = TellingEngine("m", "e")
    engine.answer = vectors({})  # fails for every text
    async with caching(tmp_path, engine, semantic=semantic_settings()) as bench:
        assert await semantic(bench, chat("cats")) == ("miss", "")
        assert await semantic(bench, chat("cats")) == ("hit", "")
    async with caching(tmp_path, TellingEngine(), semantic=semantic_settings()) as bench:
        assert (await ask(bench, chat("cats")))[0] == "miss"
        assert (await ask(bench, chat("cats")))[0] == "hit"


async def test_what_one_api_has_asked_is_kept_for_the_others(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "x"}]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"max_tokens": 9, "messages": messages}),
        ("/v1/messages", {"max_tokens": 9, "messages": messages}),
        ("/api/chat", {"messages": messages, "options": {"num_predict": 9}, "stream": True}),
        ("/v1/responses", {"input": "x", "max_output_tokens": 9}),
    ]
    async with caching(tmp_path) as bench, front(bench) as http:
        for number, (path, body) in enumerate(asked * 2):
            async with http.post(path, json={"model": "m", **body}) as response:
                text = await response.text()
                assert response.status == 200, text
                assert "w1" in text
                # A body that an API makes may have members of its own: then it is asked once more.
                if number == 0 or number >= len(asked):
                    assert response.headers["x-anywire-cache"] == ("miss" if number == 0 else "hit"), path


async def test_embeddings_that_do_not_come_in_time_are_left_alone_for_a_while(tmp_path: Path) -> None:
    class Hangs(TellingEngine):
        embedded = 0

        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            if task.kind == "embedding":
                self.embedded += 1
                await asyncio.Event().wait()
            async for delta in super().run(task):
                yield delta

    engine = Hangs("m", "e")
    async with caching(tmp_path, engine, semantic=SemanticConfig(model="e", timeout=0.05)) as bench:
        for text in ("one", "two", "three"):
            assert (await ask(bench, chat(text)))[0] == "miss"
        assert engine.embedded == 1
        assert (await ask(bench, chat("one")))[0] == "hit"


async def test_an_embedding_model_that_nobody_serves_any_more_is_not_waited_for(tmp_path: Path) -> None:
    engine = TellingEngine("m", "e")
    engine.answer = vectors({"cats": [1.0, 0.0]})
    service = Cache(CacheConfig(semantic=semantic_settings()))
    async with service_bench(service, state=tmp_path, engine=engine, agent_wait=PATIENCE) as bench:
        assert (await ask(bench, chat("cats")))[0] == "miss"
        engine.models = ("m",)
        engine._changed()
        await bench.orchestrator.agents_until(lambda agents: "e" not in bench.orchestrator.offers())
        before = bench.orchestrator.stats()["tasks"]["ended"]
        assert (await ask(bench, chat("dogs")))[0] == "miss"
        after = bench.orchestrator.stats()["tasks"]["ended"]
        assert after == before | {"answered": before["answered"] + 1}


async def test_what_is_being_answered_when_the_cache_is_cleared_is_not_kept(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(TellingEngine):
        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            async for delta in super().run(task):
                yield delta
                begun.set()
                await go_on.wait()

    async with caching(tmp_path, Slow()) as bench:
        mine, other = Caller("k1", "a"), Caller("k2", "b")
        asked = [asyncio.create_task(ask(bench, chat("x"), caller=each)) for each in (mine, other)]
        await expect(begun.wait(), "an answer has begun")
        (route,) = [each for each in bench.routes.all() if each.method == "DELETE"]
        await route.handler(Request("DELETE", "/v1/cache", {}, {}, {}, b"", mine))
        go_on.set()
        assert [(await each)[0] for each in asked] == ["miss", "miss"]
        assert (await ask(bench, chat("x"), caller=mine))[0] == "miss"
        assert (await ask(bench, chat("x"), caller=other))[0] == "hit"


async def test_an_answer_that_was_to_be_replaced_does_not_come_back_with_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSE", 0.0)
    failed, loop = asyncio.Event(), asyncio.get_running_loop()
    async with caching(tmp_path, store="sqlite") as bench:
        await ask(bench, chat("1"))
        assert await ask(bench, chat("1")) == ("hit", "0  m w1 é😀\n")
        with monkeypatch.context() as broken:

            def full(*_: object) -> None:
                loop.call_soon_threadsafe(failed.set)
                raise PluginFailed("no space left")

            broken.setattr(AnswerFile, "put", full)
            assert (await ask(bench, chat("1"), cache_control="no-cache"))[0] == "miss"
            await expect(failed.wait(), "the write that fails, after the answer")
        assert (await ask(bench, chat("2")))[0] == "miss"  # the disk is well again
    async with caching(tmp_path, store="sqlite") as bench:
        assert (await ask(bench, chat("1")))[0] == "miss"


async def test_no_store_on_a_second_line_of_the_header_holds(tmp_path: Path) -> None:
    body = json.dumps({"model": "m", **json.loads(chat("x"))})
    async with caching(tmp_path) as bench, front(bench) as http:
        assert http._base_url is not None
        for lines in (("max-age=60", "no-store"), ("no-store", "max-age=60")):
            reader, writer = await asyncio.open_connection("127.0.0.1", http._base_url.port)
            told = ["POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json"]
            told += [f"cache-control: {each}" for each in lines]
            told += [f"content-length: {len(body)}", "connection: close", "", body]
            writer.write("\r\n".join(told).encode())
            answer = await expect(reader.read(), "the answer")
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"x-anywire-cache" not in answer


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="kinds"):
        CacheConfig.model_validate({"kinds": ["chats"]})


async def test_a_disk_that_is_full_keeps_no_orchestrator_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with caching(tmp_path, store="sqlite") as bench:
        for number in range(3):
            await ask(bench, chat(f"{number}"))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(AnswerFile, "remove", full)
    async with caching(tmp_path, store="sqlite", max_entries=2) as bench:
        assert (await ask(bench, chat("2")))[1]
