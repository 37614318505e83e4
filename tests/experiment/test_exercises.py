"""Exercises: what is right, what is made by seed, and what is wrong in a file of one's own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import ConfigError
from anywire_experiment.exercises.exercise import Exercise, fault_of, is_right
from anywire_experiment.exercises.files import in_turn, read_exercises
from anywire_experiment.exercises.generated import KINDS, generated
from anywire_experiment.load.generator import Generator
from anywire_experiment.load.rows import Answer, Rows
from anywire_experiment.load.target import Question, Target
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.plan.workload import Workload
from anywire_experiment.record.folder import Record, plan_of

NUMBER = Exercise("n", "?", 42)
WORD = Exercise("w", "?", "Blue whale")
CHOICE = Exercise("c", "?", "no", choices=("yes", "no"))
PATTERN = Exercise("p", "?", pattern=r"\bDEF\b")
THOUSANDS = Exercise("t", "?", "1234.50")


@pytest.mark.parametrize(
    ("exercise", "text", "right"),
    [
        (NUMBER, "42", True),
        (NUMBER, "The answer is **42**.", True),
        (NUMBER, "17 + 25 = 42", True),
        (NUMBER, "42 is 17 + 25", False),
        (NUMBER, "It is 42.0, of course", True),
        (NUMBER, "421", False),
        (NUMBER, "42nd", False),
        (NUMBER, "-42", False),
        (NUMBER, "\N{MINUS SIGN}42", False),
        (NUMBER, "", False),
        (NUMBER, "<think>42</think> I do not know", False),
        (NUMBER, "<think>41</think>42", True),
        (NUMBER, "<think>42", False),
        (NUMBER, "\N{FULLWIDTH DIGIT FOUR}2", True),
        (THOUSANDS, "1,234.5 apples", True),
        (WORD, "It is the BLUE\n whale.", True),
        (WORD, "blue whales", False),
        (CHOICE, "No", True),
        (CHOICE, "Yes. On second thought: no!", True),
        (CHOICE, "No, I mean yes", False),
        (CHOICE, "nothing", False),
        (CHOICE, "Nobody knows", False),
        (PATTERN, "abc DEF", True),
        (PATTERN, "def", False),
    ],
)
def test_what_is_right(exercise: Exercise, text: str, right: bool) -> None:
    assert is_right(exercise, text) is right


@given(st.text(max_size=200))
@settings(max_examples=examples(200))
def test_no_text_is_beyond_it(text: str) -> None:
    for exercise in (NUMBER, WORD, CHOICE, PATTERN, THOUSANDS):
        assert is_right(exercise, text) in (True, False)


def first(count: int, kinds: tuple[Any, ...] = KINDS, seed: int = 1) -> list[Exercise]:
    return list(itertools.islice(generated(kinds, seed), count))


def test_exercises_by_seed_are_sound_and_repeat() -> None:
    made = first(2000)
    assert [fault_of(each) for each in made if fault_of(each)] == []
    assert [each.kind for each in made[:8]] == [*KINDS, *KINDS]
    assert made == first(2000)
    assert made != first(2000, seed=2)
    for each in made:
        assert is_right(each, f"The answer is: {each.expected}."), each
        assert not is_right(each, "I cannot tell."), each
        others = [choice for choice in each.choices if choice != each.answer]
        assert not any(is_right(each, other) for other in others), each


def test_the_answers_made_by_seed_are_the_right_ones() -> None:
    for each in first(1000, ("arithmetic",)):
        _, form, one, other = each.id.split("-")
        number = {"plus": int.__add__, "more": int.__add__, "times": int.__mul__}.get(form, int.__sub__)
        assert each.answer == number(int(one), int(other)) >= 0
        assert one in each.prompt
        assert other in each.prompt
    assert all((int(each.id.split("-")[1]) % 2 == 0) == (each.answer == "yes") for each in first(200, ("parity",)))
    for each in first(200, ("words",)):
        form = each.id.split("-")[1]
        if form == "longest":
            assert [word for word in each.choices if len(word) >= len(str(each.answer))] == [each.answer]
        else:
            assert form == "letter" or each.answer == sorted(each.choices)[0]


def written(folder: Path, *lines: object) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    return path


GOOD = {"id": "capital", "prompt": "Capital of France?", "answer": "Paris"}


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    lines: list[object] = [GOOD, "", {"id": "sum", "prompt": "1+1?", "answer": 2, "kind": "sums"}]
    found = read_exercises(written(tmp_path, *lines, {"id": "any", "prompt": "Say so.", "pattern": "so|yes"}))
    assert [each.expected for each in found] == ["Paris", "2", "/so|yes/"]
    taken = list(itertools.islice(in_turn(found, 3), 6))
    assert {each.id for each in taken[:3]} == {"capital", "sum", "any"}
    assert taken[:3] == taken[3:]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: "),
        ({"id": "x", "prompt": "?"}, "give either an answer or a pattern"),
        ({"id": "x", "prompt": "?", "answer": "a", "pattern": "a"}, "give either an answer or a pattern"),
        ({"id": "x", "prompt": " ", "answer": "a"}, "prompt: it is blank"),
        ({"id": "", "prompt": "?", "answer": "a"}, "id: expected 1 to 128 printable characters"),
        ({"id": "x", "prompt": "?", "pattern": "("}, "pattern: it is no regular expression"),
        ({"id": "x", "prompt": "?", "answer": "a", "choices": ["b", "c"]}, "choices: the answer is not among them"),
        ({"id": "x", "prompt": "?", "answer": "a", "answr": "b"}, "answr"),
        ({"id": "x", "prompt": "?", "answer": True}, "answer"),
        (GOOD, "the id 'capital' is there twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, line: object, said: str) -> None:
    with pytest.raises(ConfigError) as failed:
        read_exercises(written(tmp_path, GOOD, line))
    assert said in str(failed.value)
    assert "line 2" in str(failed.value)


def test_a_file_without_an_exercise_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have no line with one"):
        read_exercises(written(tmp_path, ""))


# In a plan and in a record


def plan(folder: Path, **members: Any) -> Path:
    exercises = {"requests": 5, "exercises": {"file": "own.jsonl"}} | members
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"name": "t", "system": {"engine": "synthetic"}, "workloads": {"own": exercises}}))
    return path


def test_a_record_has_the_exercises_and_names_no_path_of_the_machine(tmp_path: Path) -> None:
    source = written(tmp_path, GOOD)
    path = plan(tmp_path)
    Record.create_or_resume(tmp_path / "record", load_plan(path), path).close()
    source.unlink()
    assert str(tmp_path) not in (tmp_path / "record/plan.json").read_text()
    chosen = plan_of(tmp_path / "record").workloads["own"].exercises
    assert chosen is not None
    assert chosen.file is not None
    assert [each.id for each in read_exercises(chosen.file)] == ["capital"]
    Record.create_or_resume(tmp_path / "record", plan_of(tmp_path / "record"), path).close()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"exercises": {"file": "none.jsonl"}}, "workloads.own.exercises.file: there is no file none.jsonl"),
        ({"exercises": {"file": "own.jsonl", "kinds": ["logic"]}}, "give either kinds or a file"),
        ({"exercises": {"kinds": ["riddles"]}}, "riddles|arithmetic"),
        ({"exercises": {"kinds": []}}, "workloads.own.exercises.kinds"),
        ({"seconds": 3}, "exercises: say how many `requests`, and no `seconds`"),
        ({"prompts": {"kind": "medium"}}, "exercises: they are the prompts"),
    ],
)
def test_what_is_wrong_in_a_plan_is_told(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=said):
        load_plan(plan(tmp_path, **members))


def test_a_broken_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    written(tmp_path, "no JSON")
    with pytest.raises(ConfigError, match=r"own\.jsonl, line 1: "):
        load_plan(plan(tmp_path))


# Asked


class Pupil(Target):
    """Answers every exercise with what ``says`` gives next."""

    def __init__(self, says: Iterator[str]) -> None:
        self.questions: list[Question] = []
        self._says = says

    async def first_model(self) -> str:
        return "m"

    async def connect(self, clients: int) -> None:
        """Nothing to have ready."""

    async def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        text = next(self._says)
        outcome = "timeout" if text.startswith("late") else "ok"
        return Answer(outcome, transport="dds", agent="a", text=text, sent_ns=1, first_ns=2, done_ns=2)

    async def close(self) -> None:
        """Nothing is open."""


async def asked(folder: Path, *says: str, seed: int = 1, **members: Any) -> tuple[list[dict[str, Any]], list[Question]]:
    """The rows of a workload, and what was sent."""
    workload = Workload.model_validate({"requests": len(says), "warm_up": {"requests": 0, "limit": 0}} | members)
    pupil, rows = Pupil(iter(says)), Rows()
    request = {"deliberation": {"members": 3}, "max_tokens": 7, "model": "deliberate"}
    generator = Generator(
        "w", workload, pupil, rows, seed=seed, transports=frozenset({"dds"}), folder=folder, request=request
    )
    await generator.warm_up()
    await generator.measure(lambda at_ns: None)
    rows.write(folder / "rows.parquet")
    return pq.read_table(folder / "rows.parquet").to_pylist(), pupil.questions


async def test_answers_are_checked_and_kept(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    said = ["Paris!", "London", "late: Paris", "x" * 3000 + " Paris"]
    rows, questions = await asked(tmp_path, *said, exercises={"file": "own.jsonl"})
    assert [each["right"] for each in rows] == [True, False, False, True]
    assert {(each["exercise"], each["expected"], each["exercise_kind"]) for each in rows} == {("capital", "Paris", "")}
    assert [each["said"] for each in rows][:2] == ["Paris!", "London"]
    assert len(rows[3]["said"]) < 1010
    assert rows[3]["said"].endswith(" Paris")
    body = json.loads(questions[0].body)
    assert body["messages"] == [{"role": "user", "content": "Capital of France?"}]
    assert (body["model"], body["max_tokens"], body["deliberation"]) == ("deliberate", 7, {"members": 3})
    assert questions[0].model == "deliberate"


async def test_equal_seeds_ask_the_same_and_others_do_not(tmp_path: Path) -> None:
    prompts = [
        [each["exercise"] for each in (await asked(tmp_path, *"1234", seed=seed, exercises={}))[0]]
        for seed in (1, 1, 2)
    ]
    assert prompts[0] == prompts[1] != prompts[2]


async def test_what_no_exercise_asked_is_not_checked(tmp_path: Path) -> None:
    rows, _ = await asked(tmp_path, "hello")
    assert (rows[0]["exercise"], rows[0]["right"], rows[0]["said"]) == ("", None, "")


async def test_several_clients_ask_in_the_same_order(tmp_path: Path) -> None:
    """Whoever asks: the number of a request decides its exercise, or arms would not be paired."""
    one, _ = await asked(tmp_path, *"123456", exercises={})
    four, _ = await asked(tmp_path, *"123456", exercises={}, arrivals={"kind": "closed", "clients": 4})
    assert [each["exercise"] for each in one] == [each["exercise"] for each in four]
    assert np.unique([each["index"] for each in four]).size == 6
