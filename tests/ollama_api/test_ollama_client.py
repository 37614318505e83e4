"""Ollama's own client, unmodified, asks the gateway; its types judge every answer."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import ollama
import pydantic
import pytest
from tests.integration.gateway_serving import ScriptedEngine, Served, hangs, says, serving
from tests.integration.known_keys import KnownKeys
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, Engine, EngineProgress
from anywire.errors import EngineFailed
from anywire.messages import Chunk, TaskRequest
from anywire.offers import Offer
from anywire_gateway_openai.ollama.handlers import _embeddings

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
USAGE = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
PNG = b"\x89PNG\r\n\x1a\nrest"


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return f"rain in {city}"


class House(NamedTuple):
    served: Served
    client: ollama.AsyncClient
    http: aiohttp.ClientSession


@asynccontextmanager
async def house(engine: Engine, key: str = "", **gateway: Any) -> AsyncIterator[House]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        serving(engine, **gateway) as served,
        aiohttp.ClientSession(served.url, headers=headers) as http,
        ollama.AsyncClient(host=served.url, headers=headers, timeout=PATIENCE) as client,
    ):
        yield House(served, client, http)


def synthetic(**config: Any) -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(**{"models": ["m"], "length": 5, **config}))


def given(engine: ScriptedEngine) -> dict[str, Any]:
    """What the engine was asked last."""
    body: dict[str, Any] = json.loads(engine.tasks[-1].body)
    return body


async def test_a_chat_whole_and_streamed() -> None:
    async with house(synthetic()) as at:
        answer = await at.client.chat("m", HELLO, options={"num_predict": 4, "num_ctx": 100})
        assert (answer.done, answer.done_reason, answer.model) == (True, "length", "m")
        assert answer.message.content
        assert answer.eval_count == 4
        assert answer.total_duration is not None
        assert answer.total_duration > 0
        parts = [each async for each in await at.client.chat("m", HELLO, options={"num_predict": 4}, stream=True)]
        assert "".join(each.message.content or "" for each in parts) == answer.message.content
        assert [each.done for each in parts] == [False] * (len(parts) - 1) + [True]
        assert len(parts) == 5, "a line for each token, and the last one"
        assert (parts[-1].eval_count, parts[-1].prompt_eval_count) == (answer.eval_count, answer.prompt_eval_count)
        body = {"model": "m", "messages": HELLO, "options": {"num_ctx": 100}, "keep_alive": 60}
        async with at.http.post("/api/chat", json=body | {"stream": False}) as raw:
            assert raw.headers["x-anywire-ignored"] == "keep_alive, options.num_ctx"
            assert (raw.content_type, raw.headers["x-anywire-agent"]) == ("application/json", "agent-1")
        async with at.http.post("/api/chat", json=body) as raw:
            assert raw.content_type == "application/x-ndjson"
            assert raw.headers["x-anywire-ignored"] == "keep_alive, options.num_ctx"
            assert all(json.loads(line) for line in (await raw.text()).splitlines())


async def test_a_model_calls_tools_and_is_given_their_results() -> None:
    engine = synthetic()
    async with house(engine) as at:
        messages: list[Any] = [{"role": "user", "content": "the weather, please"}]
        answer = await at.client.chat("m", messages, tools=[weather])
        assert answer.message.tool_calls
        call = answer.message.tool_calls[0]
        assert call.function.name == "weather"
        assert isinstance(call.function.arguments["city"], str)
        parts = [each async for each in await at.client.chat("m", messages, tools=[weather], stream=True)]
        streamed = [call for each in parts for call in each.message.tool_calls or ()]
        assert streamed == list(answer.message.tool_calls)
        messages += [answer.message, {"role": "tool", "content": "rain", "tool_name": "weather"}]
        after = await at.client.chat("m", messages, tools=[weather])
        assert after.message.content
    scripted = says(Delta("x", "", "stop", USAGE))
    async with house(scripted) as at:
        await at.client.chat("m", messages, tools=[weather])
        body = given(scripted)
        assert body["messages"][-1]["tool_call_id"] == body["messages"][-2]["tool_calls"][0]["id"]
        assert body["tools"][0]["function"]["name"] == "weather"


async def test_an_answer_follows_a_schema() -> None:
    class Country(pydantic.BaseModel):
        name: str
        people: int

    async with house(synthetic()) as at:
        answer = await at.client.chat("m", HELLO, format=Country.model_json_schema())
        assert isinstance(Country.model_validate_json(answer.message.content or "").people, int)
        plain = await at.client.generate("m", "hello", format="json")
        assert isinstance(json.loads(plain.response or ""), dict)


async def test_what_a_model_thinks_stands_beside_what_it_says() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        for thought in ("it is ", "simple"):
            yield Delta("", json.dumps([{"index": 0, "delta": {"reasoning_content": thought}}]))
        yield Delta("yes", "", "stop", USAGE)

    async with house(ScriptedEngine(script)) as at:
        parts = [each async for each in await at.client.chat("m", HELLO, think=True, stream=True)]
        assert "".join(each.message.thinking or "" for each in parts) == "it is simple"
        assert "".join(each.message.content or "" for each in parts) == "yes"


async def test_a_prompt_images_and_raw_text() -> None:
    engine = says(Delta("so"), Delta(" it is", "", "stop", USAGE))
    async with house(engine) as at:
        answer = await at.client.generate("m", "what?", system="be brief", images=[PNG])
        assert (answer.response, answer.done_reason, answer.eval_count) == ("so it is", "stop", 2)
        system, user = given(engine)["messages"]
        assert (system["content"], user["content"][0]["text"]) == ("be brief", "what?")
        assert user["content"][1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        parts = [each async for each in await at.client.generate("m", "once", raw=True, stream=True)]
        assert "".join(each.response or "" for each in parts) == "so it is"
        assert (engine.tasks[-1].kind, given(engine)["prompt"]) == ("completion", "once")


async def test_embeddings_of_one_text_and_of_several() -> None:
    async with house(synthetic(embedding_size=3)) as at:
        several = await at.client.embed("m", ["a", "b"])
        assert [len(each) for each in several.embeddings] == [3, 3]
        assert several.embeddings[0] != several.embeddings[1]
        one = await at.client.embed("m", "a", dimensions=2)
        assert [len(each) for each in one.embeddings] == [2]
        old = await at.client.embeddings("m", "a")
        assert list(old.embedding) == list(several.embeddings[0])


async def test_the_event_loop_runs_between_embeddings() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    vectors = [{"index": at, "embedding": [at, 0.5]} for at in reversed(range(300))]
    turning = asyncio.ensure_future(turn())
    try:
        found = await _embeddings(Chunk("h", "t", 1, 0, extra=json.dumps(vectors), final=True), None)
    finally:
        turning.cancel()
    assert turns >= len(vectors)
    assert [json.loads(bytes(each)) for each in found] == [[at, 0.5] for at in range(300)]


async def test_models_are_listed_shown_and_loaded() -> None:
    engine = synthetic()
    engine.offer(
        Offer("m", ("chat",), {"vision": True, "tools": False}, context=4096, digest="sha256:" + "ab" * 32),
        Offer("asleep:7b", ("chat",), state="stopped", on_demand=True),
        Offer("vectors", ("embedding",)),
    )
    async with house(engine) as at:
        listed = {each.model: each for each in (await at.client.list()).models}
        assert set(listed) == {"m:latest", "asleep:7b", "vectors:latest"}
        assert listed["m:latest"].digest == "ab" * 32
        assert all(len(each.digest or "") == 64 for each in listed.values())
        running = {each.model: each.context_length for each in (await at.client.ps()).models}
        assert running == {"m:latest": 4096, "vectors:latest": 0}
        shown = await at.client.show("m")
        assert shown.capabilities == ["completion", "vision"]
        assert shown.modelinfo is not None
        assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"] == 4096
        assert (await at.client.show("vectors:latest")).capabilities == ["embedding"]
        assert (await at.client.show("asleep:7b")).capabilities == ["completion", "tools"]
        # A request without a prompt loads a model.
        assert (await at.client.generate("m")).done_reason == "load"
        loaded = await at.client.chat("asleep:7b", [])
        assert (loaded.done_reason, loaded.message.content) == ("load", "")
        assert {each.model for each in (await at.client.ps()).models} >= {"asleep:7b"}


async def test_names_without_a_tag_mean_the_latest() -> None:
    engine = synthetic(models=["plain", "tagged:latest"])
    async with house(engine) as at:
        for name in ("plain", "plain:latest", "tagged", "tagged:latest"):
            answer = await at.client.chat(name, HELLO)
            assert answer.model == name


async def test_what_is_not_done_here_says_what_does_it() -> None:
    async with house(synthetic()) as at:
        assert (await at.client.pull("m")).status == "success", "it is there"
        for asking, sentence in (
            (at.client.pull("other"), "anywire models add"),
            (at.client.push("m"), "not pushed"),
            (at.client.create("n", from_="m"), "anywire models add"),
            (at.client.copy("m", "n"), "served_name"),
            (at.client.delete("m"), "anywire models stop"),
        ):
            with pytest.raises(ollama.ResponseError, match=sentence) as refused:
                await asking
            assert refused.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="anywire models stop m") as refused:
            await at.client.generate("m", keep_alive=0)
        assert refused.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="anywire models add"):
            async for _ in await at.client.pull("other", stream=True):
                pass


async def test_errors_have_ollamas_form_and_their_status() -> None:
    async with house(says("so far", then=EngineFailed("it broke"))) as at:
        with pytest.raises(ollama.ResponseError, match="no agent serves the model 'none'") as refused:
            await at.client.chat("none", HELLO)
        assert refused.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="not found"):
            await at.client.show("none")
        with pytest.raises(ollama.ResponseError, match="model is required"):
            await _post(at, "/api/chat", {"messages": HELLO})
        with pytest.raises(ollama.ResponseError, match=r"options\.temperature") as refused:
            await at.client.chat("m", HELLO, options={"temperature": "hot"})
        assert refused.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="it broke") as refused:
            await at.client.chat("m", HELLO)
        assert refused.value.status_code == 502
        stream = await at.client.chat("m", HELLO, stream=True)
        assert (await anext(stream)).message.content == "so far"
        with pytest.raises(ollama.ResponseError, match="it broke"):  # an error after the first line is a line
            await anext(stream)
        for path, data in (("/api/chat", b"{"), ("/api/chat", b""), ("/api/generate", b'{"model": 5}')):
            async with at.http.post(path, data=data) as answer:
                assert answer.status == 400
                assert set(await answer.json()) == {"error"}
        async with at.http.get("/api/chat") as answer:
            assert (answer.status, set(await answer.json())) == (405, {"error"})


async def _post(at: House, path: str, body: Any) -> None:
    async with at.http.post(path, json=body) as answer:
        raise ollama.ResponseError(await answer.text(), answer.status)


async def test_a_client_that_leaves_ends_its_task() -> None:
    engine = hangs("text")
    async with house(engine) as at:
        stream = await at.client.chat("m", HELLO, stream=True)
        assert (await anext(stream)).message.content == "text"
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)


async def test_silence_is_a_line_that_says_nothing() -> None:
    go_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await go_on.wait()
        yield Delta("at last", "", "stop", USAGE)

    async with house(ScriptedEngine(script), keep_alive=0.05) as at:
        stream = await at.client.chat("m", HELLO, stream=True)
        first = await anext(stream)
        assert (first.message.content, first.done) == ("", False)
        go_on.set()
        rest = [each async for each in stream]
        assert "".join(each.message.content or "" for each in rest) == "at last"
        assert rest[-1].done


async def test_keys_and_headers_count_as_for_chats() -> None:
    engine = says(Delta("x", "", "stop", USAGE))
    async with house(engine, key="alice", access=KnownKeys(alice="use")) as at:
        assert (await at.client.chat("m", HELLO)).message.content == "x"
        assert engine.tasks[-1].tenant == "alice"
        for key in ("wrong", ""):
            headers = {"Authorization": f"Bearer {key}"} if key else {"Authorization": ""}
            async with at.http.get("/api/tags", headers=headers) as answer:
                assert answer.status == 401
                assert set(await answer.json()) == {"error"}
        body = {"model": "m", "messages": HELLO, "stream": False}
        headers = {"x-anywire-priority": "3", "x-anywire-explain": "true", "Idempotency-Key": "one"}
        told = []
        for _ in range(2):
            async with at.http.post("/api/chat", json=body, headers=headers) as answer:
                told.append((answer.headers["x-anywire-task"], answer.headers.get("x-anywire-replayed")))
                assert "x-anywire-decision" in answer.headers
        assert told == [(told[0][0], None), (told[0][0], "true")]
        async with at.http.post("/api/generate", json=body | {"prompt": "x"}, headers=headers) as answer:
            assert answer.status == 422, "another request with that key"
        async with at.http.post("/api/chat", json=body, headers={"x-anywire-background": "true"}) as answer:
            assert "x-anywire-background" in (await answer.json())["error"]
