"""What a client asks reaches the server, and what the server answers reaches the client, member by member.

The official client → gateway → orchestrator → memory transport → agent → engine ``openai`` → a server of this test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from tests.integration.gateway_serving import Served, serving

from anywire_engine_openai import OpenAIEngine

JSON = dict[str, Any]


class Server:
    """An OpenAI server that gives the answer a test sets; ``requests`` are the bodies it got, as text."""

    def __init__(self) -> None:
        self.answer: JSON = {}
        self.events: list[JSON] = []
        self.requests: list[str] = []
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m"}]})

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.text())
        if not json.loads(self.requests[-1])["stream"]:
            return web.json_response(self.answer)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in self.events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def carried(**engine: Any) -> AsyncIterator[tuple[Server, Served, openai.AsyncOpenAI]]:
    server = Server()
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/{path:.*}", server.post)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        config = OpenAIEngine.Config(base_url=server.url, refresh_interval=0, **engine)
        async with serving(OpenAIEngine(config)) as served, served.client() as client:
            yield server, served, client
    finally:
        await runner.cleanup()


ASK: list[Any] = [{"role": "user", "content": "x"}]

# Requests

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Rome", "Köln"]}}, "required": ["city"]}
REQUEST: JSON = {
    "messages": [
        {"role": "developer", "content": "be brief", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this? 😀 \u2028"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"file_id": "f1"}},
                {"type": "video_url", "video_url": {"url": "https://x/v.mp4"}, "fps": 2.50},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "1+1"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12°"}]},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "content": "", "refusal": None, "audio": {"id": "a1"}, "reasoning_content": "hm"},
        {"role": "user", "content": "and now?"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}},
        {"type": "custom", "custom": {"name": "run", "format": {"type": "text"}}},
    ],
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
    "logprobs": True,
    "top_logprobs": 3,
    "n": 2,
    "stop": ["\n\n", "END"],
    "seed": 2**53 + 1,
    "temperature": 0.10,
    "top_p": 1,
    "max_completion_tokens": 77,
    "presence_penalty": -0.5,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "mp3"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "flex",
    "store": False,
    "metadata": {"k": "v"},
    "user": "u",
    "web_search_options": {"search_context_size": "low"},
}
EXTRA = {"min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}, "guided_json": None, "big": 10**30}
CHOICES: list[Any] = [
    "auto",
    "none",
    "required",
    {"type": "function", "function": {"name": "weather"}},
    {"type": "custom", "custom": {"name": "run"}},
    {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}},
]
FORMATS: list[Any] = [
    REQUEST["response_format"],
    {"type": "json_object", "schema": SCHEMA},
    {"type": "text"},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("choice", "form"), [*((each, FORMATS[0]) for each in CHOICES), ("auto", FORMATS[1]),
                                              ("auto", FORMATS[2])])  # fmt: skip
async def test_a_request_arrives_with_every_member(stream: bool, choice: Any, form: Any) -> None:
    fields = REQUEST | {"tool_choice": choice, "response_format": form, "stream": stream}
    options = {"stream_options": {"include_usage": True, "include_obfuscation": False, "x": 1}} if stream else {}
    async with carried() as (server, _, client):
        server.answer, server.events = TOOLS, TOOLS_STREAM
        create: Any = client.chat.completions.create
        answer = await create(model="m", **fields, **options, extra_body=EXTRA)
        if stream:
            assert [event async for event in answer]
        (sent,) = map(json.loads, server.requests)
        assert sent == {"model": "m"} | fields | options | EXTRA


async def test_numbers_and_escapes_arrive_as_they_were_written() -> None:
    members = (
        '"messages":[{"role":"user","content":"\\u00e9\\ud83d\\ude00"}],"temperature":0.10,"seed":9007199254740993,'
        '"mine":[1e3, 1.50,-0.0]'
    )
    async with carried() as (server, served, _), aiohttp.ClientSession() as session:
        server.answer = TOOLS
        headers = {"Content-Type": "application/json"}
        body = f'{{"model":"m",{members}}}'
        async with session.post(f"{served.url}/v1/chat/completions", data=body.encode(), headers=headers) as response:
            assert response.status == 200
        assert members in server.requests[0]


# Answers

LOGPROBS = {
    "content": [
        {"token": "é", "logprob": -0.25, "bytes": [195, 169],
         "top_logprobs": [{"token": "e", "logprob": -1.5, "bytes": None}]}
    ],
    "refusal": None,
}  # fmt: skip
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": 1},
    "cost": 0.25,
}


def whole(*choices: JSON, **more: Any) -> JSON:
    head = {"id": "x", "object": "chat.completion", "created": 7, "model": "m"}
    return head | {"choices": list(choices), "usage": USAGE} | more


def message(index: int = 0, finish: str | None = "stop", logprobs: Any = None, **members: Any) -> JSON:
    content = {"role": "assistant", "content": None, **members}
    return {"index": index, "message": content, "logprobs": logprobs, "finish_reason": finish}


def call(**members: Any) -> JSON:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}, **members}


TOOLS = whole(message(tool_calls=[call(), call(id="c2")], refusal=None, annotations=[], finish="tool_calls"))
ANSWERS: dict[str, JSON] = {
    "plain": whole(message(content="Hello é\u2028")),
    "plain, with empty members": whole(message(content="Hello", refusal=None, annotations=[], tool_calls=[])),
    "cut off": whole(message(content="Hel", finish="length")),
    "tool calls": TOOLS,
    "a custom tool": whole(
        message(
            tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "run", "input": "1"}}], finish="tool_calls"
        )
    ),
    "a function call": whole(message(function_call={"name": "f", "arguments": "{}"}, finish="function_call")),
    "log probabilities": whole(message(content="é", logprobs=LOGPROBS)),
    "two choices": whole(
        message(content="a", logprobs=LOGPROBS), message(1, content="b", finish="length"), prompt_logprobs=[None, {}]
    ),
    "choices out of order": whole(message(1, content="b"), message(0, content="a", finish="content_filter")),
    "a refusal": whole(message(refusal="I cannot", finish="stop")),
    "audio": whole(message(audio={"id": "a", "data": "UklGRg==", "expires_at": 9, "transcript": "hi"})),
    "reasoning": whole(message(content="4", reasoning_content="2+2", reasoning="2+2")),
    "annotations": whole(message(content="x", annotations=[{"type": "url_citation", "url_citation": {"url": "u"}}])),
    "unknown members": whole(
        message(content="x", mine={"deep": [1.5, None]}) | {"stop_reason": 17, "content_filter_results": {"hate": 0}},
        system_fingerprint="fp_1",
        service_tier="default",
        kv_transfer_params={"a": [1]},
    ),
}


def said(value: Any) -> Any:
    """``value`` without members that are null: to be absent means the same."""
    if isinstance(value, dict):
        return {key: said(each) for key, each in value.items() if each is not None}
    return [said(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_whole_answer_comes_back_equal(name: str) -> None:
    async with carried() as (server, _, client):
        server.answer = ANSWERS[name]
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=ASK)
        assert said(json.loads(raw.content) | {"id": "x", "created": 7}) == said(ANSWERS[name])


async def test_a_whole_completion_comes_back_equal() -> None:
    logprobs = {"tokens": ["é"], "token_logprobs": [-0.5], "top_logprobs": [{"é": -0.5}], "text_offset": [0]}
    choice = {"index": 0, "text": "é", "finish_reason": "length", "prompt_logprobs": [None], "logprobs": logprobs}
    async with carried() as (server, _, client):
        server.answer = {**whole(choice, choice | {"index": 1}, system_fingerprint="f"), "object": "text_completion"}
        raw = await client.completions.with_raw_response.create(model="m", prompt=["a", "b"], logprobs=1, echo=True)
        assert said(json.loads(raw.content) | {"id": "x", "created": 7}) == said(server.answer)
        sent = json.loads(server.requests[0])
        assert sent == {"model": "m", "prompt": ["a", "b"], "logprobs": 1, "echo": True, "stream": False}


def chunk(*choices: JSON, **more: Any) -> JSON:
    return {"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": list(choices), **more}


def delta(index: int = 0, finish: str | None = None, logprobs: Any = None, **members: Any) -> JSON:
    return {"index": index, "delta": members, "logprobs": logprobs, "finish_reason": finish}


def part(index: int, **members: Any) -> JSON:
    return {"index": index, **members}


END = chunk(usage=USAGE)
TOOLS_STREAM = [
    chunk(delta(role="assistant", content=None)),
    chunk(delta(tool_calls=[part(0, id="c1", type="function", function={"name": "f", "arguments": ""})])),
    chunk(delta(tool_calls=[part(0, function={"arguments": '{"a"'})])),
    chunk(delta(tool_calls=[part(0, function={"arguments": ': "é"}'})])),
    chunk(delta(tool_calls=[part(1, id="c2", type="function", function={"name": "g", "arguments": "{}"})])),
    chunk(delta(finish="tool_calls")),
    END,
]
STREAMS: dict[str, list[JSON]] = {
    "plain": [chunk(delta(role="assistant", content="")), chunk(delta(content="a")), chunk(delta(content="é\u2028")),
              chunk(delta(finish="length")), END],
    "a last event with everything": [chunk(delta(role="assistant", content="a")),
                                     chunk(delta(content="b", finish="stop"), usage=USAGE)],
    "tool calls": TOOLS_STREAM,
    "text, then a tool call": [chunk(delta(role="assistant", content="let me")), *TOOLS_STREAM[1:]],
    "log probabilities": [chunk(delta(role="assistant", content="")), chunk(delta(content="é", logprobs=LOGPROBS)),
                          chunk(delta(content="", logprobs=LOGPROBS)), chunk(delta(finish="stop")), END],
    "two choices": [chunk(delta(role="assistant")), chunk(delta(1, role="assistant")), chunk(delta(content="a")),
                    chunk(delta(1, content="b")), chunk(delta(content="c"), delta(1, content="d", logprobs=LOGPROBS)),
                    chunk(delta(1, finish="length")), chunk(delta(content="e")), chunk(delta(finish="stop")), END],
    "choices that end together": [chunk(delta(content="a"), delta(1, content="b")),
                                  chunk(delta(finish="stop"), delta(1, finish="content_filter")), END],
    "a refusal": [chunk(delta(role="assistant", content=None, refusal="I ")), chunk(delta(refusal="cannot")),
                  chunk(delta(finish="stop")), END],
    "audio": [chunk(delta(role="assistant", audio={"id": "a"})), chunk(delta(audio={"data": "UklG"})),
              chunk(delta(audio={"expires_at": 9})), chunk(delta(finish="stop")), END],
    "reasoning": [chunk(delta(role="assistant", reasoning_content="2+2")), chunk(delta(reasoning="2")),
                  chunk(delta(content="4")), chunk(delta(finish="stop")), END],
    "a function call": [chunk(delta(function_call={"name": "f", "arguments": ""})),
                        chunk(delta(function_call={"arguments": "{}"})), chunk(delta(finish="function_call")), END],
    "unknown members": [chunk(delta(role="assistant", content=""), system_fingerprint="fp", obfuscation="ab"),
                        chunk(delta(content="a", mine=[1.50, {"x": None}]), system_fingerprint="fp"),
                        chunk(delta(content="b") | {"stop_reason": 17}, system_fingerprint="fp"),
                        chunk(delta(content="c"), system_fingerprint="fp", service_tier="default"),
                        chunk(delta(finish="stop"), system_fingerprint="fp", service_tier="default"),
                        chunk(usage=USAGE, system_fingerprint="fp", timings={"a": [1]})],
}  # fmt: skip
HEAD = {"id", "object", "created", "model", "choices", "usage", "obfuscation"}


def told(events: list[JSON]) -> Any:
    """What a stream says: of each choice its steps in order and its role, and what stands beside the choices."""
    steps: dict[int, list[Any]] = {}
    roles: dict[int, str] = {}
    beside: JSON = {}
    for event in said(events):
        beside |= {key: value for key, value in event.items() if key not in HEAD}
        if event.get("usage"):
            beside["usage"] = event["usage"]
        for choice in event["choices"]:
            index, content = choice.pop("index"), choice.pop("delta")
            role = content.pop("role", None)
            assert index not in roles or role is None, "a role twice"
            roles.setdefault(index, role or "assistant")
            finish = choice.pop("finish_reason", None)
            if content.get("content") == "" and not choice:
                del content["content"]
            steps.setdefault(index, []).extend([step for step in (content | choice, finish) if step])
    return steps, roles, beside


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_comes_back_equal(name: str) -> None:
    async with carried() as (server, _, client):
        server.events = STREAMS[name]
        options: Any = {"model": "m", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
        came = [event async for event in await client.chat.completions.create(**options)]
        assert told([event.to_dict(mode="json") for event in came]) == told(server.events)
        assert came[0].choices[0].delta.role == "assistant"
        assert [event for event in came if not event.choices] == came[-1:]


@pytest.mark.parametrize("name", STREAMS)
async def test_without_include_usage_no_event_is_without_choices(name: str) -> None:
    async with carried() as (server, _, client):
        server.events = STREAMS[name]
        events = await client.chat.completions.create(model="m", messages=ASK, stream=True)
        came = [event.to_dict(mode="json") async for event in events]
        assert all(event["choices"] and "usage" not in event for event in came)
        assert told(came)[:2] == told(server.events)[:2]


@pytest.mark.parametrize("name", ["tool calls", "text, then a tool call", "log probabilities", "a refusal", "audio",
                                  "a last event with everything", "reasoning", "unknown members"])  # fmt: skip
async def test_the_official_accumulator_sees_no_difference(name: str) -> None:
    async def final(client: openai.AsyncOpenAI) -> Any:
        options: Any = {"model": "m", "messages": ASK, "stream_options": {"include_usage": True}}
        async with client.chat.completions.stream(**options) as stream:
            completion: JSON = (await stream.get_final_completion()).to_dict(mode="json")
        return said(completion | {"id": "", "created": 0})

    async with (
        carried() as (server, _, client),
        openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as direct,
    ):
        server.events = STREAMS[name]
        assert await final(client) == await final(direct)


async def test_a_unary_answer_put_together_from_a_stream() -> None:
    async with carried(always_stream=True) as (server, _, client):
        server.events = TOOLS_STREAM
        answer = await client.chat.completions.create(model="m", messages=ASK)
        calls: list[Any] = answer.choices[0].message.tool_calls or []
        assert [(each.id, each.function.arguments) for each in calls] == [("c1", '{"a": "é"}'), ("c2", "{}")]
        server.events = STREAMS["unknown members"]
        answer = await client.chat.completions.create(model="m", messages=ASK)
        assert (answer.system_fingerprint, answer.service_tier) == ("fp", "default")
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("abc", "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_members_beside_the_choices_are_no_answer_by_themselves(stream: bool) -> None:
    async with carried() as (server, _, client):
        server.answer = whole(message(content=None, annotations=[]), system_fingerprint="f") | {"usage": None}
        server.events = [chunk(delta(role="assistant"), system_fingerprint="f"), chunk(delta(finish="stop"), a=1)]
        with pytest.raises(openai.InternalServerError, match="without a single token"):
            await client.chat.completions.create(model="m", messages=ASK, stream=stream)
