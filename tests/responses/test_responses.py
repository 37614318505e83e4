"""Responses with OpenAI's own client, whose types judge every object and event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pydantic
import pytest
from openai.types.responses import Response
from tests.integration.gateway_serving import ScriptedEngine, hangs, says
from tests.integration.known_keys import KnownKeys, bearer
from tests.responses.conversing import House, checked, checked_event, conversing, status, until

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
USAGE = '{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'


class Answer(pydantic.BaseModel):
    title: str
    number: int


def synthetic(**config: Any) -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], length=5, **config))


def echo() -> ScriptedEngine:
    """Answers with the text of the newest message."""

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        content = json.loads(task.body)["messages"][-1]["content"]
        yield Delta("re: ")
        yield Delta(str(content), "", "stop", USAGE)

    return ScriptedEngine(script)


def messages(engine: ScriptedEngine) -> list[tuple[str, Any]]:
    """What the engine was given last."""
    return [(each["role"], each["content"]) for each in json.loads(engine.tasks[-1].body)["messages"]]


async def test_a_response_is_created_kept_and_deleted(tmp_path: Path) -> None:
    async with conversing(tmp_path, echo()) as at:
        raw = await at.client.responses.with_raw_response.create(
            model="m", input="hello", metadata={"a": "b"}, truncation="auto", temperature=0.5
        )
        response = checked(raw.parse())
        assert (response.status, response.output_text) == ("completed", "re: hello")
        assert (response.metadata, response.temperature, response.background) == ({"a": "b"}, 0.5, False)
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (1, 2, 3)
        assert response.id == f"resp_{raw.headers['x-anywire-task']}"
        assert (raw.headers["x-anywire-agent"], raw.headers["x-anywire-ignored"]) == ("agent-1", "truncation")
        assert "x-anywire-stages" in raw.headers
        assert checked(await at.client.responses.retrieve(response.id)) == response
        (item,) = [each async for each in at.client.responses.input_items.list(response.id)]
        assert item.type == "message"
        assert item.content[0].model_dump(exclude_unset=True) == {"type": "input_text", "text": "hello"}
        async with at.http.get(f"/v1/tasks/{response.id}") as task:
            assert (await task.json())["id"] == raw.headers["x-anywire-task"]
        await at.client.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            await at.client.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.create(model="m", input="and?", previous_response_id=response.id)


async def test_a_response_goes_on_from_the_one_before_it(tmp_path: Path) -> None:
    engine = echo()
    async with conversing(tmp_path, engine) as at:
        first = await at.client.responses.create(model="m", input="one", instructions="be brief")
        second = await at.client.responses.create(model="m", input="two", previous_response_id=first.id)
        await at.client.responses.create(model="m", input="three", previous_response_id=second.id, instructions="x")
        said = [("user", "one"), ("assistant", "re: one"), ("user", "two"), ("assistant", "re: two")]
        assert messages(engine) == [("system", "x"), *said, ("user", "three")], "instructions are not carried over"
        assert {each.session for each in engine.tasks[1:]} == {first.id}
        branch = await at.client.responses.create(model="m", input="other", previous_response_id=first.id, store=False)
        assert messages(engine) == [*said[:2], ("user", "other")]
        assert branch.store is False  # type: ignore[attr-defined]
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.retrieve(branch.id)


@pytest.mark.parametrize("features", [{}, {"tools": [TOOL], "tool_choice": "required"}], ids=["text", "tool"])
async def test_a_streamed_response_is_the_whole_one(tmp_path: Path, features: dict[str, Any]) -> None:
    async with conversing(tmp_path, synthetic()) as at:
        whole = await at.client.responses.create(model="m", input="hello", **features)
        events = [
            checked_event(each)
            async for each in await at.client.responses.create(model="m", input="hello", stream=True, **features)
        ]
        assert [each.sequence_number for each in events] == list(range(len(events)))
        assert (events[0].type, events[1].type) == ("response.created", "response.in_progress")
        assert events[-1].type == "response.completed"
        same = {"id", "created_at", "completed_at", "output"}
        assert events[-1].response.model_dump(exclude=same) == whole.model_dump(exclude=same)
        assert [each.model_dump(exclude={"id"}) for each in events[-1].response.output] == [
            each.model_dump(exclude={"id"}) for each in whole.output
        ]
        kept = await at.client.responses.retrieve(events[-1].response.id)
        assert kept == events[-1].response
        again = [checked_event(each) async for each in await at.client.responses.retrieve(kept.id, stream=True)]
        assert again[-1].response == kept
        rest = [each async for each in await at.client.responses.retrieve(kept.id, stream=True, starting_after=4)]
        assert [each.sequence_number for each in rest] == [each.sequence_number for each in again[5:]]


async def test_the_helper_for_streams_and_structured_output_work(tmp_path: Path) -> None:
    async with conversing(tmp_path, synthetic()) as at:
        async with at.client.responses.stream(model="m", input="hello", text_format=Answer) as stream:
            text = ""
            async for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
            final = await stream.get_final_response()
        assert isinstance(final.output_parsed, Answer)
        assert json.loads(text) == final.output_parsed.model_dump()
        parsed = await at.client.responses.parse(model="m", input="hello", text_format=Answer)
        assert parsed.output_parsed == final.output_parsed


async def test_functions_are_called_and_their_outputs_go_on(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        bodies.append(json.loads(task.body))
        if bodies[-1]["messages"][-1]["role"] == "tool":
            yield Delta("sunny", "", "stop")
            return
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
        message = {"role": "assistant", "content": None, "reasoning_content": "which city?", "tool_calls": [call]}
        yield Delta("", json.dumps([{"index": 0, "message": message, "finish_reason": "tool_calls"}]), "tool_calls")

    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        first = checked(await at.client.responses.create(model="m", input="weather in Ulm?", tools=[TOOL]))
        thought, call = first.output
        assert (thought.type, call.type) == ("reasoning", "function_call")
        output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
        second = await at.client.responses.create(
            model="m", input=[output], previous_response_id=first.id, tools=[TOOL]
        )
        assert second.output_text == "sunny"
        asks, calls, tool = bodies[-1]["messages"]
        assert (asks["content"], tool["content"], tool["tool_call_id"]) == ("weather in Ulm?", "21 degrees", "call_1")
        assert (calls["reasoning_content"], calls["tool_calls"][0]["id"]) == ("which city?", "call_1")
        # The same without a history that is kept: the client sends what it was given.
        items: list[Any] = [{"role": "user", "content": "weather in Ulm?"}]
        items += [each.model_dump(exclude_none=True) for each in first.output]
        await at.client.responses.create(model="m", input=[*items, output], tools=[TOOL], store=False)
        assert bodies[-1]["messages"] == bodies[-2]["messages"]
        # Or it names them.
        items[1:] = [{"type": "item_reference", "id": each.id} for each in first.output]
        await at.client.responses.create(model="m", input=[*items, output], tools=[TOOL])
        assert bodies[-1]["messages"] == bodies[-2]["messages"]


async def test_a_cut_off_answer_is_incomplete(tmp_path: Path) -> None:
    async with conversing(tmp_path, synthetic()) as at:
        response = checked(await at.client.responses.create(model="m", input="hello", max_output_tokens=2))
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        stream = await at.client.responses.create(model="m", input="hello", max_output_tokens=2, stream=True)
        assert [each.type async for each in stream][-1] == "response.incomplete"


async def test_log_probabilities_come_where_they_are_asked_for(tmp_path: Path) -> None:
    async with conversing(tmp_path, synthetic()) as at:
        response = checked(
            await at.client.responses.create(
                model="m", input="hello", include=["message.output_text.logprobs"], top_logprobs=2
            )
        )
        (message,) = response.output
        assert message.type == "message"
        (part,) = message.content
        assert part.type == "output_text"
        assert part.logprobs is not None
        assert [len(each.top_logprobs) for each in part.logprobs] == [2] * 5


async def test_a_background_response_is_there_when_it_has_ended(tmp_path: Path) -> None:
    may = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await may.wait()
        yield Delta("done", "", "stop", USAGE)

    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        raw = await at.client.responses.with_raw_response.create(
            model="m", input="slow", background=True, truncation="auto"
        )
        queued = checked(raw.parse())
        assert raw.headers["x-anywire-ignored"] == "truncation"
        assert queued.id == f"resp_{raw.headers['x-anywire-task']}"
        assert (queued.status, queued.background, queued.output) == ("queued", True, [])
        await until(at, queued.id, "in_progress")
        with pytest.raises(openai.ConflictError, match="has not ended"):
            await at.client.responses.create(model="m", input="and?", previous_response_id=queued.id)
        with pytest.raises(openai.ConflictError, match="has not ended"):
            await at.client.responses.retrieve(queued.id, stream=True)
        may.set()
        await until(at, queued.id, "completed")
        response = checked(await at.client.responses.retrieve(queued.id))
        assert (response.output_text, response.id) == ("done", queued.id)
        assert response.usage is not None
        ended = await at.client.responses.cancel(queued.id)
        assert ended == response, "it has ended already"
        after = await at.client.responses.create(model="m", input="and?", previous_response_id=queued.id)
        assert after.status == "completed"


async def test_a_background_response_is_cancelled_through_to_its_engine(tmp_path: Path) -> None:
    engine = hangs()
    async with conversing(tmp_path, engine) as at:
        first = await at.client.responses.create(model="m", input="slow", background=True)
        await engine.began.wait()
        cancelled = checked(await at.client.responses.cancel(first.id))
        assert (cancelled.status, cancelled.id) == ("cancelled", first.id)
        await engine.cancelled.wait()
        assert await status(at, first.id) == "cancelled"
        engine.began.clear()
        engine.cancelled.clear()
        second = await at.client.responses.create(model="m", input="slow", background=True)
        await engine.began.wait()
        await at.client.responses.delete(second.id)
        await engine.cancelled.wait()
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.retrieve(second.id)
        late = await at.client.responses.with_raw_response.create(
            model="m", input="x", background=True, extra_headers={"x-anywire-timeout": "0.05"}
        )
        name = json.loads(late.text)["id"]
        await until(at, name, "failed")
        failed = checked(await at.client.responses.retrieve(name))
        assert failed.error is not None
        assert failed.error.code == "server_error"
        for each in (first.id, name):
            with pytest.raises(openai.BadRequestError, match="has no answer"):
                await at.client.responses.create(model="m", input="and?", previous_response_id=each)


async def test_a_background_response_goes_on_in_the_next_process_and_its_conversation_waits_for_it(
    tmp_path: Path,
) -> None:
    async with conversing(tmp_path, hangs(), shutdown_grace=0) as at:
        conversation = (await at.client.conversations.create()).id
        left = await at.client.responses.create(model="m", input="slow", conversation=conversation, background=True)
    may = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        await may.wait()
        yield Delta("done", "", "stop")

    engine = ScriptedEngine(script)
    async with conversing(tmp_path, engine) as at:
        await engine.began.wait()
        with pytest.raises(openai.ConflictError, match="is being answered"):
            await at.client.responses.create(model="m", input="next", conversation=conversation)
        may.set()
        await until(at, left.id, "completed")
        await at.client.with_options(max_retries=10).responses.create(
            model="m", input="next", conversation=conversation
        )
        assert messages(engine) == [("user", "slow"), ("assistant", "done"), ("user", "next")]


async def test_a_second_orchestrator_takes_over_what_is_kept_when_the_first_has_ended(tmp_path: Path) -> None:
    first = conversing(tmp_path, echo())
    at = await first.__aenter__()
    kept = await at.client.responses.create(model="m", input="one")
    async with conversing(tmp_path, echo()) as second_at:
        ask: dict[str, Any] = {"model": "m", "input": "two", "previous_response_id": kept.id}
        with pytest.raises(openai.InternalServerError, match="shutting down") as refused:
            await second_at.client.responses.create(**ask)
        assert refused.value.status_code == 503
        await first.__aexit__(None, None, None)
        response = await second_at.client.with_options(max_retries=20).responses.create(**ask)
        assert response.previous_response_id == kept.id


async def test_only_what_runs_in_the_background_is_cancelled(tmp_path: Path) -> None:
    async with conversing(tmp_path, echo()) as at:
        response = await at.client.responses.create(model="m", input="x")
        with pytest.raises(openai.BadRequestError, match="closing its connection"):
            await at.client.responses.cancel(response.id)
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.cancel("resp_nothing")


async def test_a_client_that_goes_away_cancels_its_task_and_nothing_is_kept(tmp_path: Path) -> None:
    engine = hangs("some ")
    async with conversing(tmp_path, engine) as at:
        stream = await at.client.responses.create(model="m", input="x", stream=True)
        created = await anext(aiter(stream))
        assert created.type == "response.created"
        await stream.close()
        await engine.cancelled.wait()
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.retrieve(created.response.id)


async def test_an_error_has_its_status_before_the_first_token_and_is_an_event_after_it(tmp_path: Path) -> None:
    async with conversing(tmp_path, says(then=EngineFailed("broken"))) as at:
        for streamed in (False, True):
            with pytest.raises(openai.InternalServerError) as failed:
                await at.client.responses.create(model="m", input="x", stream=streamed)
            assert failed.value.status_code == 502
    async with conversing(tmp_path, says("some", then=EngineFailed("broken"))) as at:
        stream = await at.client.responses.create(model="m", input="x", stream=True)
        events = [checked_event(each) async for each in stream]
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "failed"
        assert "broken" in events[-1].response.error.message
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.retrieve(events[-1].response.id)


async def test_progress_is_told_in_comments(tmp_path: Path) -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield EngineProgress("loading", "m")
        yield Delta("text", "", "stop")

    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        body = {"model": "m", "input": "x", "stream": True}
        headers = {"x-anywire-progress": "true", "x-anywire-explain": "true", "x-anywire-stages": "true"}
        async with at.http.post("/v1/responses", json=body, headers=headers) as answer:
            text = await answer.text()
        assert text.startswith(": progress loading m\n\n")
        assert ': anywire {"stages":{"received-admitted":' in text.split("event: response.output_item.done")[1]
        assert "event: response.completed\n" in text
        async with at.http.post("/v1/responses", json=body | {"stream": False}, headers=headers) as answer:
            assert json.loads(answer.headers["x-anywire-decision"])["agent_id"] == "agent-1"


async def test_the_same_request_with_a_key_runs_once(tmp_path: Path) -> None:
    engine = echo()
    async with conversing(tmp_path, engine) as at:
        conversation = await at.client.conversations.create()
        ask: dict[str, Any] = {"model": "m", "input": "hello", "conversation": conversation.id}
        key = {"Idempotency-Key": "k"}
        first = await at.client.responses.create(**ask, extra_headers=key)
        raw = await at.client.responses.with_raw_response.create(**ask, extra_headers=key)
        assert raw.headers["x-anywire-replayed"] == "true"
        assert raw.parse() == first
        assert len(engine.tasks) == 1
        with pytest.raises(openai.UnprocessableEntityError, match="something else"):
            await at.client.responses.create(**ask | {"input": "other"}, extra_headers=key)
        items = [each async for each in at.client.conversations.items.list(conversation.id)]
        assert len(items) == 2
        streamed: dict[str, Any] = {**ask, "stream": True, "extra_headers": {"Idempotency-Key": "s"}}
        events = [each async for each in await at.client.responses.create(**streamed)]
        again = [checked_event(each) async for each in await at.client.responses.create(**streamed)]
        assert again[-1].response == events[-1].response
        assert len(engine.tasks) == 2
        with pytest.raises(openai.BadRequestError, match="not kept"):
            await at.client.responses.create(model="m", input="x", store=False, extra_headers=key)


async def test_a_key_whose_request_runs_is_told_to_come_back(tmp_path: Path) -> None:
    engine = hangs()
    async with conversing(tmp_path, engine) as at:
        key = {"Idempotency-Key": "k"}
        first = asyncio.ensure_future(at.client.responses.create(model="m", input="x", extra_headers=key))
        await engine.began.wait()
        with pytest.raises(openai.ConflictError) as refused:
            await at.client.responses.create(model="m", input="x", extra_headers=key)
        assert (refused.value.code, refused.value.response.headers["retry-after-ms"]) == (
            "idempotency_key_in_use", "1000",
        )  # fmt: skip
        first.cancel()
        await engine.cancelled.wait()


async def test_whose_a_response_is_decides_who_sees_it(tmp_path: Path) -> None:
    keys = KnownKeys(alice="use", bob="use", olga="observe", root="operate")
    async with conversing(tmp_path, echo(), access=keys) as at:
        async with at.http.post(
            "/v1/responses", json={"model": "m", "input": "secret"}, headers=bearer("alice")
        ) as answer:
            name = (await answer.json())["id"]
        for who, expected in (("alice", 200), ("bob", 404), ("olga", 404), ("root", 200)):
            for path in (f"/v1/responses/{name}", f"/v1/responses/{name}/input_items"):
                async with at.http.get(path, headers=bearer(who)) as answer:
                    assert answer.status == expected, (who, path)
            more = {"model": "m", "input": "and?", "previous_response_id": name}
            async with at.http.post("/v1/responses", json=more, headers=bearer(who)) as answer:
                assert answer.status == expected, who
        reference = {"model": "m", "input": [{"type": "item_reference", "id": await item_of(at, name)}]}
        async with at.http.post("/v1/responses", json=reference, headers=bearer("bob")) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "item_not_found")
        async with at.http.delete(f"/v1/responses/{name}", headers=bearer("bob")) as answer:
            assert answer.status == 404


async def item_of(at: House, name: str) -> str:
    async with at.http.get(f"/v1/responses/{name}", headers=bearer("alice")) as answer:
        return str((await answer.json())["output"][0]["id"])


async def test_without_the_service_a_response_is_answered_and_not_kept() -> None:
    async with conversing(None, echo()) as at:
        response = checked(await at.client.responses.create(model="m", input="hello"))
        assert (response.output_text, response.store) == ("re: hello", False)  # type: ignore[attr-defined]
        await at.client.responses.create(model="m", input="hello", store=False)
        needing: list[dict[str, Any]] = [
            {"store": True}, {"background": True}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}
        ]  # fmt: skip
        for more in needing:
            with pytest.raises(openai.BadRequestError, match=r"services: \[conversations\]") as refused:
                await at.client.responses.create(model="m", input="hello", **more)
            assert refused.value.param == next(iter(more))
        with pytest.raises(openai.NotFoundError):
            await at.client.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        ({"model": "m"}, {}, 400, "input"),
        ({"model": "m", "input": 3}, {}, 400, "input"),
        ({"model": "m", "input": "x", "tools": [{"type": "web_search"}]}, {}, 400, "tools[0].type"),
        ({"model": "m", "input": "x", "temperature": "hot"}, {}, 400, "temperature"),
        ({"model": "m", "input": "x", "previous_response_id": "resp_1"}, {}, 404, "previous_response_id"),
        ({"model": "m", "input": "x", "conversation": "conv_1"}, {}, 404, "conversation"),
        ({"model": "m", "input": "x", "conversation": {}}, {}, 400, "conversation.id"),
        ({"model": "none", "input": "x"}, {}, 404, "model"),
        ({"model": "m", "input": "x"}, {"x-anywire-background": "true"}, 400, "x-anywire-background"),
        ({"model": "m", "input": "x"}, {"x-anywire-priority": "high"}, 400, "x-anywire-priority"),
        ({"model": "m", "input": "\ud800"}, {}, 400, "input"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str], status: int, param: str
) -> None:
    engine = echo()
    async with conversing(tmp_path, engine) as at, aiohttp.ClientSession(at.served.url) as http:
        async with http.post("/v1/responses", json=body, headers=headers) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["param"] or "model") == (status, param), error
        assert engine.tasks == []


async def test_a_large_request_and_a_history_that_is_too_large(tmp_path: Path) -> None:
    engine = echo()
    async with conversing(tmp_path, engine, max_body_bytes=2**20) as at:
        text = "é" + "e" * 400_000
        first = await at.client.responses.create(model="m", input=text)
        assert first.output_text == f"re: {text}"
        second = await at.client.responses.create(model="m", input="and?", previous_response_id=first.id)
        assert messages(engine)[0] == ("user", text)
        with pytest.raises(openai.APIStatusError, match="begin a new conversation") as refused:
            await at.client.responses.create(model="m", input=text, previous_response_id=second.id)
        assert refused.value.status_code == 413


async def test_a_disk_that_fails_is_told_and_nothing_is_said_to_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from anywire_service_conversations.database import Database

    async with conversing(tmp_path, echo()) as at:
        first = await at.client.responses.create(model="m", input="x")

        def full(*arguments: Any) -> bool:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "end", full)
            with pytest.raises(openai.InternalServerError, match="cannot be kept"):
                await at.client.responses.create(model="m", input="x")
            events = [each async for each in await at.client.responses.create(model="m", input="x", stream=True)]
            assert events[-1].type == "response.failed"
        again = await at.client.responses.create(model="m", input="x", previous_response_id=first.id)
        assert isinstance(again, Response)
