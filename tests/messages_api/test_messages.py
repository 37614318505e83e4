"""Anthropic's own client, as it is, asks the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from tests.integration.gateway_serving import ScriptedEngine, hangs, says
from tests.messages_api.asking import ASK, LOOK, asking, client_of
from tests.messages_api.told_messages import checked, events_of, put_together, said_in
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.caller import Limits
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from anywire.offers import offers

USAGE = '{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}'


def synthetic(**settings: Any) -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], length=5, **settings))


async def test_a_message_and_its_stream_are_the_same() -> None:
    async with asking(synthetic()) as at:
        whole = await at.client.messages.create(**ASK, system="be brief", stop_sequences=["!"])
        async with at.client.messages.stream(**ASK, system="be brief", stop_sequences=["!"]) as stream:
            texts = [text async for text in stream.text_stream]
            streamed = await stream.get_final_message()
    said = checked(whole.model_dump(mode="json", exclude_unset=True))
    assert said["type"] == "message"
    assert said["role"] == "assistant"
    assert whole.id.startswith("msg_")
    assert len(texts) == 5
    assert (whole.model, whole.stop_reason, whole.stop_sequence) == ("m", "end_turn", None)
    assert whole.usage.output_tokens == 5
    assert whole.usage.input_tokens > 0
    assert "".join(texts) == whole.content[0].text
    assert said_in(streamed.content) == said_in(whole.content)
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)


async def test_the_engine_gets_a_chat() -> None:
    engine = says("done")
    async with asking(engine) as at:
        answer = await at.client.messages.with_raw_response.create(
            **{**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
            system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            extra_headers={"x-anywire-session": "s-1", "x-anywire-prefer": "agent-1"},
        )
        (task,) = engine.tasks
    assert json.loads(task.body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "max_tokens": 50,
    }
    assert (task.kind, task.session, task.prefer) == ("chat", "s-1", ("agent-1",))
    headers = answer.headers
    assert headers["x-anywire-ignored"] == "cache_control"
    assert headers["x-anywire-task"] == (await answer.parse()).id.removeprefix("msg_")
    assert headers["request-id"] == headers["x-request-id"]
    assert "received-admitted" in headers["x-anywire-stages"]


async def test_tools_are_called_and_their_results_are_sent_back() -> None:
    engine = synthetic()
    async with asking(engine) as at:
        ask: dict[str, Any] = {**ASK, "tools": [LOOK], "messages": [{"role": "user", "content": "look around"}]}
        called = await at.client.messages.create(**ask)
        async with at.client.messages.stream(**ask) as stream:
            streamed = await stream.get_final_message()
        assert called.stop_reason == streamed.stop_reason == "tool_use"
        (use,) = called.content
        assert use.type == "tool_use"
        assert (use.name, said_in(streamed.content)) == ("look", said_in(called.content))
        assert isinstance(use.input["at"], int)
        ask["messages"] += [
            {"role": "assistant", "content": called.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "a tree"}]},
        ]
        further = await at.client.messages.create(**ask)
        assert (further.stop_reason, further.content[0].type) == ("end_turn", "text")
        forced = await at.client.messages.create(**{**ASK, "tools": [LOOK]}, tool_choice={"type": "any"})
        assert forced.stop_reason == "tool_use"


async def test_structured_output() -> None:
    form: Any = {"type": "json_schema", "schema": LOOK["input_schema"] | {"additionalProperties": False}}
    async with asking(synthetic()) as at:
        answer = await at.client.messages.create(**ASK, output_config={"format": form})
    assert isinstance(json.loads(answer.content[0].text)["at"], int)


async def test_what_a_model_thinks_is_a_block_of_its_own() -> None:
    def step(**delta: Any) -> Delta:
        return Delta(delta.get("content", ""), json.dumps([{"index": 0, "delta": delta, "finish_reason": None}]))

    thought = (step(reasoning_content="so "), step(reasoning_content="it is"), "yes", Delta("", "", "stop", USAGE))
    message = {"role": "assistant", "content": "yes", "reasoning_content": "so it is"}
    whole = json.dumps([{"index": 0, "message": message, "finish_reason": "stop"}])

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        for each in thought if task.stream else (Delta("yes", whole, "stop", USAGE),):
            yield Delta(each) if isinstance(each, str) else each

    async with asking(ScriptedEngine(script)) as at:
        answer = await at.client.messages.create(**ASK)
        async with at.client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert said_in(streamed.content) == said_in(answer.content)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2)


async def test_tokens_are_estimated_and_said_to_be() -> None:
    async with asking(synthetic(kinds=["chat"])) as at:
        answer = await at.client.messages.with_raw_response.count_tokens(
            model="m", messages=ASK["messages"], system="be brief", tools=[LOOK]
        )
        assert (await answer.parse()).input_tokens > 10
        assert answer.headers["x-anywire-estimated"] == "true"
        assert [each.id async for each in at.client.models.list()] == ["m"]
        with pytest.raises(anthropic.NotFoundError):
            await at.client.messages.count_tokens(model="other", messages=ASK["messages"])


async def test_tokens_are_counted_where_an_agent_can() -> None:
    async with asking(synthetic()) as at:
        ask: Any = {"model": "m", "messages": [{"role": "user", "content": "the cat"}]}
        counted = await at.client.messages.with_raw_response.count_tokens(**ask)
        assert "x-anywire-estimated" not in counted.headers
        async with at.http.post("/tokenize", json=ask) as answer:
            assert (await counted.parse()).input_tokens == (await answer.json())["count"]


# Errors


async def test_errors_have_anthropics_form_types_and_statuses() -> None:
    async with asking(says(then=EngineFailed("it broke")), max_body_bytes=4096) as at:
        create = at.client.messages.create
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await create(**{**ASK, "model": "other"})
        assert (unknown.value.type, unknown.value.error_code) == ("not_found_error", "model_not_found")
        assert unknown.value.request_id == unknown.value.response.headers["x-request-id"]
        assert "other" in (unknown.value.api_message or "")
        with pytest.raises(anthropic.BadRequestError) as wrong:
            await create(**ASK, extra_body={"mcp_servers": [{}]})
        body: Any = wrong.value.body
        assert body["type"] == "error"
        assert body["error"]["details"] == {"error_code": "invalid_request", "param": "mcp_servers", "origin": "client"}
        with pytest.raises(anthropic.APIStatusError) as large:
            await create(**{**ASK, "system": "x" * 5000})
        assert large.value.status_code == 413
        with pytest.raises(anthropic.InternalServerError) as broken:
            await create(**ASK)
        assert (broken.value.status_code, broken.value.type) == (500, "api_error")
        async with at.http.get("/v1/messages") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
            assert (await answer.json())["type"] == "error"
        async with at.http.post("/v1/messages", data=b"{") as answer:
            assert (await answer.json())["error"]["type"] == "invalid_request_error"
        async with at.http.post("/v1/messages", json={**ASK, "anywire_api": "messages"}) as answer:
            assert (await answer.json())["error"]["details"]["param"] == "anywire_api"
        background = {"x-anywire-background": "true"}
        async with at.http.post("/v1/messages", json=ASK, headers=background) as answer:
            assert (await answer.json())["error"]["details"]["param"] == "x-anywire-background"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("5000 tokens, at most 4096", "prompt is too long: 5000 tokens, at most 4096"),
        ("Prompt is too long: 5 > 4", "Prompt is too long: 5 > 4"),
    ],
)
async def test_an_agent_that_can_shorten_its_conversation_is_told_to(said: str, told: str) -> None:
    fault = InvalidRequest(said, status=400, detail_code="context_length_exceeded", origin="engine")
    async with asking(says(then=fault)) as at:
        with pytest.raises(anthropic.BadRequestError) as failed:
            await at.client.messages.create(**ASK)
    assert failed.value.api_message == told


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (
            InvalidRequest("long", status=400, detail_code="context_length_exceeded", origin="engine"),
            400,
            "invalid_request_error",
        ),
        (EngineFailed("busy", status=429, retry_after=2.0), 429, "rate_limit_error"),
        (EngineFailed("busy", status=503), 529, "overloaded_error"),
        (EngineFailed("late", status=504), 504, "timeout_error"),
    ],
)
async def test_faults_of_engines(fault: Exception, status: int, kind: str) -> None:
    async with asking(says(then=fault)) as at:
        with pytest.raises(anthropic.APIStatusError) as failed:
            await at.client.messages.create(**ASK, extra_headers={"x-anywire-attempts": "1"})
    assert (failed.value.status_code, failed.value.type) == (status, kind)
    assert failed.value.response.headers["x-anywire-origin"] == "engine"


async def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    async with asking(says("so far", then=EngineFailed("it broke"))) as at:
        async with at.client.messages.stream(**ASK) as stream:
            with pytest.raises(anthropic.APIStatusError) as failed:
                await stream.get_final_message()
        async with at.http.post("/v1/messages", json={**ASK, "stream": True}) as answer:
            events = events_of(await answer.read())
    body: Any = failed.value.body
    assert body["error"]["type"] == "api_error"
    assert [each["type"] for each in events] == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert events[-1]["error"]["details"]["origin"] == "engine"


# Keys, repeating, leaving


async def test_keys_of_the_gateway_as_the_client_sends_them(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    add_key(path, record_of(key, tenant="lab", limits=Limits(models=("m",))))
    async with asking(says("done"), access=KeyAccess(path)) as at:
        async with client_of(at.served, str(key)) as client:
            assert (await client.messages.create(**ASK)).content[0].type == "text"
            with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
                await client.messages.create(**{**ASK, "model": "secret"})
        with pytest.raises(anthropic.AuthenticationError) as wrong:
            await at.client.messages.create(**ASK)
    assert (wrong.value.type, wrong.value.error_code) == ("authentication_error", "invalid_api_key")
    assert forbidden.value.type == "permission_error"


async def test_a_request_that_is_sent_again_runs_once() -> None:
    engine = synthetic()
    async with asking(engine) as at:
        again = {"idempotency-key": "k-1"}
        bodies = []
        for body in (ASK, ASK, {**ASK, "stream": True}):
            async with at.http.post("/v1/messages", json=body, headers=again) as answer:
                bodies.append((answer.status, answer.headers.get("x-anywire-replayed"), await answer.json()))
        streaming = {"idempotency-key": "k-2"}
        told = []
        for _ in range(2):
            async with at.http.post("/v1/messages", json={**ASK, "stream": True}, headers=streaming) as answer:
                told.append(put_together(events_of(await answer.read())))
    (first, second, other) = bodies
    assert (first[0], second[:2], first[2]) == (200, (200, "true"), second[2])
    assert other[2]["error"]["details"]["error_code"] == "idempotency_key_reused"
    assert told[0] == told[1]


async def test_a_client_that_leaves_cancels_its_task() -> None:
    engine = hangs("so far")
    async with asking(engine) as at:
        async with at.client.messages.stream(**ASK) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)


async def test_a_silent_stream_is_kept_alive_by_pings() -> None:
    engine = hangs()
    async with asking(engine, keep_alive=0.01) as at:
        async with at.http.post("/v1/messages", json={**ASK, "stream": True}) as answer:
            begun = await answer.content.readuntil(b"\n\n")
        assert events_of(begun) == [{"type": "ping"}]


async def test_progress_stages_and_the_decision_are_told_where_they_are_asked_for() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield EngineProgress("loading", "m")
        yield Delta("done", "", "stop", USAGE)

    wanted = {"x-anywire-progress": "true", "x-anywire-stages": "true", "x-anywire-explain": "true"}
    async with asking(ScriptedEngine(script, offers("m"))) as at:
        async with at.http.post("/v1/messages", json={**ASK, "stream": True}, headers=wanted) as answer:
            data = await answer.read()
        async with at.http.post("/v1/messages", json=ASK, headers={"x-anywire-explain": "1"}) as answer:
            assert json.loads(answer.headers["x-anywire-decision"])["agent_id"] == "agent-1"
    assert data.startswith(b": progress loading m")
    assert b": anywire " in data
    assert put_together(events_of(data))["content"] == [{"type": "text", "text": "done"}]


async def test_a_large_request_is_read_in_pieces() -> None:
    engine = says("done")
    photo = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    text = {"type": "text", "text": "was ist das? 🦊"}
    async with asking(engine) as at:
        await at.client.messages.create(**{**ASK, "messages": [{"role": "user", "content": [photo, text]}]})
        (task,) = engine.tasks
        async with at.http.post("/v1/messages", json={**ASK, "system": "x" * 300_000}) as answer:
            assert answer.status == 200
    sent = json.loads(task.body)["messages"][0]["content"]
    assert sent[0]["image_url"]["url"] == "data:image/png;base64," + "A" * 400_000
    assert sent[1] == text
