"""The tool loop with a model and servers that a test writes: what the model is asked, what the client gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.mcp_tools.scripted_model import ScriptedModel, Tools, calls, chat, says

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import TaskRequest
from anywire.testing.patience import expect
from anywire_engine_mcp.host import ToolFault
from anywire_engine_mcp.tool_loop import calls as loop_calls
from anywire_engine_mcp.tool_loop.functions import Place, named
from anywire_engine_mcp.tool_loop.loop import LoopLimits
from anywire_engine_mcp.tool_loop.requested import read_chat
from anywire_engine_mcp.tool_loop.with_servers import run_loop
from anywire_engine_mcp.tools import McpTool, ToolResult

CLIENT_TOOL = {"type": "function", "function": {"name": "ask_user", "parameters": {"type": "object"}}}
LIMITS = LoopLimits()


def nothing(name: str, data: dict[str, Any]) -> None:
    pass


class Outcome:
    """What came of a chat: ``text`` and the last ``usage``, ``finish``, ``extra``, and the progress."""

    def __init__(self, deltas: Sequence[Delta | EngineProgress]) -> None:
        self.deltas = [each for each in deltas if isinstance(each, Delta)]
        self.progress = [(each.state, each.detail) for each in deltas if isinstance(each, EngineProgress)]
        self.text = "".join(each.text for each in self.deltas)
        self.finish = next((each.finish_reason for each in reversed(self.deltas) if each.finish_reason), "")
        usage = next((each.usage for each in reversed(self.deltas) if each.usage), "")
        self.usage = json.loads(usage) if usage else {}
        self.extras = [json.loads(each.extra) for each in self.deltas if each.extra]

    @property
    def client_calls(self) -> list[str]:
        """The names of the functions that the client is to call."""
        choices = [choice for extra in self.extras for choice in extra]
        messages = [choice.get("delta") or choice.get("message") for choice in choices]
        return [call["function"]["name"] for message in messages for call in message.get("tool_calls", ())]


async def answer(
    model: ScriptedModel, tools: Tools, task: TaskRequest, limits: LoopLimits = LIMITS, tell: Any = nothing
) -> Outcome:
    request = read_chat(task)
    assert request is not None
    return Outcome([each async for each in run_loop(task, request, tools, model.run, limits, tell)])


def results(model: ScriptedModel, number: int = -1) -> list[str]:
    """What the model was told of its calls in one question."""
    return [each["content"] for each in model.asked[number]["messages"] if each["role"] == "tool"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_is_called_and_the_answer_goes_on(stream: bool) -> None:
    model = ScriptedModel([calls(("add", {"a": 2, "b": 3}), stream=stream), says("It is ", "5.")])
    tools = Tools(maths={"add": lambda a, b: a + b})
    found = await answer(model, tools, chat("maths", stream=stream, temperature=0))
    assert tools.called == [("maths", "add", {"a": 2, "b": 3})]
    assert (found.text, found.finish) == ("It is 5.", "stop")
    assert found.usage == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert not found.client_calls
    assert ("tool", "maths/add") in found.progress
    first, second = model.asked
    assert first["temperature"] == 0
    (function,) = first["tools"]
    assert function["function"] == {
        "name": "add",
        "description": "The tool add.",
        "parameters": {"type": "object", "properties": {}},
    }
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "tool"]
    call = second["messages"][1]["tool_calls"][0]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 2, "b": 3})
    assert second["messages"][2] == {"role": "tool", "tool_call_id": call["id"], "content": "5"}


@pytest.mark.parametrize("stream", [True, False])
async def test_texts_of_all_rounds_are_the_answer_and_tool_rounds_are_not_shown(stream: bool) -> None:
    model = ScriptedModel([calls(("now", {}), text="Let me look.", stream=stream), says("It is ", "noon.")])
    found = await answer(model, Tools(clock={"now": lambda: "12:00"}), chat("clock", stream=stream))
    assert found.text == "Let me look.\n\nIt is noon."
    assert found.finish == "stop"
    assert model.asked[1]["messages"][1]["content"] == "Let me look."


async def test_texts_come_at_once() -> None:
    model = ScriptedModel([calls(("now", {}), text="Let me look."), says("Noon.")])
    shown: list[str] = []
    tools = Tools(clock={"now": lambda: ToolResult(f"shown so far: {''.join(shown)}")})
    task = chat("clock")
    request = read_chat(task)
    assert request is not None
    async for each in run_loop(task, request, tools, model.run, LIMITS, nothing):
        if isinstance(each, Delta):
            shown.append(each.text)
    assert results(model) == ["shown so far: Let me look."]


async def test_several_calls_run_side_by_side_and_answers_stay_in_order() -> None:
    both = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        await both.wait()
        return name

    model = ScriptedModel([calls(("one", {"name": "first"}), ("two", {"name": "second"})), says("done")])
    tools = Tools(a={"one": meet}, b={"two": meet})
    found = await expect(answer(model, tools, chat("a", "b")), "both are called at once")
    assert results(model) == ["first", "second"]
    assert [each for each in found.progress if each[0] == "tool"] == [("tool", "a/one"), ("tool", "b/two")]


async def test_what_goes_wrong_with_a_tool_is_for_the_model() -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    def against_the_protocol() -> None:
        raise ToolFault("the tool bad failed: unknown argument")

    wanted = [
        ("failing", {}),
        ("slow", {}),
        ("bad", {}),
        ("good", "this is no JSON"),
        ("good", "[1]"),
        ("god", {}),
        ("good", ""),
    ]
    model = ScriptedModel([calls(*wanted), says("sorry")])
    tools = Tools(
        a={
            "failing": lambda: ToolResult("it went wrong", is_error=True),
            "slow": never,
            "bad": against_the_protocol,
            "good": lambda: "fine",
        }
    )
    found = await expect(answer(model, tools, chat("a"), LoopLimits(seconds=0.01)), "the loop ends")
    assert found.text == "sorry"
    told = results(model)
    assert told[0] == "Error: it went wrong"
    assert told[1] == "Error: the tool slow did not answer within 1 s"
    assert told[2] == "Error: the tool bad failed: unknown argument"
    assert "no JSON object" in told[3]
    assert "no JSON object" in told[4]
    assert told[5] == "Error: there is no tool 'god'; did you mean good?"
    assert told[6] == "fine"


async def test_a_server_that_does_not_run_ends_the_chat_and_the_other_calls() -> None:
    ended = asyncio.Event()

    async def long() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    def dead() -> None:
        raise EngineFailed("the MCP server 'b' does not run: killed by SIGKILL", status=424)

    model = ScriptedModel([calls(("long", {}), ("dead", {})), says("never")])
    with pytest.raises(EngineFailed, match="killed by SIGKILL") as caught:
        await expect(answer(model, Tools(a={"long": long}, b={"dead": dead}), chat("a", "b")), "the chat ends")
    assert caught.value.blames == "", "it says nothing against the agent's model"
    assert ended.is_set()


async def test_calls_for_the_client_end_the_loop() -> None:
    for stream in (True, False):
        model = ScriptedModel([calls(("now", {})), calls(("ask_user", {"q": "?"}), ("now", {}), stream=stream)])
        tools = Tools(clock={"now": lambda: "12:00"})
        task = chat("clock", stream=stream, tools=[{"type": "mcp", "server_label": "clock"}, CLIENT_TOOL])
        found = await answer(model, tools, task)
        assert found.finish == "tool_calls"
        assert found.client_calls == ["ask_user"]
        assert tools.called == [("clock", "now", {})], "what it wanted beside a client's function is not called"
        names = [each["function"]["name"] for each in model.asked[0]["tools"]]
        assert names == ["ask_user", "now"]


async def test_after_the_last_step_the_model_answers_without_tools() -> None:
    model = ScriptedModel([*[calls(("now", {})) for _ in range(3)], says("enough")])
    tools = Tools(clock={"now": lambda: "12:00"})
    found = await answer(model, tools, chat("clock"), LoopLimits(steps=3))
    assert (found.text, len(tools.called)) == ("enough", 3)
    assert model.asked[3]["tool_choice"] == "none"
    assert "tool_choice" not in model.asked[2]


async def test_a_model_that_wants_tools_without_end_is_stopped() -> None:
    tools = Tools(clock={"now": lambda: "12:00"})
    model = ScriptedModel([calls(("now", {})) for _ in range(3)])
    with pytest.raises(EngineFailed, match="after 2 rounds"):
        await answer(model, tools, chat("clock"), LoopLimits(steps=2))
    model = ScriptedModel([calls(("now", {}), text="Hm.") for _ in range(3)])
    found = await answer(model, tools, chat("clock"), LoopLimits(steps=2))
    assert found.finish == "length"
    assert not found.client_calls


async def test_after_its_time_no_tool_is_called() -> None:
    model = ScriptedModel([calls(("now", {})), says("enough")])
    tools = Tools(clock={"now": lambda: asyncio.sleep(0.05)})
    await answer(model, tools, chat("clock"), LoopLimits(seconds=0.02))
    assert model.asked[1]["tool_choice"] == "none"


async def test_results_and_calls_of_one_round_are_bounded() -> None:
    model = ScriptedModel([calls(*[("big", {"n": 1000 + number}) for number in range(4)]), says("ok")])
    tools = Tools(a={"big": lambda n: "x" * n})
    await answer(model, tools, chat("a"), LoopLimits(calls=3, result_chars=500))
    told = results(model)
    assert told[0] == "x" * 500 + "\n[cut here: 500 characters more]"
    assert told[3].startswith("Error: not called, because at most 3")
    assert len(tools.called) == 3


async def test_a_long_call_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_calls, "TICK", 0.01)
    model = ScriptedModel([calls(("wait", {})), says("ok")])
    found = await answer(model, Tools(a={"wait": lambda: asyncio.sleep(0.1)}), chat("a"))
    assert len([each for each in found.progress if each[0] == "tool" and " for " in each[1]]) >= 2
    assert found.progress[-1] == ("running", "")


async def test_closing_the_answer_ends_its_calls() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    task = chat("a")
    request = read_chat(task)
    assert request is not None
    model = ScriptedModel([calls(("long", {}))])
    stream = run_loop(task, request, Tools(a={"long": long}), model.run, LIMITS, nothing)
    reading = asyncio.create_task(_read(stream))
    await expect(begun.wait(), "the tool is called")
    reading.cancel()
    await asyncio.wait({reading})
    await expect(ended.wait(), "the call has ended")


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_each_call_is_an_event() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    model = ScriptedModel([calls(("good", {}), ("failing", {})), says("ok")])
    tools = Tools(a={"good": lambda: "fine", "failing": lambda: ToolResult("no", is_error=True)})
    await answer(model, tools, chat("a"), tell=lambda name, data: told.append((name, data)))
    assert [(name, data["server"], data["tool"], data["is_error"]) for name, data in told] == [
        ("call", "a", "good", False),
        ("call", "a", "failing", True),
    ]
    assert all(data["task_id"] == "task" for _, data in told)


async def test_each_call_has_the_trace_of_the_chat() -> None:
    tools = Tools(a={"good": lambda: "fine"})
    asked = msgspec.structs.replace(chat("a"), trace="00-trace")
    await answer(ScriptedModel([calls(("good", {})), says("ok")]), tools, asked)
    assert tools.traces == ["00-trace"]


async def test_a_choice_of_a_tool_counts_in_the_first_round_alone() -> None:
    wanted: list[tuple[Any, Any, Any]] = [
        ("required", "required", None),
        ("auto", "auto", "auto"),
        ({"type": "function", "function": {"name": "now"}}, {"type": "function", "function": {"name": "now"}}, None),
        ({"type": "mcp", "server_label": "clock"}, "required", None),
        (
            {"type": "mcp", "server_label": "clock", "name": "now"},
            {"type": "function", "function": {"name": "now"}},
            None,
        ),
    ]
    for given, first, second in wanted:
        model = ScriptedModel([calls(("now", {})), says("noon")])
        await answer(model, Tools(clock={"now": lambda: "12:00"}), chat("clock", tool_choice=given))
        assert [each.get("tool_choice") for each in model.asked] == [first, second]


async def test_tools_of_the_same_name_and_strange_names_are_kept_apart() -> None:
    long = "x" * 100
    tools = Tools(
        first={"get": lambda: "first", "with.dot": lambda: "dot", long: lambda: "long"},
        second={"get": lambda: "second", "ask_user": lambda: "not the client's"},
    )
    both = [{"type": "mcp", "server_label": each} for each in ("first", "second")]
    model = ScriptedModel([says("hi")])
    await answer(model, tools, chat(tools=[*both, CLIENT_TOOL]))
    names = [each["function"]["name"] for each in model.asked[0]["tools"]]
    assert len(set(names)) == len(names) == 6
    assert {"ask_user", "first_get", "second_get", "first_with_dot", "second_ask_user"} <= set(names)
    assert all(len(name) <= 64 for name in names)
    (long_name,) = [name for name in names if "xxx" in name]
    model = ScriptedModel([calls(("second_get", {}), (long_name, {}), ("first_with_dot", {})), says("hi")])
    await answer(model, tools, chat(tools=[*both, CLIENT_TOOL]))
    assert results(model) == ["second", "long", "dot"]


def test_names_with_labels_stay_the_same_whichever_servers_there_are() -> None:
    one, other, long = Place("a", McpTool("get")), Place("b", McpTool("get")), Place("a", McpTool("x" * 100))
    assert list(named([one], labelled=True)) == ["a_get"]
    found = named([one, other, long], labelled=True)
    assert list(found)[:2] == ["a_get", "b_get"]
    assert [len(name) for name in found] == [5, 5, 64]
    assert list(named([long], labelled=True)) == list(found)[2:]


async def test_allowed_tools_are_those_that_the_model_is_told_of() -> None:
    tools = Tools(a={"one": lambda: 1, "two": lambda: 2})
    for allowed in (["two"], {"tool_names": ["two"]}):
        model = ScriptedModel([calls(("one", {})), says("hi")])
        await answer(model, tools, chat(tools=[{"type": "mcp", "server_label": "a", "allowed_tools": allowed}]))
        assert [each["function"]["name"] for each in model.asked[0]["tools"]] == ["two"]
        assert results(model) == ["Error: there is no tool 'one'"]
    with pytest.raises(InvalidRequest, match="has no tool 'three'; it has: one, two"):
        await answer(model, tools, chat(tools=[{"type": "mcp", "server_label": "a", "allowed_tools": ["three"]}]))


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({}, "server_label must name"),
        ({"server_label": ""}, "server_label must name"),
        ({"server_label": "a/b"}, "server_label must name"),
        ({"server_label": 5}, "server_label must name"),
        ({"server_label": "a", "server_url": "http://x"}, "leave server_url out"),
        ({"server_label": "a", "headers": {"a": "b"}}, "where the server is configured"),
        ({"server_label": "a", "require_approval": "always"}, "set require_approval to never"),
        ({"server_label": "a", "require_approval": {"never": {}}}, "set require_approval to never"),
        ({"server_label": "a", "allowed_tools": "x"}, "must be a list"),
        ({"server_label": "a", "allowed_tools": [1]}, "must be a list"),
        ({"server_label": "a", "allowed_tools": {"read_only": True}}, "must be a list"),
    ],
)
def test_what_is_wrong_with_a_server_in_a_request_is_said(tool: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_chat(chat(tools=[{"type": "mcp"} | tool]))
    assert caught.value.status == 400


def test_other_requests_are_left_alone() -> None:
    for task in (
        chat(tools=[CLIENT_TOOL]),
        chat(tools=None),
        chat(tools="mcp"),
        chat(messages="mcp", tools=[{"type": "mcp", "server_label": "a"}]),
        TaskRequest("hub", "t", 1, "chat", "m", '{"tools": ["mcp", "'),
        TaskRequest("hub", "t", 1, "embedding", "m", '{"input": "mcp", "tools": [{"type": "mcp"}]}'),
    ):
        assert read_chat(task) is None
    with pytest.raises(InvalidRequest, match="leave n out"):
        read_chat(chat("a", n=2))
    with pytest.raises(InvalidRequest, match="17 MCP servers"):
        read_chat(chat(*(f"s{number}" for number in range(17))))


async def test_too_many_tools_are_refused() -> None:
    many = Tools(a={f"tool{number}": lambda: 1 for number in range(129)})
    with pytest.raises(InvalidRequest, match="129 tools, the limit is 128"):
        await answer(ScriptedModel([says("hi")]), many, chat("a"))


async def test_an_unknown_server_is_said_and_a_broken_answer_is_not_resumed() -> None:
    with pytest.raises(InvalidRequest, match="no MCP server 'b'"):
        await answer(ScriptedModel(), Tools(a={}), chat("b"))
    import msgspec

    task = msgspec.structs.replace(chat("a"), resume="It was")
    with pytest.raises(EngineFailed, match="cannot be resumed"):
        await answer(ScriptedModel(), Tools(a={}), task)


async def test_a_failure_of_the_model_is_passed_on() -> None:
    model = ScriptedModel([calls(("now", {})), [EngineFailed("the model broke down")]])
    with pytest.raises(EngineFailed, match="broke down"):
        await answer(model, Tools(clock={"now": lambda: "12:00"}), chat("clock"))


async def test_a_server_without_tools_is_a_plain_chat() -> None:
    model = ScriptedModel([says("hi")])
    assert (await answer(model, Tools(a={}), chat("a", tool_choice="auto"))).text == "hi"
    assert "tools" not in model.asked[0]
    assert "tool_choice" not in model.asked[0]
