"""Answers that are recorded and given again, and the errors of requests that none was recorded for."""

from __future__ import annotations

import asyncio
import difflib
import errno
import json
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.builtin.recorded import RecordedConfig, RecordedEngine
from anywire.builtin.recording import RecordedInner, RecordingConfig, RecordingEngine
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, Engine, EngineProgress
from anywire.errors import ConfigError, EngineFailed, InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.plugins import Plugins
from anywire.recorded_answers import AnswerFile, RecordedAnswer, RecordedDelta, read_answers
from anywire.secrecy import keep_secret


def request(
    body: dict[str, Any], kind: Kind = "chat", stream: bool = False, model: str = "synthetic", resume: str = ""
) -> TaskRequest:
    return TaskRequest("h", "t", 1, kind, model, json.dumps(body), stream, resume)


def chat(text: str, **members: Any) -> dict[str, Any]:
    return {"model": "synthetic", "messages": [{"role": "user", "content": text}], **members}


async def run(engine: Engine, task: TaskRequest) -> list[Delta]:
    return [each async for each in engine.run(task) if isinstance(each, Delta)]


def recording(file: Path, inner: Engine | None = None) -> RecordingEngine:
    engine = RecordingEngine(RecordingConfig(file=file))
    engine.stand_around(inner or SyntheticEngine(SyntheticConfig()))
    return engine


async def recorded(file: Path, **options: Any) -> RecordedEngine:
    engine = RecordedEngine(RecordedConfig(file=file, **options))
    await engine.start(lambda: None)
    return engine


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


async def test_what_was_recorded_is_given_again_delta_for_delta(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    writing = recording(file)
    tasks = [
        request(chat("one"), stream=True),
        request(chat("two", max_tokens=3)),
        request(chat("three", tools=TOOLS, tool_choice="required"), stream=True),
        request(chat("three", tools=TOOLS, tool_choice="required")),
        request({"prompt": "four"}, "completion"),
        request({"input": ["a", "b"]}, "embedding"),
    ]
    given_first = [await run(writing, each) for each in tasks]
    assert writing.written == len(tasks)
    engine = await recorded(file)
    for task, first in zip(tasks, given_first, strict=True):
        assert await run(engine, task) == first
    (offer,) = engine.status().offers
    assert (offer.model, offer.kinds) == ("synthetic", ("chat", "completion", "embedding"))
    # Text is the same streamed and whole, and who asks does not matter.
    whole = await run(engine, request(chat("one", user="me", stream=False)))
    assert "".join(each.text for each in whole) == "".join(each.text for each in given_first[0])
    assert file.stat().st_mode & 0o077 == 0


async def test_several_answers_to_one_request_are_given_in_their_order(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    for text in ("a", "b"):
        file.append(RecordedAnswer("chat", "m", {"messages": []}, (RecordedDelta(text),)))
    engine = await recorded(file.path)
    texts = [(await run(engine, request({"messages": []}, model="m")))[0].text for _ in range(4)]
    assert texts == ["a", "b", "b", "b"]


async def test_a_request_without_an_answer_is_told_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    writing = recording(file)
    for task in (
        request(chat("What is the capital of France?", temperature=0)),
        request(chat("How are you?")),
        request(chat("call", tools=TOOLS, tool_choice="required"), stream=True),
    ):
        await run(writing, task)
    engine = await recorded(file)

    async def refused(task: TaskRequest) -> str:
        with pytest.raises(InvalidRequest) as caught:
            await run(engine, task)
        assert (caught.value.status, caught.value.detail_code) == (404, "not_recorded")
        return str(caught.value)

    told = await refused(request(chat("What is the capital of Frankreich?", temperature=0.5, seed=1)))
    assert "'What is the capital of Frankreich?'" in told
    assert "The nearest of 3 is 'What is the capital of France?'" in told
    assert "messages; seed (asked: 1, recorded: none); temperature (asked: 0.5, recorded: 0)" in told
    assert "model (recorded: 'synthetic')" in await refused(request(chat("How are you?"), model="other"))
    assert "recorded as a stream alone" in await refused(request(chat("call", tools=TOOLS, tool_choice="required")))
    assert "no answers of that kind" in await refused(request({"input": "x"}, "embedding"))
    with pytest.raises(InvalidRequest, match="no JSON object"):
        await run(engine, TaskRequest("h", "t", 1, "chat", "m", "[]"))


async def test_what_fails_is_cut_off_or_goes_on_is_not_recorded(tmp_path: Path) -> None:
    class Failing(SyntheticEngine):
        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            yield Delta("half")
            raise EngineFailed("no")

    file = tmp_path / "answers.jsonl"
    writing = recording(file, Failing(SyntheticConfig()))
    with pytest.raises(EngineFailed):
        await run(writing, request(chat("x")))
    writing = recording(file)
    cut = writing.run(request(chat("x"), stream=True))
    await anext(cut)
    await cut.aclose()
    first = "".join(each.text for each in await run(SyntheticEngine(SyntheticConfig()), request(chat("x"))))
    await run(writing, request(chat("x"), stream=True, resume=first[:5]))
    assert writing.written == 0
    assert not file.exists()
    blocked = recording(tmp_path)
    with pytest.raises(EngineFailed, match="cannot be written"):
        await run(blocked, request(chat("x")))


async def test_known_secrets_are_in_no_file(tmp_path: Path) -> None:
    keep_secret("hunter2-9f8Qz7Lm4Xw1")
    file = tmp_path / "answers.jsonl"
    asked = request(chat("x", tools=[{"type": "mcp", "authorization": "hunter2-9f8Qz7Lm4Xw1"}], tool_choice="none"))

    class Plain(SyntheticEngine):
        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            yield Delta("fine", "", "stop")

    await run(recording(file, Plain(SyntheticConfig())), asked)
    assert "hunter2" not in file.read_text()
    assert (await run(await recorded(file), asked))[0].text == "fine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"anywire_answers": 2}\n', "has the form 2"),
        ("{}\n", "line 1"),
        ('{"anywire_answers": 1}\n\n{"kind": 3}\n', "line 3"),
        ("\x00", "line 1"),
    ],
)
def test_a_file_that_is_none_is_an_error_that_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_answers(tmp_path / "f")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_answers(tmp_path / "nothing")


async def test_recorded_pace_is_kept(tmp_path: Path) -> None:
    class Now:
        def __init__(self) -> None:
            self.at, self.slept = 0.0, list[float]()

        def now(self) -> float:
            return self.at

        async def sleep(self, seconds: float) -> None:
            self.slept.append(round(seconds, 6))
            self.at += seconds

    file = AnswerFile(tmp_path / "answers.jsonl")
    deltas = (RecordedDelta("a", after_ms=100), RecordedDelta("b", after_ms=250))
    file.append(RecordedAnswer("chat", "m", {"messages": []}, deltas))
    engine = await recorded(file.path, pace="recorded")
    clock = Now()
    engine.clock = clock  # type: ignore[assignment]
    await run(engine, request({"messages": []}, model="m"))
    assert clock.slept == [0.1, 0.15]


def test_the_engine_around_which_it_records_is_made_by_name(tmp_path: Path) -> None:
    engine = RecordingEngine(RecordingConfig(file=tmp_path / "f", inner=RecordedInner(name="synthetic", seed=3)))
    plugins = Plugins()
    engine.assemble(lambda name, options, where: plugins.create("engines", name, options, where))
    assert isinstance(engine.inner, SyntheticEngine)
    assert engine.inner.config.seed == 3
    assert engine.capabilities == SyntheticEngine.capabilities
    with pytest.raises(ConfigError, match="another engine"):
        RecordingEngine(RecordingConfig(file=tmp_path / "f", inner="recording")).assemble(no_engine)


def no_engine(name: str, options: Any, where: str) -> Engine:
    raise AssertionError(name)


TEXT = st.text(max_size=10)
DELTAS = st.lists(
    st.builds(
        RecordedDelta,
        TEXT,
        st.sampled_from(["", '[{"index":0}]']),
        st.sampled_from(["", "stop"]),
        after_ms=st.floats(0, 9),
    ),
    max_size=4,
)


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(TEXT, st.booleans(), DELTAS), max_size=5))
def test_a_file_holds_what_was_written(tmp_path_factory: pytest.TempPathFactory, answers: list[Any]) -> None:
    file = AnswerFile(tmp_path_factory.mktemp("answers") / "f")
    written = [
        RecordedAnswer("chat", model, {"messages": [model]}, tuple(deltas), stream) for model, stream, deltas in answers
    ]
    for each in written:
        file.append(each)
    if written:
        assert read_answers(file.path) == written


async def test_lines_of_writers_at_once_are_whole(tmp_path: Path) -> None:
    writing = recording(tmp_path / "answers.jsonl")
    await asyncio.gather(*(run(writing, request(chat(f"{number}"))) for number in range(30)))
    assert len(read_answers(tmp_path / "answers.jsonl")) == 30


def test_a_file_that_an_editor_or_two_writers_have_left_is_added_to(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    answer = RecordedAnswer("chat", "m", {"messages": []}, (RecordedDelta("a"),))
    file.append(answer)
    file.path.write_bytes(file.path.read_bytes().rstrip(b"\n"))
    file.append(answer)
    assert read_answers(file.path) == [answer, answer]
    head = file.path.read_bytes().splitlines()[0]
    file.path.write_bytes(head + b"\n" + file.path.read_bytes())
    assert read_answers(file.path) == [answer, answer]


def test_an_answer_that_cannot_be_written_whole_is_not_written_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    answer = RecordedAnswer("chat", "m", {"messages": []}, (RecordedDelta("a"),))
    file.append(answer)
    write, left = os.write, [20]

    def short(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space left")
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    with monkeypatch.context() as full:
        full.setattr(os, "write", short)
        with pytest.raises(OSError, match="no space left"):
            file.append(answer)
    file.append(answer)
    assert read_answers(file.path) == [answer, answer]


async def test_what_is_too_long_to_be_recorded_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writing = recording(tmp_path / "answers.jsonl")
    assert await run(writing, request(chat("x" * 1_100_000)))
    assert writing.written == 0
    assert "the answer to a chat of 'synthetic' is not recorded" in caplog.text


async def test_what_was_recorded_with_servers_of_tools_or_of_another_api_is_offered_with_these(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    tools = [{"type": "mcp", "server_label": "files"}]
    for model, asked in (("m", chat("x", tools=tools)), ("n", {"anywire_api": "messages", "messages": []})):
        file.append(RecordedAnswer("chat", model, asked, (RecordedDelta("a", finish_reason="stop"),)))
    offers = {each.model: each for each in (await recorded(file.path)).status().offers}
    assert not offers["m"].lacks("mcp:files")
    assert offers["m"].lacks("api:messages")
    assert not offers["n"].lacks("api:messages")
    assert not offers["n"].lacks("tools")


async def test_the_nearest_of_many_is_found_soon_and_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    for number in range(200):
        file.append(RecordedAnswer("chat", "m", chat(f"question {number} of many"), (RecordedDelta("a"),)))
    engine = await recorded(file.path)
    compared: list[threading.Thread] = []
    ratio = difflib.SequenceMatcher.ratio

    def noted(matcher: difflib.SequenceMatcher[str]) -> float:
        compared.append(threading.current_thread())
        return ratio(matcher)

    monkeypatch.setattr(difflib.SequenceMatcher, "ratio", noted)
    with pytest.raises(InvalidRequest, match="The nearest of 200 is 'question 137 of many'"):
        await run(engine, request(chat("question 137 of them"), model="m"))
    assert len(compared) <= 20
    assert threading.main_thread() not in compared
