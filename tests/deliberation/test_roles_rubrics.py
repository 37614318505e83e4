"""Roles and rubrics: those that are shipped, those of a folder, those of a request, and what is wrong with any."""

from __future__ import annotations

from pathlib import Path

import pytest

from anywire.errors import ConfigError, InvalidRequest
from anywire_service_deliberation.question import Criterion, Rubric
from anywire_service_deliberation.reading import read_score
from anywire_service_deliberation.roles_and_rubrics import DEFAULT_ROLE, DEFAULT_RUBRIC, MAX_FILE_BYTES, Library


def rubric_folder(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    rubrics = folder / "rubrics"
    rubrics.mkdir(exist_ok=True)
    (rubrics / name).write_text(text)
    return rubrics


def test_the_shipped_ones_are_there() -> None:
    library = Library.load()
    assert {role.name for role in library.roles.values()} == {"DEV", "QA", "ARCHITECT", "DEVOPS", "DATA"}
    assert {rubric.name for rubric in library.rubrics.values()} == {"clean-code", "answer", "design"}
    assert library.role(DEFAULT_ROLE).prompt
    assert library.rubric(DEFAULT_RUBRIC).criteria
    for rubric in library.rubrics.values():
        assert rubric.description
        for criterion in rubric.criteria:
            assert {rubric.lowest, rubric.highest} <= set(criterion.anchors)
            assert read_score(f"{criterion.name}: 3", Rubric("one", (criterion,))).score == 3.0
    for role in library.roles.values():
        assert role.description
        assert len(role.prompt) < 600, "a small model has a small context"


def test_a_name_is_found_whatever_its_case() -> None:
    library = Library.load()
    assert library.role("dev").name == library.role("DEV").name == "DEV"
    assert library.rubric("Clean-Code").name == "clean-code"


def test_an_unknown_name_tells_the_known_ones() -> None:
    library = Library.load()
    with pytest.raises(InvalidRequest, match=r"no role 'DEVOP': did you mean 'DEVOPS'.*ARCHITECT, DATA, DEV") as role:
        library.role("DEVOP")
    assert role.value.param == "role"
    with pytest.raises(InvalidRequest, match=r"no rubric 'x+': known: answer, clean-code, design") as rubric:
        library.rubric("x" * 1000)
    assert rubric.value.param == "rubric"
    assert len(str(rubric.value)) < 300


def test_a_folder_adds_and_replaces(tmp_path: Path) -> None:
    roles = tmp_path / "roles"
    roles.mkdir()
    (roles / "dev.yaml").write_text("prompt: You write Ada.\n")
    (roles / "LAWYER.yml").write_text("description: Reads it all.\nprompt: |\n  You read contracts.\n")
    (roles / "README.md").write_text("no role")
    (roles / ".#QA.yaml").write_text("an editor's")
    rubrics = rubric_folder(
        tmp_path, "lowest: 0\nhighest: 10\ncriteria:\n  - name: rhyme\n    weight: 0.5\n", "Poem.yaml"
    )
    library = Library.load(roles, rubrics)
    assert library.role("DEV").name == "dev"
    assert library.role("DEV").prompt == "You write Ada."
    assert library.role("lawyer").prompt == "You read contracts."
    assert library.role("QA") == Library.load().role("QA")
    assert len(library.roles) == 6
    assert library.rubric("poem") == Rubric("Poem", (Criterion("rhyme", weight=0.5),), 0, 10)


CRITERIA = "criteria:\n  - name: a\n    anchors:\n      1: bad\n  - name: b\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("criteria: [\n", 2, "not valid YAML"),
        ("- a\n", 1, "expected a mapping"),
        ("lowest: 1\nlowest: 2\n" + CRITERIA, 2, "twice"),
        ("colour: red\n" + CRITERIA, 1, "unknown key 'colour'"),
        (CRITERIA + "    wieght: 2\n", 6, "did you mean 'weight'"),
        (CRITERIA + "    weight: 0\n", 6, "greater than 0"),
        (CRITERIA + "    weight: .inf\n", 6, "finite"),
        (CRITERIA + "    weight: heavy\n", 6, "valid number"),
        (CRITERIA + "    anchors: {best: good}\n", 6, "whole number"),
        (CRITERIA + "    anchors:\n      5: good\n      6: better\n", 8, "from 1 to 5"),
        (CRITERIA + "  - name: B\n", 6, "two criteria are named 'B'"),
        (CRITERIA + "  - name: no\n", 6, "string"),
        (CRITERIA + "  - name: '5'\n", 6, "letter"),
        (CRITERIA + '  - name: "a\\nb"\n', 6, "one line"),
        (CRITERIA + "highest: 1\n", 6, "more than lowest"),
        (CRITERIA + "lowest: 1\nhighest: 102\n", 7, "1 to 100 more"),
        (CRITERIA + "highest: 5.5\n", 6, "integer"),
        ("criteria: []\n", 1, "at least 1 item"),
        ("criteria:\n" + "".join(f"  - name: c{i}\n" for i in range(33)), 1, "at most 32"),
        ("lowest: 1\n", 0, "criteria"),
    ],
)
def test_a_wrong_rubric_is_told_with_its_file_and_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    folder = rubric_folder(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        Library.load(None, folder)
    assert says in str(error.value)
    assert str(folder / "mine.yaml") in str(error.value)
    if line:
        assert f"mine.yaml, line {line}" in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "prompt: Field required"),
        ("prompt: ' '\n", "line 1"),
        ("prompt: 7\n", "line 1"),
        ("description: x\nprompt: y\nstyle: z\n", "line 3"),
        ("prompt: \x00\n", "not valid YAML"),
        (f"prompt: {'x' * MAX_FILE_BYTES}\n", "the limit is"),
    ],
)
def test_a_wrong_role_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "MINE.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"MINE\.yaml") as error:
        Library.load(tmp_path)
    assert says in str(error.value)


def test_a_wrong_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere cannot be read"):
        Library.load(tmp_path / "nowhere")
    (tmp_path / "a b.yaml").write_text("prompt: x")
    with pytest.raises(ConfigError, match=r"a b\.yaml: a name has letters, digits"):
        Library.load(tmp_path)
    (tmp_path / "a b.yaml").rename(tmp_path / "AB.yaml")
    (tmp_path / "ab.yml").write_text("prompt: x")
    with pytest.raises(ConfigError, match=r"ab\.yml: another file has this name"):
        Library.load(tmp_path)
    (tmp_path / "ab.yml").unlink()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml is not a file"):
        Library.load(tmp_path)


def test_a_request_may_bring_its_rubric() -> None:
    given = {"criteria": [{"name": "truth", "weight": 2, "anchors": {"5": "true", "1": "false"}}], "highest": 7}
    rubric = Library.load().rubric(given)
    assert rubric == Rubric("custom", (Criterion("truth", weight=2, anchors={1: "false", 5: "true"}),), 1, 7)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "rubric.criteria"),
        (None, "rubric"),
        ([1], "rubric"),
        ({"criteria": 7}, "rubric.criteria"),
        ({"criteria": ["truth"]}, "rubric.criteria.0"),
        ({"criteria": [{"name": "a", "weight": -1}]}, "rubric.criteria.0.weight"),
        ({"criteria": [{"name": "a", "weight": float("nan")}]}, "rubric.criteria.0.weight"),
        ({"criteria": [{"name": "a", "color": 1}]}, "rubric.criteria.0.color"),
        ({"criteria": [{"name": "a", "anchors": {"x": "y"}}]}, "rubric.criteria.0.anchors"),
        ({"criteria": [{"name": "a", "anchors": {"9": "y"}}]}, "rubric.criteria.0.anchors.9"),
        ({"criteria": [{"name": "a-b"}, {"name": "A B"}]}, "rubric.criteria.1.name"),
        ({"criteria": [{"name": "a"}], "lowest": 5}, "rubric.highest"),
        ({"criteria": [{"name": "a"}], "name": "mine"}, "rubric.name"),
    ],
)
def test_a_wrong_rubric_of_a_request_names_the_member_at_fault(given: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Library.load().rubric(given)
    assert error.value.param == param
