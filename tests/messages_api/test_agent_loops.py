"""Loops of Anthropic's own client, in which a model calls tools, run at the gateway as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool
from tests.integration.gateway_serving import ScriptedEngine
from tests.messages_api.asking import ASK, asking
from tests.messages_api.test_passing_on import speaking

from anywire.engine import Delta, EngineProgress
from anywire.messages import TaskRequest

CALLS = [
    {"index": at, "id": f"c{at}", "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": at})}}
    for at in range(3)
]


async def calls_and_answers(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
    """Three calls at once, and an answer to their results."""
    if json.loads(task.body)["messages"][-1]["role"] == "tool":
        yield Delta("three trees", "", "stop")
        return
    message = {"role": "assistant", "content": "let me look", "reasoning_content": "hm", "tool_calls": CALLS}
    where = "delta" if task.stream else "message"
    yield Delta("let me look", json.dumps([{"index": 0, where: message, "finish_reason": None}]), "tool_calls")


@pytest.mark.parametrize("streams", [False, True])
async def test_every_turn_of_a_tool_runner_has_the_whole_history(streams: bool) -> None:
    seen: list[int] = []

    @beta_async_tool
    async def look(at: int) -> str:
        """Looks around."""
        seen.append(at)
        return f"a tree at {at}"

    engine = ScriptedEngine(calls_and_answers)
    async with asking(engine) as at:
        runner = at.client.beta.messages.tool_runner(
            model="m", max_tokens=50, messages=[{"role": "user", "content": "go"}], tools=[look], stream=streams
        )
        last: Any = await runner.until_done()
    assert seen == [0, 1, 2]
    assert last.content[0].text == "three trees"
    (_, second) = [json.loads(task.body)["messages"] for task in engine.tasks]
    assert [each["role"] for each in second] == ["user", "assistant", "tool", "tool", "tool"]
    assert second[1]["reasoning_content"] == "hm"
    assert [call["id"] for call in second[1]["tool_calls"]] == [each["tool_call_id"] for each in second[2:]]


async def test_a_conversation_that_the_server_should_keep_is_refused_so_that_clients_send_all_of_it() -> None:
    async with speaking() as (at, server):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await at.client.beta.messages.create(**ASK, thread={"type": "create"})
        assert server.requests == []
    body: Any = refused.value.body
    details = body["error"]["details"]
    assert (details["error_code"], details["unsupported"]) == ("thread_unsupported_request", ["thread"])
