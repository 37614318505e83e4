"""The playground in a browser: an answer as it comes, what it cost, where it came from, and that it can be stopped."""

from __future__ import annotations

import ast
import asyncio
import json
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from tests.integration.gateway_serving import ScriptedEngine
from tests.ui.browsers import Page
from tests.ui.viewer import HOSTILE, MARKS, viewing

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from anywire.offers import offers
from anywire.testing.patience import expect

pytestmark = MARKS
USAGE = '{"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}'


async def talks(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
    asked = json.loads(task.body)["messages"][-1]["content"]
    if asked == "fail":
        raise EngineFailed(f"the disk is full {HOSTILE}")
    yield Delta("<b>no markup</b> ")
    yield Delta(f"you said {asked}")
    if asked == "wait":
        await asyncio.Event().wait()
    yield Delta(finish_reason="stop", usage=USAGE)


async def test_an_answer_is_shown_as_it_comes_with_what_is_known_of_it(tab: Page, tmp_path: Path) -> None:
    engine = ScriptedEngine(talks, offers("m", HOSTILE))
    async with viewing(tab, tmp_path, engine) as viewer:
        await viewer.open("playground")
        await viewer.until("return document.querySelector('[name=model]')?.options.length === 2", "both models")
        await viewer.until("return document.querySelector('[name=place]').options.length === 3", "both places")
        await viewer.put("model", HOSTILE)
        await viewer.put("place", "agent:agent")
        await viewer.put("system", "Be brief")
        await viewer.put("temperature", "0.5")
        await viewer.put("message", "Hello")
        await viewer.press("Send")
        await viewer.shows("<b>no markup</b> you said Hello")
        await viewer.shows("3 tokens")
        await viewer.shows("first token after")
        await viewer.shows("agent over memory")
        (body,) = (json.loads(each.body) for each in engine.tasks)
        assert body["model"] == HOSTILE
        assert body["temperature"] == 0.5
        assert [each["role"] for each in body["messages"]] == ["system", "user"]
        assert engine.tasks[0].prefer == ("agent",)

        await viewer.press("Headers and times")
        await viewer.shows("x-anywire-task")
        await viewer.shows("7, 3")
        await viewer.put("message", "And now?")
        await viewer.press("Send")
        await viewer.shows("you said And now?")
        said = [each["content"] for each in json.loads(engine.tasks[1].body)["messages"]]
        assert said == ["Be brief", "Hello", "<b>no markup</b> you said Hello", "And now?"]
        await viewer.looks_well("playground")


async def test_a_stopped_answer_ends_at_its_engine_and_a_failed_one_says_why(tab: Page, tmp_path: Path) -> None:
    engine = ScriptedEngine(talks)
    async with viewing(tab, tmp_path, engine) as viewer:
        await viewer.open("playground/m")
        await viewer.until("return document.querySelector('[name=model]')?.value === 'm'", "the model")
        await viewer.put("message", "wait")
        await viewer.press("Send")
        await viewer.shows("you said wait")
        await viewer.press("Stop")
        await viewer.shows("Stopped")
        await expect(engine.cancelled.wait(), "the engine is told")

        await viewer.nothing_went_wrong()
        await viewer.put("message", "fail")
        await viewer.press("Send")
        await viewer.shows("the disk is full <img")
        await viewer.has_no_markup()
        await viewer.put("message", "Hello")
        await viewer.press("Send")
        await viewer.shows("you said Hello")


async def test_whoever_may_only_use_is_told_what_he_may_not_choose(tab: Page, tmp_path: Path) -> None:
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, label="Ann", role="use"))
    access = KeyAccess(tmp_path / "keys.json")
    async with viewing(tab, tmp_path, ScriptedEngine(talks), access=access) as viewer:
        await viewer.open("playground")
        await viewer.sign_in(str(key))
        await viewer.until("return document.querySelector('[name=model]')?.value === 'm'", "the model")
        await viewer.shows("To choose an agent or a transport needs the role observe.")
        assert await viewer.run("return document.querySelector('[name=place]').disabled")
        await viewer.put("message", "Hello")
        await viewer.press("Send")
        await viewer.shows("you said Hello")
        await viewer.press("As curl")
        await viewer.press("As Python")
        code = await viewer.run(
            "return [...document.querySelectorAll('.copy-box code')].map((each) => each.textContent)"
        )
        assert all("ANYWIRE_API_KEY" in each and str(key) not in each for each in code)
        await viewer.looks_well("playground-use")


FORM = {
    "model": HOSTILE,
    "system": 'It\'s "quoted" \\ \n $HOME `x` 🎈',
    "temperature": "0.25",
    "max_tokens": "5",
    "stop": "a\n'b'\n",
    "json": True,
    "timeout": "30",
}


async def test_the_request_is_told_as_a_command_and_as_a_program(tab: Page, tmp_path: Path) -> None:
    async with viewing(tab, tmp_path, ScriptedEngine(talks)) as viewer:
        await viewer.open("keys")
        body, headers, curl, python = await viewer.run_module(
            "const own = await import('/ui/chat_request.js');"
            "const [form, said, preferred] = given;"
            "const body = own.chatBody(form, said); const headers = own.chatHeaders(form, preferred);"
            "return [body, headers, own.asCurl('http://x/v1/chat/completions', headers, body, true), "
            "own.asPython('http://x/v1', headers, body, false)];",
            FORM,
            [{"role": "user", "content": HOSTILE}],
            ["agent-1", "a,b", "ä", "agent-2"],
        )
        assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.25, 5, ["a", "'b'"])
        assert headers["x-anywire-prefer"] == "agent-1,agent-2"

        words = shlex.split(curl.replace("\\\n", " "))
        assert words[:3] == ["curl", "-N", "http://x/v1/chat/completions"]
        assert json.loads(words[words.index("-d") + 1]) == body
        told_headers = [each for each in words if each.startswith("x-anywire")]
        assert sorted(told_headers) == sorted(f"{name}: {value}" for name, value in headers.items())
        (call,) = (
            each
            for each in ast.walk(ast.parse(python))
            if isinstance(each, ast.Call) and any(keyword.arg == "model" for keyword in each.keywords)
        )
        told = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        assert told.pop("extra_headers") == headers
        assert told == body

        wrong = await viewer.run_module(
            "const { chatBody } = await import('/ui/chat_request.js');"
            "try { chatBody({ model: 'm', top_p: 'much' }, []); return ''; } catch (error) { return error.message; }"
        )
        assert "top_p" in wrong


async def test_an_answer_is_the_same_however_it_is_cut(tab: Page, tmp_path: Path) -> None:
    """Reasoning, text, tool calls, usage and stages; whatever else comes changes nothing."""
    events: list[dict[str, Any]] = [
        {"event": "comment", "data": "progress loading 40 %"},
        _delta(reasoning_content="Let me "),
        _delta(reasoning="think"),
        _delta(content="Hel"),
        _delta(content="lo"),
        _delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]),
        _delta(tool_calls=[{"index": 0, "function": {"arguments": '": 1}'}}]),
        _delta(tool_calls=[{"index": 10**9, "function": {"arguments": "x"}}]),
        _delta(content=7, tool_calls="none"),
        {"event": "message", "data": '{"choices": [{"delta": null, "finish_reason": "stop"}]}'},
        {"event": "message", "data": '{"choices": [], "usage": {"completion_tokens": 4}}'},
        {"event": "comment", "data": 'anywire {"stages": {"received-admitted": 1.5}}'},
        {"event": "message", "data": "[DONE]"},
    ]
    async with viewing(tab, tmp_path, ScriptedEngine(talks)) as viewer:
        await viewer.open("keys")
        told = await viewer.run_module(
            "const { ChatAnswer } = await import('/ui/chat_stream.js');"
            "const answer = new ChatAnswer(100); let now = 100;"
            "for (const each of given[0]) answer.take(each, (now += 100));"
            "const { text, reasoning, toolCalls, usage, stages, finish, ended, error, firstAfter, tokens } = answer;"
            "return { text, reasoning, toolCalls, usage, stages, finish, ended, error, firstAfter, tokens,"
            "rate: answer.rate };",
            events,
        )
        assert told == {
            "text": "Hello",
            "reasoning": "Let me think",
            "toolCalls": [{"id": "c", "name": "f", "arguments": '{"a": 1}'}],
            "usage": {"completion_tokens": 4},
            "stages": {"received-admitted": 1.5},
            "finish": "stop",
            "ended": True,
            "error": "",
            "firstAfter": 200,
            "tokens": 4,
            "rate": told["rate"],
        }
        assert told["rate"] > 0
        failed = await viewer.run_module(
            "const { ChatAnswer } = await import('/ui/chat_stream.js');"
            "return given.map((data) => { const answer = new ChatAnswer(0); answer.take({ event: 'message', data }, 1);"
            "return answer.error; });",
            '{"error": {"message": "the engine failed"}}',
            "no JSON",
            "null",
        )
        assert failed == ["the engine failed", "the server sent what is no JSON", ""]


def _delta(**delta: Any) -> dict[str, Any]:
    return {"event": "message", "data": json.dumps({"choices": [{"index": 0, "delta": delta}]})}
