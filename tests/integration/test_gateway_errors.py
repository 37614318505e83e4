"""What the OpenAI gateway refuses, and how: statuses, OpenAI's error form, and a server that stays usable."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import msgspec
import pytest
from tests.patience import FACTOR

from anywire import errors
from anywire.access import OpenAccess
from anywire.boundary import Boundary
from anywire.caller import OPERATOR, Caller
from anywire.clock import SystemClock
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.messages import Chunk
from anywire.route import Routes
from anywire.stages import Stages
from anywire.submission import Submission
from anywire.tracing import Tracing
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig

LIMIT = 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=20 * FACTOR)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


class FakeStream:
    """A task stream that gives what the test says: chunks or an error, one at a time."""

    task_id = "task1"
    agent_id = "agent\r\nx-injected: 1"
    transport = "fake"
    model = "m"
    attempts = 1
    ignored: tuple[str, ...] = ()

    def __init__(self, script: list[Chunk | Exception]) -> None:
        self.script = list(script)
        self.stages = Stages()
        self.cancelled = ""

    async def take(self) -> list[Chunk]:
        return [self._next()] if self.script else []

    async def take_passing(self, pass_on: Callable[[list[Chunk]], bool]) -> list[Chunk]:
        return await self.take()

    async def result(self) -> Chunk:
        return self._next()

    progress = None

    def on_progress(self, callback: Any) -> None: ...

    def cancel(self, reason: str) -> None:
        self.cancelled = reason

    def _next(self) -> Chunk:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class NoServices:
    def get(self, name: str) -> None:
        return None


class FakeOrchestrator:
    closing = False
    transports = ()
    services = NoServices()

    access = OpenAccess()
    clock = SystemClock()

    def __init__(self) -> None:
        self.events = EventBus(Boundary())
        self.tracing = Tracing(Boundary())
        self.routes = Routes()
        self.refuses: Exception | None = None
        self.script: list[Chunk | Exception] = [Chunk("h", "task1", 1, 0, ("hi",), final=True, finish_reason="stop")]
        self.submitted: list[Submission] = []
        self.streams: list[FakeStream] = []

    def submit(self, submission: Submission) -> FakeStream:
        if self.refuses is not None:
            raise self.refuses
        self.submitted.append(submission)
        self.streams.append(FakeStream(self.script))
        return self.streams[-1]

    def agents(self) -> list[Any]:
        return []

    def models(self) -> list[str]:
        return []

    def offers(self, caller: Caller) -> dict[str, Any]:
        return {}

    def stats(self) -> dict[str, Any]:
        return {"tasks": {"queued": 0, "running": 0, "ended": {}}}


class Front:
    def __init__(self, orchestrator: FakeOrchestrator, session: aiohttp.ClientSession, url: str) -> None:
        self.orchestrator, self.session, self.url = orchestrator, session, url
        self.port = int(url.rpartition(":")[2])

    async def post(
        self, body: Any, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], aiohttp.typedefs.LooseHeaders]:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **(headers or {})}
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, await response.json(), response.headers

    async def refused(self, body: Any, path: str = "/v1/chat/completions") -> dict[str, Any]:
        """The error of a 400; that nothing was submitted and that the next request is answered."""
        before = len(self.orchestrator.submitted)
        status, answer, headers = await self.post(body, path)
        assert status == 400, answer
        assert cast("dict[str, str]", headers)["x-should-retry"] == "false"
        assert answer["error"].keys() == {"message", "type", "param", "code"}
        assert answer["error"]["type"] == "invalid_request_error"
        assert len(self.orchestrator.submitted) == before
        assert (await self.post(CHAT))[0] == 200
        return cast("dict[str, Any]", answer["error"])

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own; what comes back until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(20 * FACTOR):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    orchestrator = FakeOrchestrator()
    gateway = OpenAIGateway(OpenAIGatewayConfig(port=0, max_body_bytes=LIMIT, body_timeout=0.3))
    await gateway.start(cast("Context", orchestrator))
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        yield Front(orchestrator, session, gateway.address)
    await gateway.close()


# Requests that are not what OpenAI defines: (fields to set, param, what the message says)

BAD_CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"model": 3}, "model", "a string, got an integer"),
    ({"messages": None}, "messages", "a list"),
    ({"messages": "hello"}, "messages", "a list, got a string"),
    ({"messages": ["hello"]}, "messages[0]", "an object, got a string"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "required"),
    ({"messages": [{"role": "", "content": "x"}]}, "messages[0].role", "at least 1 character"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "a string or a list"),
    ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content", "a string or a list"),
    ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls", "a list, got an object"),
    ({"temperature": True}, "temperature", "a number, got a boolean"),
    ({"temperature": "1"}, "temperature", "a number, got a string"),
    ({"n": True}, "n", "a number, got a boolean"),
    ({"stream": 1}, "stream", "true or false, got an integer"),
    ({"stream": "yes"}, "stream", "true or false, got a string"),
    ({"stop": 1}, "stop", "a string or a list"),
    ({"stop": ["a", 1]}, "stop[1]", "a string"),
    ({"seed": "x"}, "seed", "a number"),
    ({"tools": {}}, "tools", "a list, got an object"),
    ({"tools": ["f"]}, "tools[0]", "an object, got a string"),
    ({"tool_choice": 1}, "tool_choice", "a string or an object"),
    ({"response_format": "json"}, "response_format", "an object, got a string"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "true or false"),
    ({"models": ["a"] * 9}, "models", "at most 8"),
    ({"messages": [{"role": "user", "content": "a\ud83e"}]}, "messages[0].content", "half a surrogate pair"),
    ({"metadata": {"a": ["\udde0"]}}, "metadata.a[0]", "half a surrogate pair"),
]


@pytest.mark.parametrize(("fields", "param", "says"), BAD_CHAT, ids=lambda value: str(value)[:60])
async def test_bad_chat_requests(front: Front, fields: dict[str, Any], param: str, says: str) -> None:
    error = await front.refused(CHAT | fields)
    assert error["param"] == param
    assert param in error["message"]
    assert says in error["message"]


BAD_TEXT: list[tuple[str, dict[str, Any], str, str]] = [
    ("completions", {}, "prompt", "required"),
    ("completions", {"prompt": {}}, "prompt", "a string, or a list"),
    ("completions", {"prompt": None}, "prompt", "a string, or a list"),
    ("completions", {"prompt": "x", "logprobs": "1"}, "logprobs", "got a string"),
    ("completions", {"prompt": "x\udde0 y"}, "prompt", "half a surrogate pair"),
    ("embeddings", {}, "input", "required"),
    ("embeddings", {"input": "a", "encoding_format": 1}, "encoding_format", "a string"),
    ("embeddings", {"input": "a", "dimensions": "8"}, "dimensions", "a number"),
    ("embeddings", {"input": "a\ud83e"}, "input", "half a surrogate pair"),
]


@pytest.mark.parametrize(("path", "fields", "param", "says"), BAD_TEXT, ids=lambda value: str(value)[:60])
async def test_bad_completion_and_embedding_requests(
    front: Front, path: str, fields: dict[str, Any], param: str, says: str
) -> None:
    error = await front.refused({"model": "m"} | fields, f"/api/v1/{path}")
    assert error["param"] == param
    assert says in error["message"]


_TEXT = json.dumps(CHAT)[:-1].encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "line 1 column 2"),
        (b"[]", "an object, got a list"),
        (b"null", "an object, got null"),
        (b"hello", "not valid JSON"),
        (_TEXT, "not valid JSON"),
        (_TEXT + b"} {}", "Extra data"),
        (b"\xef\xbb\xbf" * 2 + _TEXT + b"}", "not valid JSON"),
        (_TEXT + b', "x": NaN}', "NaN"),
        (_TEXT + b', "top_p": Infinity}', "Infinity"),
        (_TEXT + b', "x": "\\ud800"}', "surrogate"),
        (_TEXT + b', "n": 1e999}', "out of range"),
        (_TEXT + b', "x": "\xff"}', "not UTF-8"),
        (_TEXT + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (_TEXT + b', "model": "other"}', "more than once"),
        (_TEXT + b',"mod\\u0065l":"other"}', "more than once"),
        (json.dumps(CHAT, separators=(",", ":"))[:-1].encode() + b',"stream":true,"stream":false}', "more than once"),
        (b'{"model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}', "more than once"),
    ],
)
async def test_bodies_that_are_no_proper_json(front: Front, body: bytes, says: str) -> None:
    assert says in (await front.refused(body))["message"]


async def test_unusual_but_valid_requests_pass(front: Front) -> None:
    for fields in [
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "custom": {}, "type": "custom"}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": 1}]}]},
        {"temperature": 0, "top_p": 1, "n": None, "stop": [], "seed": -(2**63), "tools": [], "top_k": -1},
        {"model": "\u00fc\u2028/x"},
        # What is the engine's to say, or to know
        {"messages": []},
        {"messages": [{"role": "user"}, {"role": "assistant", "content": None, "reasoning_content": "hm"}]},
        {"messages": [{"role": "system", "content": []}, {"role": "tool", "content": None}]},
        {"messages": [{"role": "ipython", "content": "x"}]},
        {"messages": [{"role": "user", "content": ["x", {"text": "x"}, {"type": "image_url", "image_url": "y"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]},
        {"max_tokens": -1, "max_completion_tokens": 5.0, "n": 1.0, "seed": 2**63, "stop": ["a"] * 17},
        {"temperature": 2.1, "top_p": 1.5, "presence_penalty": 3, "frequency_penalty": -3, "top_logprobs": 21},
        {"logit_bias": [[1, False]], "logprobs": 1, "user": 1, "metadata": {"a": 1}, "tool_choice": "maybe"},
        {"tools": [{"type": "function"}], "response_format": {"type": "structural_tag"}, "stream_options": {}},
        {"messages": [{"role": "user", "content": "\\ud83e \U0001f9e0"}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
    ]:
        for separators in [(",", ":"), (", ", ": "), (" ,\n", "\t: ")]:
            body = json.dumps(CHAT | cast("dict[str, Any]", fields), separators=separators).encode()
            assert (await front.post(body))[0] == 200
            assert front.orchestrator.submitted[-1].body == body.decode()


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-anywire-timeout", value) for value in ("soon", "0", "-1", "nan", "inf", "86401", "")]
    + [("x-anywire-priority", value) for value in ("high", "1.5", "1001", "-1001", "", "9" * 5000, "1_0")]
    + [("x-anywire-attempts", value) for value in ("0", "-1", "101", "two", "")]
    + [("x-anywire-progress", value) for value in ("yes", "", "2")]
    + [
        (f"x-anywire-{name}", value)
        for name in ("session", "parent", "policy")
        for value in ("", "x" * 257, "a\u200bb", "a\u2028b")
    ]
    + [
        (f"x-anywire-{name}", value)
        for name in ("prefer", "avoid")
        for value in (",".join(map(str, range(65))), "a," + "x" * 257, "a\u200b")
    ]
    + [
        ("x-anywire-hints", value)
        for value in (
            "urgent",
            "=1",
            "a=" + "x" * 129,
            "x" * 129 + "=1",
            ",".join(f"a{each}=1" for each in range(17)),
            "a=\u200b",
            "{",
            "{}x",
            '{"a": [1]}',
            '{"a": true}',
            '{"a": null}',
            '{"a": {"b": 1}}',
            '{"a": 1' + "0" * 400 + "}",
            '{"' + "x" * 129 + '": 1}',
            '{"": 1}',
            '{"a": ' + "[" * 3000,
        )
    ],
)
async def test_bad_headers(front: Front, header: str, value: str) -> None:
    status, answer, _ = await front.post(CHAT, headers={header: value})
    assert (status, answer["error"]["param"]) == (400, header)
    assert header in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 400
    assert front.orchestrator.submitted == []


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({"x-anywire-timeout": "1.5"}, {"deadline_s": 1.5}),
        ({"x-anywire-priority": "-7"}, {"priority": -7}),
        ({"x-anywire-session": "talk 1/ü"}, {"session": "talk 1/ü"}),
        ({"x-anywire-parent": "abc"}, {"parent": "abc"}),
        ({"x-anywire-parent": "chatcmpl-abc"}, {"parent": "abc"}),
        ({"x-anywire-policy": "cheap"}, {"policy": "cheap"}),
        ({"x-anywire-prefer": "a, b,,a"}, {"prefer": ("a", "b")}),
        ({"x-anywire-avoid": "a-1"}, {"avoid": ("a-1",)}),
        ({"x-anywire-avoid": " , "}, {}),
        ({"x-anywire-attempts": "2"}, {"attempts_left": 2}),
        (
            {"x-anywire-hints": "urgency=0.5, task_type = chat, n=3, odd=nan, eq=a=b, none="},
            {"hints": {"urgency": 0.5, "task_type": "chat", "n": 3, "odd": "nan", "eq": "a=b", "none": ""}},
        ),
        ({"x-anywire-hints": '{"a": "b, c", "n": -1e3}'}, {"hints": {"a": "b, c", "n": -1000.0}}),
        ({"x-anywire-hints": ""}, {}),
        ({"X-ANYWIRE-SESSION": "s", "x-anywire-progress": "false"}, {"session": "s"}),
        ({"x-anywire-progress": "true"}, {}),  # a whole answer tells none
    ],
)
async def test_headers_go_into_the_task(front: Front, headers: dict[str, str], fields: dict[str, Any]) -> None:
    assert (await front.post(CHAT, headers=headers))[0] == 200
    (submitted,) = front.orchestrator.submitted
    assert submitted == msgspec.structs.replace(Submission("chat", "m", submitted.body, caller=OPERATOR), **fields)


async def test_only_a_stream_is_asked_for_progress(front: Front) -> None:
    data = json.dumps(CHAT | {"stream": True})
    headers = {"Content-Type": "application/json", "x-anywire-progress": "1"}
    async with front.session.post(f"{front.url}/v1/chat/completions", data=data, headers=headers) as response:
        assert response.status == 200
    assert front.orchestrator.submitted[0].progress


async def test_further_models_are_checked_and_passed_on(front: Front) -> None:
    for models in ([], ["a"], None, [f"m{each}" for each in range(8)]):
        assert (await front.post(CHAT | {"models": models}))[0] == 200
        assert json.loads(front.orchestrator.submitted[-1].body)["models"] == models
    for wrong in ("a", [""], [1], [f"m{each}" for each in range(9)]):
        assert (await front.refused(CHAT | {"models": wrong}))["param"].startswith("models")


async def test_an_invalid_trace_context_is_ignored(front: Front) -> None:
    valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for wrong in ("nonsense", f"{valid}-{'x' * 300}", f"{valid}-a\tb"):  # what no agent would take
        assert (await front.post(CHAT, headers={"traceparent": wrong}))[0] == 200
        assert front.orchestrator.submitted[-1].trace == ""


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 200, None),
        ("HEAD", "/", 200, None),
        ("POST", "/v1/chat", 404, None),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("OPTIONS", "/v1/models", 204, "GET"),
        ("OPTIONS", "/v1/nothing", 404, None),
        ("PUT", "/api/v1/tasks/x", 405, "GET, DELETE"),
        ("DELETE", "/v1/models/x", 405, "GET"),
    ],
)
async def test_paths_and_methods(front: Front, method: str, path: str, status: int, allow: str | None) -> None:
    async with front.session.request(method, front.url + path) as response:
        assert response.status == status
        assert response.headers.get("Allow") == allow
        if status >= 400:
            assert (await response.json())["error"]["code"] in ("not_found", "method_not_allowed")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_other_media_types(front: Front, media_type: str) -> None:
    status, answer, _ = await front.post(CHAT, headers={"Content-Type": media_type})
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer["error"]["message"]
    assert (await front.post(CHAT, headers={"Content-Type": "Application/JSON; charset=UTF-8"}))[0] == 200


# Bodies of the wrong size


async def test_20_megabytes_are_refused_and_the_server_stays_usable(front: Front) -> None:
    status, answer, headers = await front.post(_TEXT + b" " * 20_000_000 + b"}")
    assert (status, answer["error"]["code"]) == (413, "payload_too_large")
    assert str(LIMIT) in answer["error"]["message"]
    assert cast("dict[str, str]", headers)["x-should-retry"] == "false"
    assert (await front.post(CHAT))[0] == 200
    assert (await front.post(_TEXT + b" " * (LIMIT - len(_TEXT) - 1) + b"}"))[0] == 200
    assert (await front.post(_TEXT + b" " * (LIMIT - len(_TEXT)) + b"}"))[0] == 413


async def test_a_chunked_body_over_the_limit_is_refused(front: Front) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000_000

    headers = {"Content-Type": "application/json"}
    async with front.session.post(f"{front.url}/v1/chat/completions", data=pieces(), headers=headers) as response:
        assert response.status == 413
    assert (await front.post(CHAT))[0] == 200


async def test_a_compressed_body_counts_as_what_it_unpacks_to(front: Front) -> None:
    packed = gzip.compress(_TEXT + b" " * 20_000_000 + b"}")
    assert len(packed) < LIMIT
    assert (await front.post(packed, headers={"Content-Encoding": "gzip"}))[0] == 413
    small = gzip.compress(json.dumps(CHAT).encode())
    assert (await front.post(small, headers={"Content-Encoding": "gzip"}))[0] == 200
    status, answer, _ = await front.post(b"not gzip", headers={"Content-Encoding": "gzip"})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_content_length_that_lies(front: Front) -> None:
    body = json.dumps(CHAT).encode()
    # Shorter than the body: what is over is no request.
    answer = await front.exchange(_HEAD + b"Content-Length: 10\r\n\r\n" + body)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b'"code":"invalid_request"' in answer
    # Longer: the rest never comes.
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(_HEAD + b"Content-Length: 1000\r\n\r\n" + body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in await reader.readuntil(b"}}")
    writer.close()
    await writer.wait_closed()
    # Far longer: refused before anything is read.
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(_HEAD + b"Content-Length: 99999999999\r\n\r\n" + body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()
    assert (await front.post(CHAT))[0] == 200


async def test_what_is_no_http_is_answered_in_the_same_form(front: Front) -> None:
    for data in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
        head, _, body = (await front.exchange(data)).partition(b"\r\n\r\n")
        assert b" 400 " in head
        assert json.loads(body)["error"]["code"] == "invalid_request"


async def test_a_client_may_ask_before_it_sends(front: Front) -> None:
    body = json.dumps(CHAT).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    answer = await front.exchange(_HEAD + b"Connection: close\r\nExpect: magic\r\nContent-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 417 ")


# Errors of the pipeline

STATUS = {
    "error": 500, "bad_config": 500, "unknown_plugin": 500, "transport_error": 502, "transport_unavailable": 503,
    "agent_unavailable": 503, "agent_lost": 502, "payload_too_large": 413, "congested": 503, "task_error": 502,
    "invalid_request": 400, "model_not_found": 404, "queue_full": 429, "deadline_too_short": 429, "no_agent": 503,
    "refused": 503, "shutting_down": 503,
    "deadline_exceeded": 504, "cancelled": 499, "reader_stalled": 408, "stream_corrupted": 502, "engine_failed": 502,
    "plugin_failed": 500, "no_progress": 504, "model_stopped": 409, "forbidden": 403, "unknown_command": 404,
    "launch_failed": 500, "unauthenticated": 401, "limit_reached": 429,
}  # fmt: skip
FINAL = {"invalid_request", "model_not_found", "payload_too_large", "cancelled", "deadline_exceeded", "reader_stalled",
         "model_stopped", "forbidden", "unknown_command", "unauthenticated"}  # fmt: skip
TOLD = {"error": "internal_error", "unauthenticated": "invalid_api_key"}


@pytest.mark.parametrize("code", sorted({*errors.BY_CODE, *STATUS} - {""}))
@pytest.mark.parametrize("where", ["submit", "unary", "stream"])
async def test_every_error_has_its_status(front: Front, code: str, where: str) -> None:
    error: AnywireError = errors.BY_CODE[code]("it is so", task_id="task1", param="field")
    if where == "submit":
        front.orchestrator.refuses = error
    front.orchestrator.script = [error]
    status, answer, headers = await front.post(CHAT | {"stream": where == "stream"})
    found = cast("dict[str, str]", headers)
    assert status == STATUS[code]
    assert answer["error"]["message"] == "it is so"
    assert answer["error"]["param"] == "field"
    assert answer["error"]["code"] == TOLD.get(code, code)
    assert ("WWW-Authenticate" in found) == (status == 401)
    assert found.get("x-should-retry") == ("false" if code in FINAL else None)
    assert ("Retry-After" in found) == (status in (429, 503))
    assert found["x-anywire-task"] == "task1"
    assert found["x-anywire-origin"] == error.origin
    assert "x-injected" not in found


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (7.0, "7"), (7.01, "8"), (1e8, "86400"), (0.0, None)])
@pytest.mark.parametrize("stream", [False, True])
async def test_when_to_come_back_is_told_rounded_up(
    front: Front, stream: bool, seconds: float, header: str | None
) -> None:
    front.orchestrator.script = [errors.EngineFailed("busy", status=429, retry_after=seconds)]
    status, _, headers = await front.post(CHAT | {"stream": stream})
    assert (status, cast("dict[str, str]", headers).get("Retry-After")) == (429, header or "1")
    front.orchestrator.script = [errors.EngineFailed("busy", status=500, retry_after=seconds)]
    status, _, headers = await front.post(CHAT | {"stream": stream})
    assert (status, cast("dict[str, str]", headers).get("Retry-After")) == (502, header)


async def test_those_for_whom_the_queue_is_full_are_told_one_of_two_seconds_at_random(front: Front) -> None:
    front.orchestrator.script = [errors.QueueFull("full", retry_after=2.5)]
    told = [cast("dict[str, str]", (await front.post(CHAT))[2]) for _ in range(40)]
    assert {each["Retry-After"] for each in told} == {"3", "4"}
    assert {each["retry-after-ms"] for each in told} == {"2500"}


async def test_what_the_engine_said_besides_is_in_the_error(front: Front) -> None:
    said = {"n_ctx": 5, "innererror": {"a": [1]}, "message": "no", "code": "no", "type": "no", "param": "no"}
    front.orchestrator.script = [errors.InvalidRequest("too long", param="p", status=400, members=said)]
    _, answer, _ = await front.post(CHAT)
    assert answer["error"] == {
        "n_ctx": 5,
        "innererror": {"a": [1]},
        "message": "too long",
        "type": "no",
        "param": "p",
        "code": "invalid_request",
    }
    for members in ({"a": "\ud800"}, {"a": object()}, {1: 2, (3,): 4}):
        front.orchestrator.script = [errors.EngineFailed("oh", members=members)]  # type: ignore[arg-type]
        status, answer, _ = await front.post(CHAT)
        assert (status, answer["error"]["message"]) == (502, "oh")


async def test_an_error_within_a_stream_says_where_it_arose(front: Front) -> None:
    front.orchestrator.script = [
        Chunk("h", "task1", 1, 0, ("hi",)),
        errors.EngineFailed("oh", origin="agent", members={"free": 3, "origin": "no"}),
    ]
    async with front.session.post(f"{front.url}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        event = (await response.text()).strip().rpartition("\n\n")[2]
    error = json.loads(event.removeprefix("data: "))["error"]
    assert (error["origin"], error["free"], error["code"]) == ("agent", 3, "engine_failed")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_had_no_effect_is_named(front: Front, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for ignored, header in (((), None), (("priority",), "priority")):
        monkeypatch.setattr(FakeStream, "ignored", ignored)
        data = json.dumps(CHAT | {"stream": stream})
        headers = {"Content-Type": "application/json"}
        async with front.session.post(f"{front.url}/v1/chat/completions", data=data, headers=headers) as response:
            assert response.status == 200
            assert response.headers.get("x-anywire-ignored") == header


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_s_own_refusal_passes_through(front: Front, stream: bool) -> None:
    front.orchestrator.script = [errors.InvalidRequest("slow down", status=429, param="p", detail_code="rate")]
    status, answer, headers = await front.post(CHAT | {"stream": stream})
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (429, "p", "rate")
    assert "x-should-retry" not in cast("dict[str, str]", headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_of_ours_tells_no_secrets(front: Front, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    front.orchestrator.script = [RuntimeError("secret")]
    status, answer, _ = await front.post(CHAT | {"stream": stream})
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer["error"]["message"]
    assert "secret" in caplog.text


BROKEN = [
    Chunk("h", "task1", 1, 1, ("",), extra='[{"index":0,'),
    Chunk("h", "task1", 1, 1, ("",), extra='{"index":0}'),
    Chunk("h", "task1", 1, 1, final=True, usage="{"),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_an_agent_sends_as_json_is_not_trusted(front: Front, broken: Chunk) -> None:
    request = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    front.orchestrator.script = [broken]
    status, answer, _ = await front.post(CHAT)
    assert (status, answer["error"]["code"]) == (502, "stream_corrupted")
    assert (await front.post(request))[0] == 502
    assert front.orchestrator.streams[-1].cancelled
    front.orchestrator.script = [Chunk("h", "task1", 1, 0, ("one",)), broken]
    headers = {"Content-Type": "application/json"}
    async with front.session.post(f"{front.url}/v1/chat/completions", json=request, headers=headers) as response:
        assert response.status == 200
        assert response.headers["x-anywire-agent"] == "agent??x-injected: 1"
        events = (await response.text()).split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "stream_corrupted"
    assert front.orchestrator.streams[-1].cancelled


async def test_a_stream_that_ends_too_early_is_an_error(front: Front) -> None:
    front.orchestrator.script = []
    status, answer, _ = await front.post(CHAT | {"stream": True})
    assert (status, answer["error"]["code"]) == (502, "stream_corrupted")


def test_settings_are_checked() -> None:
    for wrong in (
        {"port": 70000},
        {"port": -1},
        {"host": ""},
        {"body_timeout": 0},
        {"body_timeout": math.nan},
        {"prt": 1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OpenAIGatewayConfig(**cast("dict[str, Any]", wrong))
