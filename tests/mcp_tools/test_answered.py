"""How deltas of a round become text for the client and calls of tools, however a server cuts them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire_engine_mcp.tool_loop.answered import MAX_CALL_BYTES, Answered, added_usage

names = st.text(st.sampled_from("abc_-"), min_size=1, max_size=8)
arguments = st.dictionaries(names, st.integers() | st.text(max_size=10), max_size=3).map(json.dumps)
wanted = st.lists(st.tuples(names, arguments), min_size=1, max_size=4)


def piece(*calls: dict[str, Any], **delta: Any) -> Delta:
    choice = {"index": 0, "delta": {"tool_calls": list(calls)} | delta, "finish_reason": None}
    return Delta(str(delta.get("content") or ""), json.dumps([choice]))


def take(*deltas: Delta, before: str = "") -> tuple[Answered, list[Delta]]:
    answered = Answered(before)
    return answered, [shown for delta in deltas for shown in answered.take(delta)]


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in pairwise(ends)] or [""]


@given(wanted, st.lists(st.integers(0, 100), max_size=4), st.sampled_from(["index", "ids", "neither"]))
def test_calls_are_put_together_however_they_are_cut(
    calls: list[tuple[str, str]], places: list[int], style: str
) -> None:
    deltas = []
    for number, (name, text) in enumerate(calls):
        index = {"index": number} if style != "neither" else {}
        repeated = {"id": f"id{number}"} if style == "ids" else {}
        deltas.append(piece({**index, "id": f"id{number}", "type": "function", "function": {"name": name}}))
        deltas += [piece({**index, **repeated, "function": {"arguments": part}}) for part in cut(text, places)]
    answered, shown = take(*deltas, Delta("", "", "tool_calls"))
    assert [(call.name, call.arguments) for call in answered.calls] == calls
    assert [call.id for call in answered.calls] == [f"id{number}" for number in range(len(calls))]
    assert not shown


def test_servers_that_count_from_one_send_objects_or_whole_calls() -> None:
    answered, _ = take(
        piece({"index": 1, "id": "x", "function": {"name": "a", "arguments": {"n": 1}}}),
        piece({"index": 2, "id": "y", "function": {"name": "b", "arguments": "{}"}}),
        piece({"index": 2, "id": "y", "function": {"name": "b", "arguments": ""}}),
    )
    assert [(call.name, call.arguments) for call in answered.calls] == [("a", '{"n":1}'), ("b", "{}")]
    two_with_one_index, _ = take(
        piece({"index": 0, "id": "x", "function": {"name": "a", "arguments": "{}"}}),
        piece({"index": 0, "id": "y", "function": {"name": "a", "arguments": "{}"}}),
    )
    assert len(two_with_one_index.calls) == 2


def test_what_is_beside_calls_goes_on() -> None:
    answered, shown = take(
        piece({"index": 0, "id": "x", "function": {"name": "a"}}, reasoning_content="I think"),
        piece(role="assistant"),
        Delta("Hello", json.dumps({"choices": [], "system_fingerprint": "f"})),
    )
    assert [json.loads(each.extra) for each in shown] == [
        [{"index": 0, "delta": {"reasoning_content": "I think"}, "finish_reason": None}],
        {"choices": [], "system_fingerprint": "f"},
    ]
    assert answered.message() == {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "I think",
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": "a", "arguments": ""}}],
    }


def test_rounds_are_kept_apart_by_an_empty_line() -> None:
    assert "".join(each.text for each in take(Delta("b"), Delta("c"), before="a")[1]) == "\n\nbc"
    assert "".join(each.text for each in take(Delta("b"), before="a\n")[1]) == "b"
    shown = take(piece(content="b"), before="a")[1]
    assert [each.text for each in shown] == ["\n\n", "b"]


@pytest.mark.parametrize("extra", ["{", "5", '{"choices": 5}'])
def test_choices_that_are_none_are_the_engines_failure(extra: str) -> None:
    with pytest.raises(EngineFailed, match="no JSON"):
        take(Delta("", extra))


def test_calls_without_bounds_are_refused() -> None:
    with pytest.raises(EngineFailed, match="more than"):
        take(*[piece({"index": 0, "function": {"arguments": "x" * (MAX_CALL_BYTES // 4)}}) for _ in range(6)])
    with pytest.raises(EngineFailed, match="more than"):
        take(*[piece({"index": number, "id": "x", "function": {"name": "a"}}) for number in range(300)])
    with pytest.raises(EngineFailed, match="is none"):
        take(Delta("", json.dumps([{"index": 0, "delta": {"tool_calls": [5]}}])))


def test_usages_are_added_and_strange_ones_are_kept() -> None:
    assert added_usage("", "") == ""
    assert added_usage("", '{"a":1}') == added_usage('{"a":1}', "") == '{"a":1}'
    assert json.loads(added_usage('{"a":1,"d":{"x":1}}', '{"a":2,"d":{"x":1,"y":2},"s":"t"}')) == {
        "a": 3,
        "d": {"x": 2, "y": 2},
        "s": "t",
    }
    assert added_usage('{"a":1}', "[]") == "[]"


def test_a_whole_answer_keeps_its_members_and_the_texts_of_all_rounds() -> None:
    message = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    answered, _ = take(Delta("b", json.dumps({"choices": [choice], "system_fingerprint": "f"}), "stop"), before="a")
    (last,) = answered.last("a\n\nb", [], "", stream=False)
    extra = json.loads(last.extra)
    assert extra["system_fingerprint"] == "f"
    assert extra["choices"][0]["message"] == message | {"content": "a\n\nb"}
    assert (last.text, last.finish_reason) == ("a\n\nb", "stop")
