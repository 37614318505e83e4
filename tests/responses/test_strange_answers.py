"""What an engine answers and no chat would: it is passed over or an error, and harms no other response."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response
from tests.integration.gateway_serving import ScriptedEngine
from tests.responses.conversing import conversing, until

from anywire.conversation_items import MAX_ITEMS
from anywire.engine import Delta, EngineProgress
from anywire.errors import StreamCorrupted
from anywire.messages import Chunk, TaskRequest
from anywire_gateway_openai.responses import background
from anywire_gateway_openai.responses.answer import answered, response_head
from anywire_gateway_openai.responses.events import ResponseEvents
from anywire_gateway_openai.responses.request import asked, decoder, members

TASK = "0123456789abcdef"
REQUEST = b'{"input": "hello"}'


def head() -> dict[str, Any]:
    return response_head(asked(decoder.decode(REQUEST), members.decode(REQUEST), {}), TASK, "m", store=True)


def chunk(choice: dict[str, Any], usage: str = "") -> Chunk:
    extra = json.dumps([{"index": 0, "finish_reason": "stop", **choice}])
    return Chunk("h", TASK, 1, 0, ("",), extra, True, "stop", usage)


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "a", "annotations": 5}},
        {"message": {"content": "a", "annotations": [{"None": {}}, {"type": ["x"]}, {"type": "x", "x": 3}]}},
        {"message": {"content": "a", "tool_calls": 5}},
        {"message": {"content": "a", "tool_calls": {"function": 1}}},
        {"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": 0, "top_logprobs": 5}]}},
        {"message": {"content": "a"}, "logprobs": {"content": 5}},
    ],
)
def test_members_of_another_type_are_passed_over(choice: dict[str, Any]) -> None:
    whole = answered(head(), TASK, "m", chunk(choice))
    assert whole["output"][0]["content"][0]["text"] == "a"
    encoder = ResponseEvents(head(), TASK)
    encoder.events([chunk(choice)], "m")
    assert encoder.response is not None
    assert encoder.response["output"] == whole["output"]


def test_arguments_that_come_as_an_object_are_kept() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": {"city": "Ulm"}}}
    whole = answered(head(), TASK, "m", chunk({"message": {"tool_calls": [call]}}))
    assert whole["output"][0]["arguments"] == '{"city":"Ulm"}'


@pytest.mark.parametrize("usage", ['{"prompt_tokens": 1e400}', "[]", "{"])
def test_usage_that_cannot_be_read_is_an_error(usage: str) -> None:
    with pytest.raises(StreamCorrupted):
        answered(head(), TASK, "m", chunk({"message": {"content": "a"}}, usage))
    counted = answered(head(), TASK, "m", chunk({"message": {"content": "a"}}, '{"prompt_tokens": true}'))
    Response.model_validate(counted)
    assert counted["usage"]["input_tokens"] == 0


def test_an_answer_has_no_more_items_than_a_conversation() -> None:
    calls = [{"id": str(at), "function": {"name": "f", "arguments": "{}"}} for at in range(MAX_ITEMS + 1)]
    assert len(answered(head(), TASK, "m", chunk({"message": {"tool_calls": calls[1:]}}))["output"]) == MAX_ITEMS
    with pytest.raises(StreamCorrupted, match="more than 10000 items"):
        answered(head(), TASK, "m", chunk({"message": {"tool_calls": calls}}))


async def test_a_fault_while_an_answer_is_read_ends_its_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield Delta("done", "", "stop")

    def faulty(*arguments: Any) -> None:
        raise TypeError("nobody has thought of this")

    monkeypatch.setattr(background, "answered", faulty)
    async with conversing(tmp_path, ScriptedEngine(script)) as at:
        conversation = (await at.client.conversations.create()).id
        ask: dict[str, Any] = {"model": "m", "input": "x", "conversation": conversation}
        response = await at.client.responses.create(background=True, **ask)
        await until(at, response.id, "failed")
        await at.client.with_options(max_retries=10).responses.create(**ask)
