"""The routes of an agent's models: what they answer, whom they let in, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.models.simulated_models import BROKEN, FAULT, LINES, MODELS, SimulatedModels
from tests.patience import PATIENCE

from anywire.engine import Delta, EngineProgress
from anywire.errors import ConfigError, EngineFailed, ShuttingDown
from anywire.messages import TaskRequest
from anywire.testing.patience import expect, polled
from anywire_engine_models.host.status import ModelStatus
from anywire_engine_models.local_api import server
from anywire_engine_models.local_api.records import records_folder, running_apis
from anywire_engine_models.local_api.server import LocalApi
from anywire_engine_models.local_api.telling import READ_AHEAD, Telling, Tellings

ONE, TWO, _ = MODELS
ASKED: dict[str, Any] = {"model": TWO, "messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def serving(engine: SimulatedModels) -> AsyncIterator[LocalApi]:
    api = LocalApi(engine, engine.listen)
    await api.begin()
    try:
        yield api
    finally:
        await expect(api.close(), "the server of the routes is closed")


def client_of(api: LocalApi, **headers: str) -> httpx.AsyncClient:
    shown = {"authorization": f"Bearer {api.token}", **headers}
    return httpx.AsyncClient(
        base_url=api.address, headers={k: v for k, v in shown.items() if v}, timeout=PATIENCE, trust_env=False
    )


@pytest.fixture
async def engine() -> AsyncIterator[SimulatedModels]:
    engine = SimulatedModels()
    yield engine
    await expect(engine.idle.wait(), "everything that was asked of the engine has ended")
    assert not engine.listeners


@pytest.fixture
async def api(engine: SimulatedModels) -> AsyncIterator[LocalApi]:
    before = asyncio.all_tasks()
    async with serving(engine) as api:
        yield api
    for _ in range(10):
        await asyncio.sleep(0)  # clients that were left in the middle are closed
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, left


@pytest.fixture
async def client(api: LocalApi) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(api) as client:
        yield client


def events_in(text: str) -> list[tuple[str, Any]]:
    """Name and data of each event; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] not in ("", ":"))
        if fields:
            found.append((fields.get("event", ""), json.loads(fields["data"]) if fields["data"] != "[DONE]" else None))
    return found


async def lines_of(answer: httpx.Response) -> AsyncGenerator[str, None]:
    async for line in answer.aiter_lines():
        yield line


# Models


async def test_the_list_has_every_model_with_all_of_its_status(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/models")).json()
    assert [each["id"] for each in told["data"]] == list(MODELS)
    assert {name for each in told["data"] for name in ModelStatus.__struct_fields__ if name not in each} == {"exit"}
    assert told["data"][0]["state"] == "stopped"
    assert told["memory"]["budget_bytes"] == 12 * 10**9
    assert len(told["devices"]) == 1
    assert told["devices"][0]["simulated"] is True
    assert told["registry"]["fault"] == FAULT


async def test_a_model_is_started_pinned_and_stopped(client: httpx.AsyncClient) -> None:
    started = (await client.post(f"/v1/models/{ONE}/start")).json()
    assert (started["id"], started["state"], started["device"]) == (ONE, "running", "cpu")
    assert (await client.get(f"/v1/models/{ONE}")).json() == started | {"context": 4096, "digest": "sha256:00"}
    assert (await client.post(f"/v1/models/{ONE}/pin")).json()["pinned"] is True
    refused = await client.post(f"/v1/models/{ONE}/unload")
    assert refused.status_code == 400
    assert "unpin it first" in refused.json()["error"]["message"]
    assert (await client.post(f"/v1/models/{ONE}/pin", json={"pinned": False})).json()["pinned"] is False
    assert (await client.post(f"/v1/models/{ONE}/unload")).json()["state"] == "stopped"
    assert (await client.post(f"/v1/models/{ONE}/stop")).json()["state"] == "stopped"


async def test_a_start_is_told_as_events(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"/v1/models/{ONE}/start", headers={"accept": "text/event-stream"})
    told = events_in(answer.text)
    assert [each["state"] for _, each in told[:-1]] == ["starting", "starting", "running"]
    assert told[1][1]["progress"] == 0.5
    assert told[-1] == ("end", {})


async def test_a_start_that_fails_is_an_error_that_says_why(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"/v1/models/{BROKEN}/start")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_failed"
    assert "killed by SIGKILL" in answer.json()["error"]["message"]
    status = (await client.get(f"/v1/models/{BROKEN}")).json()
    assert (status["state"], status["exit"]["lines"]) == ("crashed", ["loading", "out of memory"])
    streamed = await client.post(f"/v1/models/{BROKEN}/start", headers={"accept": "text/event-stream"})
    name, last = events_in(streamed.text)[-1]
    assert (streamed.status_code, name, last["error"]["code"]) == (200, "error", "engine_failed")


async def test_models_are_added_and_imported(client: httpx.AsyncClient) -> None:
    added = await client.post("/v1/models", json={"full_identifier": "a:b/c:1", "settings": {"on_demand": True}})
    assert (added.json()["id"], added.json()["on_demand"]) == ("a:b/c:1", True)
    # An id with a slash is found, encoded or not.
    for path in ("a:b%2Fc:1", "a:b/c:1"):
        assert (await client.get(f"/v1/models/{path}")).json()["id"] == "a:b/c:1"
        assert (await client.post(f"/v1/models/{path}/start")).json()["state"] == "running"
    imported = (await client.post("/v1/models/import", json={"kind": "gguf", "path": "/m"})).json()
    assert imported["added"] == ["local:three:1", "local:four:1"]
    assert imported["skipped"] == [{"about": "/m", "text": "it is no GGUF file"}]
    assert imported["present"] == []


async def test_a_client_that_goes_away_ends_what_it_asked_for(
    client: httpx.AsyncClient, engine: SimulatedModels
) -> None:
    engine.go_on = asyncio.Event()
    events = {"accept": "text/event-stream"}
    async with client.stream("POST", f"/v1/models/{ONE}/start", headers=events) as answer:
        assert await anext(lines_of(answer))
        assert engine.under_way == 1
    await expect(engine.idle.wait(), "the start is cancelled")


# Logs


async def test_a_log_is_told_whole_and_followed(client: httpx.AsyncClient, engine: SimulatedModels) -> None:
    told = (await client.get(f"/v1/models/{ONE}/logs?lines=2")).json()
    assert (told["model"], told["lines"]) == (ONE, list(LINES[-2:]))
    assert (await client.get(f"/v1/models/{ONE}/logs?after={told['after']}")).json() == {"model": ONE, "lines": []}
    async with client.stream("GET", f"/v1/models/{ONE}/logs?follow=1&lines=1") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (line async for line in answer.aiter_lines() if line.startswith("data: "))
        assert json.loads((await anext(lines))[6:]) == {"line": LINES[-1], "id": told["after"]}
        engine.log.add("more")
        assert json.loads((await anext(lines))[6:])["line"] == "more"
    await expect(engine.idle.wait(), "the log is followed no more")


async def events_of(client: httpx.AsyncClient, path: str, count: int, **headers: str) -> list[str]:
    """The first lines of a stream of events that say something."""
    async with client.stream("GET", path, headers=headers) as answer:
        lines = (line async for line in answer.aiter_lines() if line.strip(": "))
        return [await anext(lines) for _ in range(count)]


async def test_a_log_that_is_followed_goes_on_after_the_last_event(
    client: httpx.AsyncClient, engine: SimulatedModels
) -> None:
    path = f"/v1/models/{ONE}/logs?follow=1&lines=1"
    position, data = await events_of(client, path, 2)
    assert position.startswith("id: ")
    assert json.loads(data.removeprefix("data: "))["line"] == LINES[-1]
    for number in range(3):
        engine.log.add(str(number))
    again = {"last-event-id": position.removeprefix("id: ")}
    found = await events_of(client, path, 6, **again)
    assert [json.loads(line.removeprefix("data: "))["line"] for line in found[1::2]] == ["0", "1", "2"]
    assert len(set(found[::2])) == 3
    for number in range(3, 2003):
        engine.log.add(str(number))
    name, data, newest, line = await events_of(client, path, 4, **again)
    assert (name, json.loads(data.removeprefix("data: "))) == ("event: missed", {"missed": 1003})
    assert json.loads(line.removeprefix("data: ")) == {"line": "1003", "id": newest.removeprefix("id: ")}
    assert await events_of(client, f"{path}&after=0-1", 2) == ["event: reset", 'data: {"reset":true}']
    assert (await client.get(f"{path}&after={'x' * 100}")).status_code == 400


async def test_logs_that_are_followed_take_no_place_of_other_commands(
    engine: SimulatedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_FOLLOWED", 2)
    monkeypatch.setattr(server, "MAX_ANSWERS", 2)
    path, command = f"/v1/models/{ONE}/logs?follow=1", {"model": ONE, "lines": 5, "follow": True}
    async with serving(engine) as api, client_of(api) as client, AsyncExitStack() as followed:
        for request in (client.stream("GET", path), client.stream("POST", "/v1/commands/models.logs", json=command)):
            assert (await followed.enter_async_context(request)).status_code == 200
        for refused in (await client.get(path), await client.post("/v1/commands/models.logs", json=command)):
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
        assert (await client.post(f"/v1/models/{ONE}/stop")).json()["state"] == "stopped"


@pytest.mark.parametrize(
    ("query", "status"),
    [("?follow=maybe", 400), ("?lines=-1", 400), ("?lines=99999999999999", 400), ("?follow=1", 404)],
)
async def test_a_log_that_cannot_be_told_is_an_error(client: httpx.AsyncClient, query: str, status: int) -> None:
    answer = await client.get(f"/v1/models/{'nope' if status == 404 else ONE}/logs{query}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


# Events


async def test_changes_are_told_and_resumed(client: httpx.AsyncClient, engine: SimulatedModels) -> None:
    async with client.stream("GET", "/v1/events") as answer:
        lines = lines_of(answer)
        assert await anext(lines) == ":"
        engine.change(ONE, "starting")
        engine.change(ONE, "running")
        seen = []
        async for line in lines:
            seen.append(line)
            if line.startswith("data: ") and '"running"' in line:
                break
    first = next(line for line in seen if line.startswith("id: "))[4:]
    told = events_in("\n".join(seen))
    assert [(name, each["previous"], each["state"]) for name, each in told[:1]] == [
        ("model.changed", "stopped", "starting")
    ]
    engine.change(ONE, "stopping")
    async with client.stream("GET", "/v1/events", headers={"last-event-id": first}) as answer:
        states = []
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:])["state"])
                if states == ["running", "stopping"]:
                    break


async def test_a_position_that_is_not_kept_is_said(client: httpx.AsyncClient, engine: SimulatedModels) -> None:
    async with client.stream("GET", "/v1/events?after=00000000-17") as answer:
        lines = lines_of(answer)
        assert [await anext(lines) for _ in range(3)] == [":", "", "event: reset"]
    assert (await client.get(f"/v1/events?after={'x' * 100}")).status_code == 400


# Chat


async def test_a_chat_is_answered_whole(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/chat/completions", json=ASKED)).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "one two three"}
    assert choice["finish_reason"] == "length"
    assert (answer["object"], answer["model"], answer["usage"]["total_tokens"]) == ("chat.completion", TWO, 4)


async def test_a_chat_is_streamed(client: httpx.AsyncClient) -> None:
    asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post("/v1/chat/completions", json=asked, headers={"x-anywire-progress": "true"})
    assert answer.text.startswith(f": progress loading {TWO}\n\n")
    assert answer.text.endswith("data: [DONE]\n\n")
    told = [each for _, each in events_in(answer.text)][:-1]
    deltas = [choice["delta"] for each in told for choice in each["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert not any("role" in delta for delta in deltas[1:])
    assert "".join(delta.get("content", "") for delta in deltas) == "one two three"
    assert [choice["finish_reason"] for each in told for choice in each["choices"]] == [None, None, None, "length"]
    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["total_tokens"] == 4
    assert len({each["id"] for each in told}) == 1


async def test_openais_own_client_lists_and_chats(api: LocalApi) -> None:
    async with openai.AsyncOpenAI(base_url=f"{api.address}/v1", api_key=api.token, max_retries=0) as client:
        assert [each.id async for each in client.models.list()] == list(MODELS)
        stream = await client.chat.completions.create(**ASKED, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == "one two three"
        with pytest.raises(openai.ConflictError, match="anywire models start"):
            await client.chat.completions.create(**ASKED | {"model": ONE})


async def test_tool_calls_are_passed_on(client: httpx.AsyncClient, engine: SimulatedModels) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    async def calls(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        member = "delta" if task.stream else "message"
        choice = {"index": 0, member: {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}
        yield Delta(extra=json.dumps({"choices": [choice], "system_fingerprint": "f1", "id": "other"}))

    engine.script = calls
    whole = (await client.post("/v1/chat/completions", json=ASKED)).json()
    assert whole["choices"][0]["message"]["tool_calls"] == [call]
    assert whole["system_fingerprint"] == "f1"
    assert whole["id"].startswith("chatcmpl-")
    streamed = await client.post("/v1/chat/completions", json=ASKED | {"stream": True})
    (told, done) = [each for _, each in events_in(streamed.text)]
    assert told["choices"][0]["delta"] == {"role": "assistant", "tool_calls": [call]}
    assert done is None


async def test_a_chat_to_a_stopped_model_is_refused_at_once(client: httpx.AsyncClient) -> None:
    for stream in (False, True):
        answer = await client.post("/v1/chat/completions", json=ASKED | {"model": ONE, "stream": stream})
        assert answer.status_code == 409
        assert answer.headers["x-should-retry"] == "false"
        assert f"anywire models start {ONE}" in answer.json()["error"]["message"]


async def test_an_answer_that_breaks_off_ends_with_its_error(
    client: httpx.AsyncClient, engine: SimulatedModels
) -> None:
    async def broken(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("one")
        raise EngineFailed("its server ended")

    engine.script = broken
    streamed = await client.post("/v1/chat/completions", json=ASKED | {"stream": True})
    told = [each for _, each in events_in(streamed.text)]
    assert streamed.status_code == 200
    assert told[-1]["error"]["message"] == "its server ended"
    assert "[DONE]" not in streamed.text
    assert (await client.post("/v1/chat/completions", json=ASKED)).status_code == 502


@pytest.mark.parametrize("stream", [False, True])
async def test_nonsense_of_the_engine_harms_its_request_alone(
    client: httpx.AsyncClient, engine: SimulatedModels, stream: bool
) -> None:
    async def raising(task: TaskRequest) -> AsyncGenerator[Any, None]:
        if task.model:
            raise TimeoutError("of its own")
        yield

    async def unreadable(task: TaskRequest) -> AsyncGenerator[Any, None]:
        yield Delta(extra="{")

    async def other(task: TaskRequest) -> AsyncGenerator[Any, None]:
        yield "text"

    for script, status in ((raising, 500), (unreadable, 502), (other, 502)):
        engine.script = script
        answer = await client.post("/v1/chat/completions", json=ASKED | {"stream": stream})
        assert (answer.status_code, "of its own" in answer.text) == (status, False)
    for nonsense in ("text", {"state": "running"}, {"model": ONE, "more": object()}, object()):
        engine.nonsense = nonsense
        answer = await client.get(f"/v1/models/{ONE}")
        assert answer.status_code == 500, answer.text
        assert answer.json()["error"]["code"] == "internal_error"
    assert (await client.get("/v1/models")).status_code == 200


async def test_a_client_that_hangs_up_ends_its_answer(client: httpx.AsyncClient, engine: SimulatedModels) -> None:
    async def endless(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("one")
        await asyncio.Event().wait()

    engine.script = endless
    async with client.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as answer:
        assert await anext(lines_of(answer))
        assert engine.under_way == 1
    await expect(engine.idle.wait(), "the answer is cancelled")
    whole = asyncio.create_task(client.post("/v1/chat/completions", json=ASKED))
    await polled(lambda: engine.under_way, "the whole answer begins")
    whole.cancel()
    await expect(engine.idle.wait(), "the whole answer is cancelled")
    with pytest.raises(asyncio.CancelledError):
        await whole


async def test_a_slow_client_holds_its_answer_back_and_no_other(
    client: httpx.AsyncClient, engine: SimulatedModels
) -> None:
    yielded = 0

    async def flood(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        nonlocal yielded
        while True:
            yielded += 1
            yield Delta("x" * 100_000)

    words, engine.script = engine.script, flood
    async with client.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as answer:
        assert await anext(answer.aiter_raw(1))
        engine.script = words
        assert (await client.post("/v1/chat/completions", json=ASKED)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200
        assert yielded < 1000, "what nobody reads is not made"
    await expect(engine.idle.wait(), "the flood is cancelled")


async def read_out(telling: Telling[int]) -> None:
    while True:
        await telling.next()


async def test_what_is_read_ahead_and_open_is_bounded() -> None:
    made = 0

    async def numbers() -> AsyncGenerator[int, None]:
        nonlocal made
        while True:
            made += 1
            yield made

    tellings = Tellings(1)
    async with tellings.open(numbers()) as telling:
        assert await telling.next() == 1
        for _ in range(100):
            await asyncio.sleep(0)
        assert made <= READ_AHEAD + 2
        with pytest.raises(Exception, match="1 requests are being answered already"):
            tellings.open(numbers())
        tellings.stop()
        with pytest.raises(ShuttingDown):
            await read_out(telling)
    with pytest.raises(ShuttingDown):
        tellings.open(numbers())


# Who is let in


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": ""}, 401, "unauthenticated"),
        ({"authorization": "Bearer nope"}, 401, "unauthenticated"),
        ({"authorization": "Basic bm9wZQ=="}, 401, "unauthenticated"),
        ({"authorization": "Bearer \xe9"}, 401, "unauthenticated"),
        ({"host": "models.example.org"}, 403, "host_not_allowed"),
        ({"host": "127.0.0.1.example.org:80"}, 403, "host_not_allowed"),
        ({"host": "[::"}, 403, "host_not_allowed"),
        ({"origin": "https://example.org"}, 403, "origin_not_allowed"),
        ({"origin": "null"}, 403, "origin_not_allowed"),
        ({"origin": "https://localhost.example.org"}, 403, "origin_not_allowed"),
    ],
)
async def test_strangers_are_refused(api: LocalApi, headers: dict[str, str], status: int, code: str) -> None:
    shown = {"authorization": f"Bearer {api.token}"} | headers
    sent = [(name.encode(), value.encode("latin-1")) for name, value in shown.items() if value]
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = await client.send(httpx.Request("GET", f"{api.address}/v1/models", headers=sent))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert api.token not in answer.text
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://localhost:5173", "tauri://localhost", "http://tauri.localhost"])
async def test_pages_of_this_machine_are_let_in_with_the_token(api: LocalApi, origin: str) -> None:
    async with client_of(api, origin=origin) as client:
        asked = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
        before = await client.options(f"/v1/models/{ONE}/start", headers=asked | {"authorization": ""})
        assert (before.status_code, before.headers["access-control-allow-methods"]) == (204, "POST")
        assert before.headers["access-control-allow-private-network"] == "true"
        for answer in (
            await client.get("/v1/models"),
            await client.get("/v1/models/nope"),
            await client.post(f"/v1/models/{ONE}/start", headers={"accept": "text/event-stream"}),
        ):
            assert answer.headers["access-control-allow-origin"] == origin
        assert (await client.get("/v1/models", headers={"authorization": ""})).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
async def test_it_listens_on_loopback_alone(engine: SimulatedModels, host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        await LocalApi(engine, engine.listen, host=host).begin()


async def test_a_port_in_use_is_named_and_leaves_nothing(api: LocalApi, engine: SimulatedModels) -> None:
    port = int(api.address.rpartition(":")[2])
    other = LocalApi(engine, engine.listen, port=port)
    with pytest.raises(ConfigError, match=rf"port {port}.*engine.local_api.port"):
        await other.begin()
    assert len(engine.listeners) == 1
    assert [each.url for each in running_apis()] == [api.address]


# What is wrong is said


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/models/nope", "", 404, "model_not_found"),
        ("POST", "/v1/models/nope/start", "", 404, "model_not_found"),
        ("GET", "/", "", 404, "not_found"),
        ("DELETE", f"/v1/models/{ONE}", "", 405, "method_not_allowed"),
        ("POST", "/v1/models", "{", 400, "invalid_request"),
        ("POST", "/v1/models", "[]", 400, "invalid_request"),
        ("POST", "/v1/models", " " * 70_000, 413, "payload_too_large"),
        ("POST", "/v1/commands/nope", "", 404, "unknown_command"),
        ("POST", "/v1/commands/models.start", "{}", 400, "invalid_request"),
        ("POST", "/v1/chat/completions", "", 400, "invalid_request"),
        ("POST", "/v1/chat/completions", '{"model": "m", "messages": []}', 400, "invalid_request"),
        ("POST", "/v1/chat/completions", '{"model": "m", "messages": [{}]}', 404, "model_not_found"),
    ],
)
async def test_a_wrong_request_is_an_error_in_openais_form(
    client: httpx.AsyncClient, method: str, path: str, body: str, status: int, code: str
) -> None:
    answer = await client.request(method, path, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert error["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_what_is_no_http_is_answered_and_closed(api: LocalApi) -> None:
    host, port = api.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    said = await expect(reader.read(), "the connection is closed")
    assert b" 400 " in said.split(b"\r\n")[0]
    assert b'"error"' in said
    writer.close()
    await writer.wait_closed()


NAMES = "v1 models commands chat completions start stop unload pin logs import models.list models.pin %2F %00 .. é"
PARTS = st.sampled_from([*NAMES.split(), *MODELS, ""])
REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "PUT"]),
    st.lists(PARTS, max_size=4),
    st.sampled_from(["", "?lines=3", "?lines=x", "?follow=0", "?after=%00"]),
    st.sampled_from([b"", b"{}", b"{", b"[1]", b"\xff", json.dumps(ASKED).encode(), b'{"model": 3, "messages": 3}']),
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=8))
def test_every_request_is_answered(requests: list[tuple[str, list[str], str, bytes]]) -> None:
    async def ask() -> None:
        engine = SimulatedModels()
        async with serving(engine) as api, client_of(api) as client:
            for method, parts, query, body in requests:
                path = "/v1/" + "/".join(parts) + query
                answer = await client.request(method, path, content=body)
                # A model that crashes in its start is no fault of the routes; everything else is an answer.
                assert answer.status_code < 500 or "killed by SIGKILL" in answer.text, (method, path, answer.text)
                if answer.status_code >= 400:
                    assert answer.json()["error"]["message"]
        assert not engine.under_way

    asyncio.run(ask())


# Begin and end


async def test_closing_ends_what_is_under_way(engine: SimulatedModels) -> None:
    async def endless(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("one")
        await asyncio.Event().wait()

    engine.script = endless
    before = asyncio.all_tasks()
    async with serving(engine) as api, client_of(api) as client:

        async def read(method: str, path: str, **more: Any) -> str:
            async with client.stream(method, path, **more) as answer:
                begun.release()
                return (await answer.aread()).decode()

        begun = asyncio.Semaphore(0)
        asked = [
            asyncio.create_task(read("GET", "/v1/events")),
            asyncio.create_task(read("GET", f"/v1/models/{ONE}/logs?follow=1")),
            asyncio.create_task(read("POST", "/v1/chat/completions", json=ASKED | {"stream": True})),
        ]
        for _ in asked:
            await expect(begun.acquire(), "its answer begins")
        await expect(api.close(), "the server is closed")
        events, log, chat = await expect(asyncio.gather(*asked), "every answer has ended")
    assert events == ":\n\n"
    assert events_in(log)[-1][1]["error"]["code"] == "shutting_down"
    assert events_in(chat)[-1][1]["error"]["code"] == "shutting_down"
    assert asyncio.all_tasks() == before


async def test_the_token_is_in_a_file_of_this_user_alone(engine: SimulatedModels) -> None:
    async with serving(engine) as api:
        (record,) = running_apis()
        assert (record.url, record.token) == (api.address, api.token)
        assert api.token not in repr(record)
        (path,) = records_folder().iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not running_apis()
    assert not list(records_folder().iterdir())


CHILD = """
import asyncio
from tests.models.simulated_models import SimulatedModels
from anywire_engine_models.local_api.server import LocalApi

async def main():
    engine = SimulatedModels()
    await LocalApi(engine, engine.listen).begin()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_file_of_an_agent_that_was_killed_counts_no_more() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    try:
        assert await expect(child.stdout.readline(), "the child is ready", PATIENCE) == b"ready\n"
        (record,) = running_apis()
        assert record.pid == child.pid
    finally:
        child.kill()
        await child.wait()
    assert not running_apis()
    assert not list(records_folder().iterdir())
