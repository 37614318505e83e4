"""What a request's body asks for, whatever it is."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.demand import BLOCK_BYTES, MAX_BLOCKS, MAX_MODELS, Demand, prefix_hashes, read_demand
from anywire.submission import MAX_HINTS, checked_hints

FIELDS = (
    "models tools functions response_format modalities logprobs max_completion_tokens max_tokens prompt_cache_key "
    "metadata messages prompt content type"
).split()
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(FIELDS)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
words = st.text(st.sampled_from("ab é\n\"'\\{}[]"), min_size=1, max_size=700)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": words}), max_size=5
)


def read(**fields: Any) -> Demand:
    return read_demand(json.dumps(fields))


def part(kind: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": kind, kind: {"url": "data:,"}}]}


def checked(demand: Demand) -> None:
    """Everything in it is of its type and in bounds."""
    assert len(demand.models) <= MAX_MODELS
    assert all(isinstance(model, str) for model in demand.models)
    assert list(demand.needs) == sorted({"audio", "json", "logprobs", "tools", "vision"}.intersection(demand.needs))
    assert type(demand.max_tokens) is int
    assert 0 <= demand.max_tokens < 2**31
    assert len(demand.session) <= 256
    assert demand.session.isprintable()
    assert checked_hints(demand.hints) == demand.hints


@settings(max_examples=examples(300))
@given(bodies.map(json.dumps) | values.map(json.dumps))
def test_any_json_is_read_without_an_error(body: str) -> None:
    checked(read_demand(body))
    assert len(prefix_hashes(body)) <= MAX_BLOCKS


@settings(max_examples=examples(300))
@given(st.text() | st.text(st.characters(codec=None)) | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_garbage_asks_for_nothing(text: str) -> None:
    checked(read_demand(text))
    checked(read_demand('{"messages": [], "metadata": {"a": "' + text))
    prefix_hashes('{"messages": ["' + text * 600)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "5",
        '{"models": ["\\ud800"]}',
        '{"max_tokens": 1' + "0" * 500 + "}",
        '{"max_tokens": 1e999}',
        '{"metadata": {"a": "\ud800"}}',
        '{"messages": [5], "tools": [1]}',
        '{"messages": "x", "tools": [1]}',
        '{"tools": ' + "[" * 100_000,
        '{"messages": [{"content": ' + "[" * 100_000 + "]" * 100_000 + "}]}",
        '{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_what_is_malformed_asks_for_nothing(body: str) -> None:
    assert read_demand(body) == Demand()
    assert prefix_hashes(body) == () or body.startswith('{"messages": [')


def test_an_ordinary_request_asks_for_nothing() -> None:
    plain = [{"role": "user", "content": 'What are "image_url" and "input_audio", and "tools"?'}]
    assert read(model="m", messages=plain, stream=True, temperature=0.5) == Demand()
    assert read(messages=None, tools=None, models=None, metadata=None, logprobs=None, response_format=None) == Demand()


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"messages": [part("text"), part("image_url")]}, ("vision",)),
        ({"messages": [part("input_audio")]}, ("audio",)),
        ({"messages": [{"role": "user", "content": "image_url"}]}, ()),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": '"type": "image_url"'}]}]}, ()),
        ({"modalities": ["text", "audio"]}, ("audio",)),
        ({"modalities": ["text"]}, ()),
        ({"tools": [{"type": "function"}]}, ("tools",)),
        ({"tools": []}, ()),
        ({"functions": [{"name": "f"}]}, ("tools",)),
        ({"response_format": {"type": "json_object"}}, ("json",)),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, ("json",)),
        ({"response_format": {"type": "text"}}, ()),
        ({"response_format": {"type": "text", "json_schema": "json"}}, ()),
        ({"logprobs": True}, ("logprobs",)),
        ({"logprobs": 3}, ("logprobs",)),
        ({"logprobs": False}, ()),
        (
            {
                "messages": [part("image_url"), part("input_audio")],
                "tools": [{}],
                "logprobs": True,
                "response_format": {"type": "json_object"},
            },
            ("audio", "json", "logprobs", "tools", "vision"),
        ),
    ],
)
def test_needs(fields: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert read(**fields).needs == needs


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": True}, 0),
        ({"max_tokens": 7.5}, 0),
        ({"max_tokens": 2**31}, 0),
        ({"max_tokens": "7"}, 0),
    ],
)
def test_the_longest_answer_asked_for(fields: dict[str, Any], tokens: int) -> None:
    assert read(**fields).max_tokens == tokens


def test_models_session_and_hints() -> None:
    assert read(models=["b", 5, "", "x" * 257, "c"]).models == ("b", "c")
    assert len(read(models=[str(number) for number in range(100)]).models) == MAX_MODELS
    assert read(models="b").models == ()
    assert read(prompt_cache_key="s1").session == "s1"
    assert read(prompt_cache_key="x" * 1000).session == "x" * 256
    assert read(prompt_cache_key="evil\x1b[2J").session == ""
    assert read(metadata={"urgency": "high", "n": 5, "long": "x" * 200, "bad": "\x07"}).hints == {"urgency": "high"}
    assert len(read(metadata={str(number): "" for number in range(100)}).hints) == MAX_HINTS


# Prefixes


def hashes(turns: list[dict[str, str]], **fields: Any) -> tuple[int, ...]:
    return prefix_hashes(json.dumps({"model": "m", "messages": turns, **fields}))


def blocks(turns: list[dict[str, str]]) -> list[bytes]:
    """The full blocks of the text that is hashed."""
    text = b"".join(json.dumps(turn, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for turn in turns)
    return [text[start : start + BLOCK_BYTES] for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES)]


@settings(max_examples=examples(200))
@given(messages, messages, messages)
def test_prompts_that_begin_alike_have_the_same_first_hashes_and_differ_from_there_on(
    common: list[Any], one: list[Any], other: list[Any]
) -> None:
    first, second = hashes(common + one, stream=True), hashes(common + other, temperature=1)
    ours, theirs = blocks(common + one), blocks(common + other)
    # A hash for every full block, but for bodies that are shorter than one.
    assert len(first) in (len(ours), 0 if len(ours) < 2 else len(ours))
    alike = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
    alike = min(alike, len(first), len(second))
    assert first[:alike] == second[:alike]
    assert not set(first[alike:]) & set(second[alike:])
    assert alike >= min(len(blocks(common)), len(first), len(second))


def test_how_it_is_written_streamed_or_not_makes_no_difference_and_tools_do() -> None:
    turns = [{"role": "user", "content": "é" * 2000}]
    found = hashes(turns)
    assert len(found) == 7
    assert len(set(found)) == 7
    assert found == hashes(turns, stream=True, max_tokens=5, user="somebody")
    spaced = json.dumps({"stream": False, "messages": turns}, indent=2, ensure_ascii=False)
    assert prefix_hashes(spaced) == found
    assert not set(hashes(turns, tools=[{"type": "function"}])) & set(found)


def test_prompts_of_completions_have_a_prefix_and_are_bounded() -> None:
    text = "x" * BLOCK_BYTES * 2
    short, long = (prefix_hashes(json.dumps({"prompt": text + more})) for more in ("", "y" * BLOCK_BYTES))
    assert len(short) == 2
    assert long[:1] == short[:1]
    assert len(prefix_hashes(json.dumps({"prompt": "z" * BLOCK_BYTES * 1000}))) == MAX_BLOCKS
    assert prefix_hashes(json.dumps({"prompt": "short"})) == ()
