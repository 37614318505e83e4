"""Traces in the forms in which they are published: read, checked, cut and replayed."""

from __future__ import annotations

import json
import runpy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiment.answering import measured
from tests.experiment.test_conversations import Server
from tests.long_form import examples

from anywire.errors import ConfigError
from anywire_experiment.load.prompts import PromptMaker
from anywire_experiment.load.sessions import sessions
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.plan.trace_formats import FORMATS, Arrival
from anywire_experiment.plan.traces import read_trace
from anywire_experiment.plan.traffic import CANCELLED
from anywire_experiment.plan.workload import Prompts, Trace, Window, Workload

SAMPLES = Path(__file__).parents[2] / "benchmarks/experiments/traces"
MOONCAKE = [
    {"timestamp": 0, "input_length": 20, "output_length": 5, "hash_ids": [1, 2]},
    {"timestamp": 1500, "input_length": 26, "output_length": 7, "hash_ids": [1, 2, 3]},
]
BURSTGPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,1,2.5,ChatGPT,10,20,30,Conversation log\n"
    "6,,1,GPT-4,40,8,48,API log\n"
    "9.5,1,1,ChatGPT,45,20,65,Conversation log\n"
    "10,,1,ChatGPT,40,0,40,API log\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def test_mooncake_has_milliseconds_and_hashes(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, lines(MOONCAKE))) == [
        Arrival(0.0, 20, 5, blocks=(1, 2)),
        Arrival(1.5, 26, 7, blocks=(1, 2, 3)),
    ]


def test_burstgpt_has_sessions_with_pauses_and_leaves_out_what_failed_there(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, BURSTGPT)) == [
        Arrival(0.0, 10, 20, session="1"),
        Arrival(1.0, 40, 8),
        Arrival(4.5, 45, 20, session="1", think_s=2.0),
    ]
    without = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n"
    assert read_trace(written(tmp_path, without)) == [Arrival(0.0, 472, 18)]


def test_azure_has_dates_with_seven_digits_and_zones(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.0099300+00:00,2162,5\n2024-05-10 00:00:01.0099300+00:00,2399,6\n"
    )
    assert [each.at for each in read_trace(written(tmp_path, text))] == pytest.approx([0.0, 1.0])


def test_all_that_a_row_may_say(tmp_path: Path) -> None:
    text = (
        "arrival_s,input_tokens,output_tokens,prefix,priority,deadline_s,tenant,session,think_s,blocks,model,stream,"
        "cancel_s,cancel_tokens\n"
        "1,2,3,4,5,6,t,s,7,8 9,m,true,10,11\n"
    )
    assert read_trace(written(tmp_path, text)) == [
        Arrival(0.0, 2, 3, 4, 5, 6.0, "t", "s", 7.0, (8, 9), "m", True, 10.0, 11)
    ]


def test_a_part_of_a_trace_is_replayed_at_its_own_speed(tmp_path: Path) -> None:
    rows = "".join(f"{at},1,{at + 1}\n" for at in range(10))
    path = written(tmp_path, f"arrival_s,input_tokens,output_tokens\n{rows}")
    found = read_trace(path, Trace(file=path, window=Window(start=3, seconds=5), first=3, speed=2))
    assert [(each.at, each.output_tokens) for each in found] == [(0, 4), (0.5, 5), (1, 6)]
    with pytest.raises(ConfigError, match="no requests in the window from 20 s for 5 s; its last one comes after 9 s"):
        read_trace(path, Trace(file=path, window=Window(start=20, seconds=5)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the header must name the columns of its format"),
        ("a,b\n", r"azure: TIMESTAMP, ContextTokens, GeneratedTokens; .*it has a, b"),
        ('{"timestamp": 1}\n', "line 1: there is no 'input_length'"),
        ('{"timestamp": 1\n', "line 1: "),
        ('{"timestamp": 1, "input_length": 3, "output_length": 4}\n[]\n', "line 2: expected an object"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 4, "hash_ids": "x"}\n', "hash_ids: expected a list"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 4, "hash_ids": [true]}\n', "hash_ids: expected a list"),
        ('{"timestamp": "x", "input_length": 3, "output_length": 4}\n', "line 1: could not convert"),
        ('{"timestamp": 1e999, "input_length": 3, "output_length": 4}\n', "line 1"),
        ("Timestamp,Request tokens,Response tokens\n1,x,3\n", "line 2: invalid literal"),
        ("Timestamp,Request tokens,Response tokens\n1,1,0\n", "has no requests"),
        ("arrival_s,input_tokens,output_tokens,think_s\n0,1,2,-1\n", "line 2: think_s is from 0"),
        ("arrival_s,input_tokens,output_tokens,stream\n0,1,2,maybe\n", "line 2: stream is true or false"),
        ("arrival_s,input_tokens,output_tokens,blocks\n0,1,2,a b\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens,priority\n0,1,2,99999999999\n", "line 2: priority is from"),
        ("arrival_s,input_tokens,output_tokens\n0,9999999999,2\n", "line 2: input_tokens is from 0 to 1000000"),
        ("arrival_s,input_tokens,output_tokens\nnan,1,2\n", "line 2: arrival_s must be a number"),
        ("arrival_s,input_tokens,output_tokens,model\n0,1,2,\x1b[2J\n", "line 2: model has at most"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_trace(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "wanted", "says"),
    [
        (lines(MOONCAKE), "azure", "has the format mooncake, and the plan says azure"),
        (BURSTGPT, "mooncake", "the header must name the columns"),
        (BURSTGPT, "azure", r"columns of its format \(azure: TIMESTAMP, ContextTokens, GeneratedTokens"),
    ],
)
def test_a_trace_of_another_format_than_the_plan_says_is_refused(
    tmp_path: Path, text: str, wanted: Any, says: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=says):
        read_trace(path, Trace(file=path, format=wanted))


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=examples(40), deadline=None)
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    heads = ["", *(",".join(each.columns) + "\n" for each in FORMATS.values()), '{"timestamp": ']
    for head in heads:
        path.write_bytes(head.encode() + content)
        with suppress(ConfigError):
            assert read_trace(path)


def test_equal_hashes_are_equal_text_of_so_many_tokens() -> None:
    maker = PromptMaker(Prompts(), seed=1, shared=9, block_tokens=10)

    def words(blocks: tuple[int, ...], tokens: int) -> list[str]:
        (message,) = maker.messages(tokens, blocks=blocks)
        return str(message["content"]).split()

    first, second, other = words((7, 8), 20), words((7, 8, 3), 26), words((7, 5), 20)
    assert [len(each) for each in (first, second, other)] == [20, 26, 20]
    assert second[:20] == first
    assert other[:10] == first[:10]
    assert other[10:] != first[10:]
    assert words((7, 8), 20) == first, "hashes say that it is the same prompt"
    longer = words((7,), 15), words((7,), 15)
    assert [len(each) for each in longer] == [15, 15]
    assert longer[0] != longer[1], "what no hash stands for is each request's own"
    assert words((7, 8), 4) == first[:4]


@given(st.integers(1, 5000), st.integers(0, 3000))
@settings(max_examples=examples(40), deadline=None)
def test_a_prompt_has_as_many_words_as_tokens_are_wanted(tokens: int, prefix: int) -> None:
    maker = PromptMaker(Prompts(shared_prefix_tokens=prefix), seed=1, shared=2)
    (message,) = maker.messages(tokens)
    assert len(message["content"].split()) == max(tokens, prefix + 2)
    assert maker.messages(tokens) != [message]


async def test_a_session_of_a_trace_waits_for_its_answers_and_has_the_recorded_sizes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "arrival_s,input_tokens,output_tokens,session,think_s\n"
        "0,10,2,a,\n0.001,40,2,a,0.05\n0.002,12,2,,\n0.003,60,2,a,0.01\n0.004,20,2,a,0\n",
    )
    server = Server()
    load: dict[str, Any] = {"arrivals": {"kind": "trace", "file": str(path)}}
    table = await measured(tmp_path, server.answer, load)
    rows = sorted(table.to_pylist(), key=lambda each: (each["session"], each["turn"]))
    assert [(each["session"], each["turn"]) for each in rows] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert rows[1]["intended_ns"] == rows[0]["done_ns"] + 50_000_000
    asked = sorted(server.messages, key=len)
    sizes = [sum(len(each["content"].split()) for each in messages) for messages in server.messages]
    assert sorted(sizes) == [10, 12, 20, 40, 60]
    assert [len(each) for each in asked] == [1, 1, 1, 3, 5], "a prompt smaller than its history begins anew"
    apart = Server()
    load["arrivals"]["by_session"] = False
    table = await measured(tmp_path, apart.answer, load)
    assert table["session"].null_count == 5
    assert [len(each) for each in apart.messages] == [1] * 5


async def test_a_trace_says_what_is_streamed_of_which_model_and_given_up(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "arrival_s,input_tokens,output_tokens,model,stream,cancel_s\n0,10,2,m1,false,\n0.001,10,3,m2,false,5\n",
    )
    server = Server()
    table = await measured(tmp_path, server.answer, {"arrivals": {"kind": "trace", "file": str(path)}, "stream": True})
    assert [(each["model"], each.get("stream", False)) for each in server.asked] == [("m1", False), ("m2", False)]
    assert table["outcome"].to_pylist() == ["ok", CANCELLED]


def test_a_request_with_no_known_pause_begins_a_session() -> None:
    rows = [Arrival(0, session="a"), Arrival(1, session="a"), Arrival(2, session="a", think_s=1.0), Arrival(3)]
    workload = Workload.model_validate({"arrivals": {"kind": "trace", "file": "x"}})
    found = list(sessions(workload, rows, "1", 1e9, Path()) or ())
    assert [(each.at, len(each.turns)) for each in found] == [(0, 1), (1, 2), (3, 1)]
    assert sessions(workload, [Arrival(0), Arrival(1, session="a")], "1", 1e9, Path()) is None


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_shipped_trace_is_read(path: Path) -> None:
    if path.suffix in (".csv", ".jsonl"):
        assert len(read_trace(path)) >= 20


def test_a_plan_with_a_broken_trace_is_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,x,1\n")
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: p\nworkloads:\n  w: {arrivals: {kind: trace, file: t.csv}}\n")
    with pytest.raises(ConfigError, match="line 2"):
        load_plan(plan)
    plan.write_text("name: p\nworkloads:\n  w: {requests: 1, sizes: {file: t.csv}}\n")
    with pytest.raises(ConfigError, match="line 2"):
        load_plan(plan)


def test_the_shipped_traces_are_those_that_their_script_makes() -> None:
    made: dict[str, str] = runpy.run_path(str(SAMPLES / "make_traces.py"))["made"]()
    assert len(made) == 3
    for name, text in made.items():
        assert (SAMPLES / name).read_text() == text, f"{name}: run make_traces.py"
