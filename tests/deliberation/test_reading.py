"""Points in the forms in which models give them, and nonsense, which harms nobody."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_service_deliberation.question import Criterion, Rubric
from anywire_service_deliberation.reading import MAX_CHARS, Reading, read_score, without_thoughts
from anywire_service_deliberation.roles_and_rubrics import Library

RUBRIC = Rubric("code", (Criterion("correctness", weight=3), Criterion("code quality"), Criterion("tests")))
POINTS = {"correctness": 4.0, "code quality": 3.0, "tests": 5.0}
SCORE = 4.0


@pytest.mark.parametrize(
    "text",
    [
        '{"correctness": 4, "code quality": 3, "tests": 5}',
        '{"correctness": 4.0, "code quality": "3/5", "tests": "5 out of 5"}',
        'Here it is:\n```json\n{"Correctness": 4, "code_quality": 3, "tests": 5}\n```\nI hope this helps {you}.',
        '{"scores": {"correctness": {"score": 4, "reason": "one case is wrong"}, "code quality": 3, "tests": 5}}',
        '{"criteria": [{"name": "correctness", "score": 4}, {"criterion": "code quality", "points": "3"}, {"name": '
        '"tests", "rating": 5}]}',
        "{'correctness': 4, 'code quality': 3, 'tests': 5,}",
        '{"reason": "broken off JSON", "correctness": 4, "code quality": 3, "tests": 5, "more": "and th',
        "correctness: 4\ncode quality: 3\ntests: 5",
        "correctness: 4/5\ncode quality: 3/5\ntests: 5/5",
        "Correctness = 4; Code Quality = 3; Tests = 5",
        "**Correctness**: 4\n**Code-Quality:** 3\n**Tests** - 5",
        "1. Correctness (weight 3): 4\n2. Code quality (weight 1): 3\n3. Tests (weight 1): 5",
        "correctness (1-5): 4\ncode quality (1-5): 3\ntests (1-5): 5",
        "**Correctness** (weight 3): 4\n**Code quality** (weight 1): 3\n**Tests** (1-5): 5",
        "correctness (4/5)\ncode quality (3/5)\ntests (5/5)",
        "1. Correctness (4/5): one case is wrong.\n2. Code quality (3/5): 1 of 2.\n3. Tests (5/5): 2 of 2.",
        "1. **Correctness** (4)\n2. **Code quality** (3)\n3. **Tests** (5)",
        "correctness: none\ncode quality (3/5)\ntests (5/5)\nNo: correctness (4/5)",
        "| criterion | points |\n|---|---|\n| correctness | 4 |\n| code quality | 3 |\n| tests | 5 |",
        "### Correctness\nScore: 4/5\nIt works.\n### Code quality\n**3**\n### Tests\nRating: 5",
        "Correctness: it handles 2 of 3 cases, 4/5.\nCode quality: in 1 place hard to read, 3/5.\nTests: all, 5/5.",
        "Correctness is 4, code quality gets 3, and tests: 5 (very good).",
        "correctness: 8/10\ncode quality: 60%\ntests: 10 out of 10",
        "correctness: 4,0\ncode quality: 3,0\ntests: 5",
        "4\n3\n5",
        "4, 3, 5",
        "[4, 3, 5]",
        "<think>correctness: 1, code quality: 1, tests: 1?</think>correctness: 4\ncode quality: 3\ntests: 5",
        "correctness: 1 perhaps, tests: 2.</think>\ncorrectness: 4\ncode quality: 3\ntests: 5",
        "correctness: 2\ncode quality: 2\ntests: 2\nNo, once more:\ncorrectness: 4\ncode quality: 3\ntests: 5",
        '{"correctness": 1} is an example. {"correctness": 4, "code quality": 3, "tests": 5}',
        '{"correctness": 1, "code quality": 1, "tests": 1} no: {"correctness": 4, "code quality": 3, "tests": 5}',
    ],
)
def test_points_are_read_in_the_forms_that_models_give_them(text: str) -> None:
    assert read_score(text, RUBRIC) == Reading(POINTS, SCORE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "<think>correctness: 4, code quality: 3, tests: 5, or rather",
        "I think this is a great proposal!",
        "I have three points: 1. Name it. 2. Test it. 3. Run it.",
        "correctness:\ncode quality:\ntests:",
        "correctness: <1-5>\ncode quality: 1 to 5\ntests: 1-5",
        "Correctness:\n1. It runs.\nCode quality:\n2. It is short.\nTests:\n3) None.",
        "correctness: 9\ncode quality: 0\ntests: 77",
        "correctness: -4\ncode quality: -3\ntests: -5",
        "correctness: 2024.05.06",
        '{"correctness": true, "code quality": null, "tests": []}',
        '{"correctness": NaN, "code quality": Infinity, "tests": 1e999}',
        "0",
        "6/5",
        "4/0",
        "4, 3",
        "{" * 5000,
        "[" * 5000 + "]" * 5000,
        '{"a":' * 3000,
        "1" * 5000,
        '{"correctness": ' + "9" * 5000 + "}",
    ],
)
def test_nonsense_gives_no_score_and_a_reason(text: str) -> None:
    found = read_score(text, RUBRIC)
    assert found.score is None
    assert found.points == {}
    assert 0 < len(found.reason) < 300


@pytest.mark.parametrize("text", ["4", "**4/5**", " 4. ", "Overall score: 4/5. Well done.", '{"score": 4}', "80%"])
def test_one_number_for_the_whole_is_a_score_without_points(text: str) -> None:
    assert read_score(text, RUBRIC) == Reading({}, 4.0)
    assert read_score(text, Rubric("one", (Criterion("truth"),))) == Reading({"truth": 4.0}, 4.0)


def test_points_for_half_of_the_weight_are_enough() -> None:
    assert read_score("correctness: 4", RUBRIC) == Reading({"correctness": 4.0}, 4.0)
    less = read_score("tests: 4\ncode quality: 4", RUBRIC)
    assert less.score is None
    assert less.reason.startswith("points for code quality, tests alone: ")


def test_the_longer_name_is_meant_where_one_is_in_another() -> None:
    rubric = Rubric("names", (Criterion("quality"), Criterion("code quality")))
    assert read_score("code quality: 2\nquality: 5", rubric).points == {"quality": 5.0, "code quality": 2.0}
    rubric = Rubric("names", (Criterion("test"), Criterion("test coverage")))
    assert read_score("test coverage: 4\ntest: 2", rubric).points == {"test": 2.0, "test coverage": 4.0}


def test_the_range_is_the_rubrics() -> None:
    rubric = Rubric("ten", (Criterion("truth"),), lowest=0, highest=10)
    assert read_score("truth: 0", rubric).score == 0.0
    assert read_score("truth: 10", rubric).score == 10.0
    assert read_score("truth: 4/5", rubric).score == 8.0
    assert read_score("truth: 11", rubric).score is None


def test_names_with_signs_are_no_patterns() -> None:
    rubric = Rubric("signs", (Criterion("C++ (modern)"), Criterion("a.b*")))
    assert read_score("C++ (modern): 2\na.b*: 3", rubric).points == {"C++ (modern)": 2.0, "a.b*": 3.0}


def test_thoughts_are_no_part_of_what_is_said() -> None:
    assert without_thoughts("<think>so\nlong</think>Yes").strip() == "Yes"
    assert without_thoughts("hm</thinking>Yes") == "Yes"
    assert without_thoughts("Yes <b>and</b> no") == "Yes <b>and</b> no"


RUBRICS = [RUBRIC, *Library.load().rubrics.values(), Rubric("wide", (Criterion("a"), Criterion("b c")), 0, 100)]
FORMS = {
    "json": lambda points: json.dumps(points),
    "in prose": lambda points: f"Sure! ```json\n{json.dumps({'points': points}, indent=1)}\n``` That is all.",
    "listed": lambda points: json.dumps([{"criterion": name, "score": value} for name, value in points.items()]),
    "lines": lambda points: "\n".join(f"{name}: {value}" for name, value in points.items()),
    "markdown": lambda points: "\n".join(f"- **{name.upper()}**: {value} (fair)" for name, value in points.items()),
    "table": lambda points: "\n".join(f"| {name} | {value} |" for name, value in points.items()),
    "headed": lambda points: "\n\n".join(f"## {name}\nScore: {value}\nFair." for name, value in points.items()),
    "numbers": lambda points: "\n".join(str(value) for value in points.values()),
}


@settings(max_examples=examples(60), deadline=None)
@given(st.sampled_from(RUBRICS), st.sampled_from(sorted(FORMS)), st.data())
def test_what_is_written_in_any_form_is_read(rubric: Rubric, form: str, data: st.DataObject) -> None:
    whole = st.integers(rubric.lowest, rubric.highest)
    points = {each.name: data.draw(whole) for each in rubric.criteria}
    found = read_score(FORMS[form](points), rubric)
    assert found.points == points
    weight = sum(each.weight for each in rubric.criteria)
    assert found.score == pytest.approx(sum(points[each.name] * each.weight for each in rubric.criteria) / weight)


PIECES = st.lists(
    st.text(max_size=8)
    | st.sampled_from(
        ["correctness", "tests", "code quality", ": ", "4", "/5", "{", "}", "[", '"', ",", "\n", "score", "<think>"]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=examples(100), deadline=None)
@given(PIECES | st.text(), st.sampled_from(RUBRICS))
def test_any_text_gives_a_score_within_the_rubric_or_a_reason(text: str, rubric: Rubric) -> None:
    found = read_score(text, rubric)
    names = {each.name for each in rubric.criteria}
    if found.score is None:
        assert found.reason
        assert not found.points
    else:
        assert rubric.lowest <= found.score <= rubric.highest
        assert math.isfinite(found.score)
        assert not found.reason
        assert found.points.keys() <= names
        assert all(rubric.lowest <= value <= rubric.highest for value in found.points.values())


@pytest.mark.parametrize(
    "piece",
    [
        "correctness ",
        "correctness: ",
        "correctness (",
        "4/5 ",
        "{",
        "[",
        '{"a":',
        "<think>",
        "**",
        "- ",
        "tests\n",
        "9",
    ],
)
def test_a_long_text_is_read_in_time(piece: str) -> None:
    began = time.process_time()
    read_score(piece * (1_000_000 // len(piece)), RUBRIC)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("piece", ["[", '{"correctness":', '"a":{'])
def test_nested_openings_are_not_read_again_and_again(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = json.JSONDecoder.raw_decode

    def noted(decoder: json.JSONDecoder, text: str, at: int = 0) -> tuple[object, int]:
        decoded.append(at)
        return decode(decoder, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", noted)
    assert read_score(piece * (MAX_CHARS // len(piece)), RUBRIC).score is None
    assert len(decoded) <= 2 * 10  # it is looked for twice: the points, and a score of the whole


def test_the_end_of_a_long_text_is_read() -> None:
    assert read_score("x " * MAX_CHARS + "\ncorrectness: 4\ncode quality: 3\ntests: 5", RUBRIC).score == SCORE
