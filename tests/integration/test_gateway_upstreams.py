"""The gateway, the pipeline and engines together: what a server says and does, as a client sees it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest

from anywire.engine import Delta, Engine, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire_engine_openai import OpenAIEngine

from .fake_openai_server import DONE, FakeServer, answering, saying
from .gateway_serving import MESSAGES, ScriptedEngine, Served, joined, says, serving

CHAT = {"model": "m", "messages": MESSAGES}


def fails(status: int, retry_after: float = 0.0) -> ScriptedEngine:
    return says(then=EngineFailed("oh", phase="maybe_sent", status=status, retry_after=retry_after))


@asynccontextmanager
async def served_by(*engines: Engine, **gateway: Any) -> AsyncIterator[Served]:
    """A fleet of an agent for each engine."""
    async with serving(engines[0], **gateway) as served, joined(served, engines):
        yield served


async def post(
    url: str, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession(url) as client, client.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


# Busy servers


@pytest.mark.parametrize(("status", "told"), [(429, 429), (503, 503), (504, 504), (529, 503), (500, 502), (401, 502)])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_busy_server_is_told_as_one_with_the_longest_pause(status: int, told: int, stream: bool) -> None:
    engines = [fails(status, 7), fails(status, 3), fails(status)]
    async with served_by(*engines) as served:
        found, _, headers = await post(served.url, CHAT | {"stream": stream})
        assert (found, headers["Retry-After"], headers["x-anywire-attempts"]) == (told, "7", "3")
        assert [len(engine.tasks) for engine in engines] == [1, 1, 1]
        # Retries of clients do not multiply with those that were made already.
        assert headers.get("x-should-retry") == ("false" if told == 502 else None)


@pytest.mark.parametrize("status", [500, 504])
async def test_nobody_is_told_to_try_again_what_failed_everywhere(status: int) -> None:
    async with served_by(fails(status), fails(status)) as served:
        _, _, headers = await post(served.url, CHAT)
        assert (headers["x-anywire-attempts"], headers["x-should-retry"]) == ("2", "false")
        assert "Retry-After" not in headers


async def test_the_official_clients_retries_do_not_multiply_with_the_pipelines() -> None:
    engines = [fails(500) for _ in range(3)]
    async with served_by(*engines) as served, served.client().with_options(max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="m", messages=MESSAGES)
    assert sum(len(engine.tasks) for engine in engines) == 3


async def test_a_busy_server_is_no_matter_while_another_one_answers() -> None:
    async with served_by(fails(429, 7), fails(503), says("x")) as served:
        for _ in range(4):
            assert (await post(served.url, CHAT))[0] == 200


async def test_of_four_agents_three_that_always_fail_cost_few_requests() -> None:
    bad = [fails(500) for _ in range(3)]
    async with served_by(*bad, says("x")) as served:
        statuses = [(await post(served.url, CHAT))[0] for _ in range(20)]
        # Each bad one may fail three times before it rests, and every request has three attempts.
        assert statuses.count(200) >= 17
        assert statuses[-5:] == [200] * 5


# Silence


async def test_comments_keep_a_silent_stream_alive_from_before_its_first_token() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await go.wait()
        go.clear()
        yield Delta("x")
        await go.wait()
        yield Delta("y", finish_reason="stop")

    async with serving(ScriptedEngine(script), keep_alive=0.02) as served:
        raw = await served.raw(CHAT | {"stream": True})
        head = await raw.reader.readuntil(b": keep-alive\n\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"data:" not in head
        await raw.reader.readuntil(b": keep-alive\n\n")
        go.set()
        await raw.reader.readuntil(b'"x"')
        await raw.reader.readuntil(b": keep-alive\n\n")
        go.set()
        assert b'"y"' in await raw.reader.readuntil(b"data: [DONE]\n\n")
        await raw.close()


async def test_the_official_client_passes_over_comments_and_an_early_error_has_its_status() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await go.wait()
        yield Delta("x", finish_reason="stop")

    async with serving(ScriptedEngine(script), keep_alive=0.01) as served, served.client() as client:
        asked = asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        events = await asked
        go.set()
        assert "".join([each.choices[0].delta.content or "" async for each in events]) == "x"
    async with serving(says(then=InvalidRequest("no", status=400)), keep_alive=10) as served, served.client() as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)


async def test_an_error_after_the_first_comment_is_an_event() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await go.wait()
        if go.is_set():
            raise EngineFailed("oh")
        yield Delta()

    async with serving(ScriptedEngine(script), keep_alive=0.01) as served:
        raw = await served.raw(CHAT | {"stream": True})
        await raw.reader.readuntil(b": keep-alive\n\n")
        go.set()
        await raw.reader.readuntil(b'"message":"oh"')
        await raw.close()


@pytest.mark.parametrize("asked", [True, False])
async def test_stage_times_come_only_when_asked_for(asked: bool) -> None:
    headers = {"x-anywire-stages": "true"} if asked else {}
    async with serving(says("x")) as served:
        _, text, _ = await post(served.url, CHAT | {"stream": True}, **headers)
        assert [line[:11] for line in text.splitlines() if line.startswith(":")] == ([": anywire {"] if asked else [])
        assert all(event.startswith(("data: ", ": anywire")) for event in text.split("\n\n") if event)


# Answers in the form that was asked for


NUMBERS = [0.5, -1.25, 3.0]
AS_BASE64 = base64.b64encode(struct.pack("<3f", *NUMBERS)).decode()


@pytest.mark.parametrize("given", [NUMBERS, AS_BASE64])
async def test_embeddings_have_the_encoding_that_was_asked_for(given: Any) -> None:
    data = [{"object": "embedding", "index": at, "embedding": given} for at in range(2)]
    async with serving(says(Delta("", json.dumps(data), "stop"))) as served, served.client() as client:
        for encoding, wanted in (("base64", AS_BASE64), ("float", NUMBERS), (None, NUMBERS)):
            body = {"model": "m", "input": ["a", "b"]} | ({"encoding_format": encoding} if encoding else {})
            _, text, _ = await post(served.url, body, "/v1/embeddings")
            assert [each["embedding"] for each in json.loads(text)["data"]] == [wanted, wanted]
        official = await client.embeddings.create(model="m", input=["a", "b"])  # asks for base64 by itself
        assert [each.embedding for each in official.data] == [NUMBERS, NUMBERS]


@pytest.mark.parametrize("given", [NUMBERS, AS_BASE64])
async def test_dimensions_that_are_not_honoured_are_an_error(given: Any) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": given}]
    async with serving(says(Delta("", json.dumps(data), "stop"))) as served:
        status, text, _ = await post(served.url, {"model": "m", "input": "a", "dimensions": 8}, "/v1/embeddings")
        error = json.loads(text)["error"]
        assert (status, error["param"]) == (400, "dimensions")
        assert "gives 3, and cannot give 8" in error["message"]
        assert (await post(served.url, {"model": "m", "input": "a", "dimensions": 3}, "/v1/embeddings"))[0] == 200


async def test_embeddings_of_another_form_pass() -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [[1.0, 2.0], [3.0, 4.0]]}]
    async with serving(says(Delta("", json.dumps(data), "stop"))) as served:
        body = {"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 2}
        status, text, _ = await post(served.url, body, "/v1/embeddings")
        assert (status, json.loads(text)["data"]) == (200, data)


async def test_what_an_engine_did_not_follow_is_named() -> None:
    async with serving(says("x")) as served:
        _, _, headers = await post(served.url, CHAT | {"n": 2, "logprobs": True})
        assert headers["x-anywire-ignored"] == "n, logprobs"
        _, _, headers = await post(served.url, CHAT | {"n": 1, "logprobs": False})
        assert "x-anywire-ignored" not in headers
    choices = [{"index": at, "message": {"content": "x"}, "logprobs": {"content": []}} for at in range(2)]
    async with serving(says(Delta("x", json.dumps(choices), "stop"))) as served:
        _, _, headers = await post(served.url, CHAT | {"n": 2, "logprobs": True})
        assert "x-anywire-ignored" not in headers


# A real engine behind


@asynccontextmanager
async def fronting(server: FakeServer, **options: Any) -> AsyncIterator[Served]:
    engine = OpenAIEngine(OpenAIEngine.Config(base_url=server.url, refresh_interval=0, **options))
    async with serving(engine) as served:
        yield served


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    fake.models = {"data": [{"id": "m"}]}
    await fake.up()
    yield fake
    await fake.down()


async def test_an_error_body_keeps_the_numbers_and_the_type(server: FakeServer) -> None:
    numbers = {"type": "exceed_context_size_error", "n_prompt_tokens": 5031, "n_ctx": 512}
    server.handler = saying(400, {"error": {"code": 400, "message": "too long", **numbers}})
    async with fronting(server) as served:
        status, text, headers = await post(served.url, CHAT)
        error = json.loads(text)["error"]
        assert (status, error["code"], headers["x-should-retry"]) == (400, "context_length_exceeded", "false")
        assert numbers.items() <= error.items()


async def test_an_image_for_a_model_of_texts_is_the_requests_fault(server: FakeServer) -> None:
    server.handler = saying(500, {"error": {"message": "image input is not supported - hint: mmproj", "code": 500}})
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    async with fronting(server) as served:
        status, text, _ = await post(served.url, CHAT | {"messages": [{"role": "user", "content": [part]}]})
        assert status == 400
        assert str(server.port) not in text


async def test_every_engine_says_which_values_do(server: FakeServer) -> None:
    body = CHAT | {
        "max_tokens": -1, "stop": ["a"] * 17, "temperature": 3, "response_format": {"type": "structural_tag"},
        "messages": [{"role": "assistant", "content": None, "reasoning_content": "hm"}, {"role": "user"}],
    }  # fmt: skip
    async with fronting(server) as served:
        assert (await post(served.url, body))[0] == 200
        assert {name: server.requests[-1][name] for name in body} == body


async def test_embeddings_are_served_without_a_setting(server: FakeServer) -> None:
    server.handler = saying(200, {"data": [{"embedding": NUMBERS, "index": 0}]})
    async with fronting(server) as served, served.client() as client:
        answer = await client.embeddings.create(model="m", input="a", encoding_format="float")
        assert answer.data[0].embedding == NUMBERS
    server.handler = saying(404, {"error": {"message": "no such path"}})
    async with fronting(server) as served, served.client() as client:
        with pytest.raises(openai.NotFoundError, match="no such path"):
            await client.embeddings.create(model="m", input="a")


async def test_a_request_without_a_model_is_for_the_only_one(server: FakeServer) -> None:
    async with fronting(server) as served:
        for body in (
            {"messages": MESSAGES},
            {"messages": MESSAGES, "model": None},
            {"messages": MESSAGES, "model": ""},
        ):
            assert (await post(served.url, body))[0] == 200
            assert server.requests[-1]["model"] == "m"


async def test_several_prompts_are_several_choices(server: FakeServer) -> None:
    def part(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    server.handler = answering(
        b"data: null\n\n", part(1, "y"), part(0, "x"), part(1, "", "stop"), part(0, "", "stop"), DONE
    )
    async with fronting(server, always_stream=True) as served, served.client() as client:
        answer = await client.completions.create(model="m", prompt=["a", "b"])
        assert [(each.index, each.text) for each in answer.choices] == [(0, "x"), (1, "y")]


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_first_token_of_a_silent_server_another_agent_is_asked(
    server: FakeServer, stream: bool
) -> None:
    server.handler = server.wait_for_ever
    config = OpenAIEngine.Config(base_url=server.url, refresh_interval=0, first_token_timeout=0.05)
    good = says("x")
    async with served_by(OpenAIEngine(config), good) as served:
        headers = {"x-anywire-prefer": "agent-1"}
        status, text, told = await post(served.url, CHAT | {"stream": stream}, **headers)
        assert (status, told["x-anywire-attempts"], '"x"' in text) == (200, "2", True)
        await server.gone.wait()


async def test_one_request_is_executed_once_where_a_server_breaks_down_over_it(server: FakeServer) -> None:
    async def handler(asked: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        assert asked.transport is not None
        asked.transport.close()
        return await server.wait_for_ever(asked)

    async with fronting(server) as served:
        assert (await post(served.url, CHAT))[0] == 200  # leaves a kept connection behind
        before = len(server.requests)
        server.handler = handler
        status, _, headers = await post(served.url, CHAT)
        assert (status, len(server.requests) - before, headers["x-anywire-attempts"]) == (502, 2, "2")
        status, _, _ = await post(served.url, CHAT, **{"x-anywire-attempts": "1"})
        assert len(server.requests) - before <= 4
