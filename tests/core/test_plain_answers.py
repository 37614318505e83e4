"""Answers of the usual form are read by a short way, and nobody can tell."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire_engine_openai import answers

UNKNOWN = "nobody knows it"
VALUES = st.sampled_from([None, "", "x", "stop", "\ud83e", "\\", [], {}, [{"a": 1}], 0, 1.5, True, {"b": None}])
FINISH = st.sampled_from([None, None, "", "stop", "length", "tool_calls", 5])
TEXTS = st.sampled_from([None, "", "a", " the", "é😀", '"', "\n", "\ud83e", [], [{"type": "text", "text": "x"}]])
USAGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, {}, {"prompt_tokens": 1, "completion_tokens": 2}, {"completion_tokens": 0}, [], "x", {"a": "\ud83e"}]
)


def members(*usual: tuple[str, st.SearchStrategy[Any]], others: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the usual members, and now and then others."""
    rare = st.dictionaries(st.sampled_from(others), VALUES, max_size=2)
    return st.builds(
        lambda given, beside: beside | given,
        st.fixed_dictionaries({}, optional=dict(usual)),
        st.one_of(st.just({}), st.just({}), rare),
    )


BESIDE = ("system_fingerprint", "service_tier", "prompt_logprobs", "kv_transfer_params", "error", "data", "odd")
MESSAGE = members(
    ("content", TEXTS),
    ("role", st.sampled_from(["assistant", None])),
    others=("refusal", "tool_calls", "reasoning_content", "annotations", "audio", "new"),
)
CHOICE = members(
    ("index", st.sampled_from([0, 0, 0, 0, 1, None, "0"])),
    ("delta", MESSAGE),
    ("message", MESSAGE),
    ("text", TEXTS),
    ("finish_reason", FINISH),
    others=("logprobs", "stop_reason", "token_ids", "new"),
)
ANSWER = members(
    ("choices", st.one_of(st.lists(CHOICE, max_size=2), CHOICE.map(lambda choice: [choice]), st.just(None))),
    ("id", st.just("c-1")),
    ("object", st.just("chat.completion")),
    ("created", st.just(5)),
    ("model", st.just("m")),
    ("usage", USAGE),
    ("obfuscation", st.just("abc")),
    others=BESIDE,
)


def outcome(read: Any, content: Any, keep: bool) -> Any:
    try:
        return read(json.dumps(content).encode(), keep=keep)
    except (EngineFailed, InvalidRequest) as error:
        return type(error), str(error).partition(":")[0].partition("(")[0]


@given(ANSWER, st.booleans(), st.sampled_from([answers.step, answers.whole]))
@settings(max_examples=examples(400), deadline=None)
def test_the_short_way_and_the_long_one_agree(content: Any, keep: bool, read: Any) -> None:
    """A member that nobody knows makes an answer go the long way, and one that is null says nothing."""
    ends = [choice.get("finish_reason") for choice in content.get("choices") or ()]
    if read is answers.step and not any(ends) and ends:
        # What stands beside nothing but text is not told.
        content = {name: value for name, value in content.items() if name not in BESIDE or name == "error"}
    long = json.loads(json.dumps(content))
    for each in long.get("choices") or [long]:
        each[UNKNOWN] = None
    found, expected = outcome(read, content, keep), outcome(read, long, keep)
    if isinstance(expected, Delta) and isinstance(found, Delta) and expected.extra and found.extra:
        told = json.loads(expected.extra)
        for each in told if isinstance(told, list) else told["choices"]:
            each.pop(UNKNOWN, None)
        assert json.loads(found.extra) == told
        expected = msgspec.structs.replace(expected, extra=found.extra)
    assert found == expected


@pytest.mark.parametrize("keep", [True, False])
def test_what_stands_beside_the_choices_is_kept_where_it_is_wanted(keep: bool) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    plain = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": {"a": 1}}
    assert answers.whole(json.dumps(plain).encode(), keep=keep) == Delta("a", "", "stop", '{"a": 1}')
    told = answers.whole(json.dumps({**plain, "service_tier": "flex"}).encode(), keep=keep)
    assert bool(told.extra) is keep
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "system_fingerprint": "fp"}
    delta = answers.step(json.dumps(last).encode(), keep=keep)
    assert delta is not None
    assert (delta.finish_reason, "fp" in delta.extra) == ("stop", keep)
