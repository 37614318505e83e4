"""Conversations, and answers with tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from anywire.errors import EngineFailed, InvalidRequest, QueueFull, TaskError
from anywire_desktop import chats, tool_loop
from anywire_desktop.chats import Chats
from anywire_desktop.commands.chat import _closed, _title
from anywire_desktop.tool_loop import Answer, ToolResult
from anywire_engine_models.local_models import ChatPiece


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def test_a_conversation_grows_with_each_answer() -> None:
    kept = Chats()
    kept.begin("a")
    kept.end("a", [said("one"), said("two", "assistant")])
    kept.begin("a")
    assert kept.messages("a") == [said("one"), said("two", "assistant")]
    kept.end("a", [])
    assert len(kept.messages("a")) == 2
    kept.clear("a")
    assert kept.messages("a") == []


def test_one_answer_of_a_conversation_at_a_time() -> None:
    kept = Chats()
    kept.begin("a")
    with pytest.raises(InvalidRequest, match="under way"):
        kept.begin("a")
    kept.begin("b")
    kept.clear("a")  # while it is answered: the answer is not kept
    kept.end("a", [said("late")])
    assert kept.messages("a") == []
    kept.begin("a")


def test_conversations_are_bounded_and_the_oldest_idle_one_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_SESSIONS", 3)
    kept = Chats()
    kept.begin("busy")
    for name in ("b", "c", "d"):
        kept.load(name, [said(name)])
    assert kept.messages("b") == []
    assert kept.messages("d") == [said("d")]
    kept.begin("c")
    kept.begin("d")
    with pytest.raises(QueueFull):
        kept.begin("e")
    kept.end("busy", [said("there still")])
    assert kept.messages("busy") == [said("there still")]


def test_a_conversation_that_is_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_BYTES", 1000)
    kept = Chats()
    with pytest.raises(InvalidRequest, match="begin a new one"):
        kept.load("a", [said("x" * 1000)])


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": "wizard", "content": ""},
        {"role": ["user"], "content": ""},
        {"role": "user", "content": 7},
    ],
)
def test_wrong_messages_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="message 0"):
        Chats().load("a", [message])


class Model:
    """Says what it is told to, step by step; ``asked`` is what it was shown."""

    def __init__(self, *steps: Sequence[ChatPiece | Exception]) -> None:
        self._steps = list(steps)
        self.asked: list[list[Mapping[str, Any]]] = []
        self.tools: list[Sequence[Mapping[str, Any]]] = []

    async def __call__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[ChatPiece, None]:
        self.asked.append(list(messages))
        self.tools.append(tools)
        for piece in self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]:
            if isinstance(piece, Exception):
                raise piece
            yield piece


class Told:
    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []

    async def tell(self, message: Mapping[str, Any]) -> None:
        self.messages.append(message)


class Adding:
    """A tool that adds."""

    async def definitions(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        if name != "add":
            raise InvalidRequest(f"there is no tool {name!r}")
        return ToolResult(str(arguments["a"] + arguments["b"]))


def calling(*calls: tuple[str, str]) -> list[ChatPiece]:
    made = tuple(
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    )
    return [ChatPiece("let me see"), ChatPiece(tool_calls=made, finish_reason="tool_calls")]


FINE = [ChatPiece(thinking="hm"), ChatPiece("It is "), ChatPiece("3."), ChatPiece(finish_reason="stop")]


async def test_a_model_calls_a_tool_and_answers_with_its_result() -> None:
    model, told = Model(calling(("add", '{"a": 1, "b": 2}')), FINE), Told()
    answer = Answer(model, Adding(), told)
    await answer.run([said("1 + 2?")])
    assert [next(iter(each)) for each in told.messages] == [
        "chunk", "tool_call", "tool_result", "thinking_chunk", "chunk", "chunk"
    ]  # fmt: skip
    assert told.messages[2]["tool_result"] == {"id": "c0", "name": "add", "text": "3", "is_error": False}
    assert [each["role"] for each in answer.said] == ["assistant", "tool", "assistant"]
    assert answer.said[1] == {"role": "tool", "tool_call_id": "c0", "content": "3"}
    assert answer.said[2]["content"] == "It is 3."
    assert model.asked[1][1:] == answer.said[:2]


@pytest.mark.parametrize(
    ("call", "told_to_model"),
    [
        (("add", "{"), "no JSON"),
        (("add", "[1]"), "must be an object"),
        (("sub", "{}"), "there is no tool"),
    ],
)
async def test_the_model_is_told_what_is_wrong_with_a_call(call: tuple[str, str], told_to_model: str) -> None:
    answer = Answer(Model(calling(call), FINE), Adding(), Told())
    await answer.run([said("?")])
    assert told_to_model in answer.said[1]["content"]
    assert answer.said[-1]["content"] == "It is 3."


async def test_steps_and_calls_are_bounded() -> None:
    endless = Model(calling(("add", '{"a": 1, "b": 2}')))
    answer = Answer(endless, Adding(), Told())
    with pytest.raises(TaskError, match="asked for tools 8 times"):
        await answer.run([said("?")])
    assert len(endless.asked) == tool_loop.MAX_STEPS
    many = Answer(Model(calling(*[("add", '{"a": 1, "b": 2}')] * 20), FINE), Adding(), Told())
    await many.run([said("?")])
    results = [each["content"] for each in many.said if each["role"] == "tool"]
    assert results.count("3") == tool_loop.MAX_CALLS
    assert len(results) == 20


async def test_calls_without_an_id_get_one_of_their_own() -> None:
    nameless = ChatPiece(tool_calls=({"function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},) * 2)
    answer = Answer(Model([nameless], [nameless], FINE), Adding(), Told())
    await answer.run([said("?")])
    called = [call["id"] for each in answer.said for call in each.get("tool_calls", ())]
    assert called == [each["tool_call_id"] for each in answer.said if each["role"] == "tool"]
    assert len(set(called)) == 4


async def test_without_tools_nothing_is_called() -> None:
    model = Model(calling(("add", "{}")))
    answer = Answer(model, None, Told())
    await answer.run([said("?")])
    assert model.tools == [[]]
    assert answer.said == [said("let me see", "assistant")]


async def test_what_was_said_before_a_failure_is_known() -> None:
    answer = Answer(Model([ChatPiece("half"), EngineFailed("it broke")]), None, Told())
    with pytest.raises(EngineFailed):
        await answer.run([said("?")])
    assert answer.said == [said("half", "assistant")]


def test_calls_without_an_answer_are_not_kept() -> None:
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [{"id": "c0"}, {"id": "c1"}]}
    result: dict[str, Any] = {"role": "tool", "tool_call_id": "c0", "content": "3"}
    assert _closed([said("a", "assistant"), called, result]) == [said("a", "assistant")]
    both = [called, result, {**result, "tool_call_id": "c1"}]
    assert _closed(both) == both


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Adding numbers."', "Adding numbers"),
        ("<think>a title\nis needed</think>\n\n**Adding numbers**", "Adding numbers"),
        ("<think>never ends", ""),
        ("  \n", ""),
        ("a " * 100, "a " * 29 + "a …"),
    ],
)
def test_a_title_is_one_short_line(text: str, title: str) -> None:
    assert _title(text) == title
