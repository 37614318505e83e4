"""Answers in conversations of an app, with tools that the model calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from tests.mcp_tools.scripted_model import calls, says

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.testing.patience import expect
from anywire_desktop.answer import MAX_CALLS, MAX_STEPS, Answer
from anywire_engine_mcp.tool_loop import calls as loop_calls
from anywire_engine_mcp.tool_loop.functions import Place, named
from anywire_engine_mcp.tools import McpTool, ToolResult


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


class Model:
    """Says what it is told to, step by step; ``asked`` is what it was shown, ``members`` what was said beside it."""

    def __init__(self, *steps: Sequence[Delta | Exception]) -> None:
        self._steps = list(steps)
        self.asked: list[list[Mapping[str, Any]]] = []
        self.members: list[Mapping[str, Any]] = []

    async def __call__(
        self, messages: Sequence[Mapping[str, Any]], members: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append(list(messages))
        self.members.append(members)
        for piece in self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]:
            if isinstance(piece, Exception):
                raise piece
            yield piece


class Told:
    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self.result = asyncio.Event()

    async def tell(self, message: Mapping[str, Any]) -> None:
        self.messages.append(message)
        if "tool_result" in message:
            self.result.set()


class Adding:
    """A tool that adds, and one that never answers."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def functions(self) -> dict[str, Place]:
        return named([Place("maths", McpTool("add")), Place("maths", McpTool("wait"))])

    async def carry(self, place: Place, arguments: Mapping[str, Any], timeout: float) -> ToolResult:
        if place.tool.name == "wait":
            self.waits.set()
            await asyncio.get_running_loop().create_future()
        return ToolResult(str(arguments["a"] + arguments["b"]))


SUM = {"a": 1, "b": 2}
THINKS = Delta("", json.dumps([{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]))
FINE = [THINKS, *says("It is ", "3.")]


def calling(*wanted: tuple[str, Any], text: str = "let me see") -> list[Delta]:
    return calls(*wanted, text=text)


def answer_of(model: Model, tools: Adding | None, told: Told | None = None) -> Answer:
    return Answer(model, tools, told or Told(), 60.0)


async def test_a_model_calls_a_tool_and_answers_with_its_result() -> None:
    model, told = Model(calling(("add", SUM)), FINE), Told()
    answer = answer_of(model, Adding(), told)
    await answer.run([said("1 + 2?")])
    assert [next(iter(each)) for each in told.messages] == [
        "chunk", "tool_call", "tool_result", "thinking_chunk", "chunk", "chunk"
    ]  # fmt: skip
    assert told.messages[2]["tool_result"] == {"id": "id-0", "name": "add", "text": "3", "is_error": False}
    assert "".join(each["chunk"] for each in told.messages if "chunk" in each) == "let me see\n\nIt is 3."
    assert [each["role"] for each in answer.said] == ["assistant", "tool", "assistant"]
    assert answer.said[1] == {"role": "tool", "tool_call_id": "id-0", "content": "3"}
    assert answer.said[2]["content"] == "It is 3."
    assert model.asked[1][1:] == answer.said[:2]
    assert [each["function"]["name"] for each in model.members[0]["tools"]] == ["add", "wait"]


@pytest.mark.parametrize(
    ("call", "told_to_model"),
    [
        (("add", "{"), "no JSON object"),
        (("add", "[1]"), "no JSON object"),
        (("sub", "{}"), "there is no tool"),
    ],
)
async def test_the_model_is_told_what_is_wrong_with_a_call(call: tuple[str, str], told_to_model: str) -> None:
    told = Told()
    answer = answer_of(Model(calling(call), FINE), Adding(), told)
    await answer.run([said("?")])
    assert told_to_model in answer.said[1]["content"]
    assert answer.said[-1]["content"] == "It is 3."
    (result,) = [each["tool_result"] for each in told.messages if "tool_result" in each]
    assert result["is_error"]


async def test_steps_and_calls_are_bounded() -> None:
    endless = Model(calling(("add", SUM), text=""))
    with pytest.raises(EngineFailed, match="further tools after 8 rounds"):
        await answer_of(endless, Adding()).run([said("?")])
    assert len(endless.asked) == MAX_STEPS + 1
    assert [each.get("tool_choice") for each in endless.members] == [*[None] * MAX_STEPS, "none"]
    many = answer_of(Model(calling(*[("add", SUM)] * 20), FINE), Adding())
    await many.run([said("?")])
    results = [each["content"] for each in many.said if each["role"] == "tool"]
    assert results.count("3") == MAX_CALLS
    assert len(results) == 20


async def test_calls_without_an_id_get_one_of_their_own() -> None:
    nameless = calls(("add", SUM), ("add", SUM), ids=False)
    answer = answer_of(Model(nameless, nameless, FINE), Adding())
    await answer.run([said("?")])
    called = [call["id"] for each in answer.said for call in each.get("tool_calls", ())]
    assert called == [each["tool_call_id"] for each in answer.said if each["role"] == "tool"]
    assert len(set(called)) == 4


async def test_without_tools_nothing_is_called() -> None:
    model, told = Model(calling(("add", "{}"))), Told()
    answer = answer_of(model, None, told)
    await answer.run([said("?")])
    assert model.members == [{}]
    assert answer.said == [said("let me see", "assistant")]
    assert told.messages == [{"chunk": "let me see"}]


async def test_what_was_said_before_a_failure_is_known() -> None:
    answer = answer_of(Model([Delta("half"), EngineFailed("it broke")]), None)
    with pytest.raises(EngineFailed):
        await answer.run([said("?")])
    assert answer.said == [said("half", "assistant")]


async def test_a_result_is_told_while_other_calls_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_calls, "TICK", 10_000.0)
    told = Told()
    answer = answer_of(Model(calling(("wait", {}), ("add", SUM))), Adding(), told)
    answering = asyncio.create_task(answer.run([said("?")]))
    await expect(told.result.wait(), "the result of the quick one is told")
    assert told.messages[-1]["tool_result"]["name"] == "add"
    assert not answering.done()
    answering.cancel()
    await asyncio.wait({answering})


async def test_calls_without_a_result_are_not_kept() -> None:
    """Servers refuse a conversation that has one. What the user has seen beside it is kept."""
    tools = Adding()
    model = Model(calling(("add", SUM), text="first"), calling(("add", SUM), ("wait", {})))
    answer = answer_of(model, tools)
    answering = asyncio.create_task(answer.run([said("?")]))
    await expect(tools.waits.wait(), "the tools of the second round are called")
    answering.cancel()
    await asyncio.wait({answering})
    assert [each["role"] for each in answer.said] == ["assistant", "tool", "assistant"]
    assert answer.said[-1] == said("let me see", "assistant")
