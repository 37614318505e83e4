"""What is released: the distributions are alike, whole, and installed by extras of the core."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from setuptools import find_packages

import align
from own_distributions import ROOT, Distribution, distributions, examples

FOUND = distributions()
OWN = {each.name for each in FOUND}


def test_versions_pins_metadata_licences_and_extras_are_aligned() -> None:
    stale = [
        path.relative_to(ROOT)
        for path, text in align.aligned().items()
        if not path.is_file() or path.read_text() != text
    ]
    assert not stale, "run `python release/align.py`"


@pytest.mark.parametrize("version", ["0.1.1", "2.0.0rc1"])
def test_another_version_is_written_everywhere(version: str) -> None:
    files = align.aligned(version=version)
    read = [tomllib.loads(text)["project"] for path, text in files.items() if path.name == "pyproject.toml"]
    assert {each["version"] for each in read} == {version}
    assert len(read) == len(FOUND) + len(examples())
    for each in read:
        extras = [line for lines in each.get("optional-dependencies", {}).values() for line in lines]
        for requirement in map(Requirement, [*each["dependencies"], *extras]):
            if requirement.name in OWN:
                assert str(requirement.specifier) == f"=={version}", (each["name"], str(requirement))


def test_the_citation_has_the_date_of_the_release() -> None:
    text = "title: Anywire\nversion: 0.1.0\ndate-released: 2026-01-01\nlicense: MIT\n"
    dated = "title: Anywire\nversion: 0.2.0\ndate-released: 2026-02-02\nlicense: MIT\n"
    assert align.cited(text, "0.2.0", "2026-02-02") == dated
    assert align.cited(text, "0.3.0", "") == "title: Anywire\nversion: 0.3.0\nlicense: MIT\n"


@pytest.mark.parametrize("distribution", FOUND, ids=lambda each: each.name)
def test_its_metadata_are_complete(distribution: Distribution) -> None:
    project = distribution.project
    for key in ("description", "readme", "license", "license-files", "authors", "keywords", "classifiers"):
        assert project[key], key
    assert "Typing :: Typed" in project["classifiers"]
    assert (distribution.package / "py.typed").is_file()
    for address in project.get("urls", {}).values():
        assert re.match(r"https://[\w-]+\.[a-z]+/", address)
    Metadata.from_raw(
        {
            "metadata_version": "2.4",
            "name": project["name"],
            "version": project["version"],
            "summary": project["description"],
            "keywords": project["keywords"],
            "classifiers": project["classifiers"],
            "license_expression": project["license"],
            "requires_dist": [str(Requirement(each)) for each in project["dependencies"]],
            "requires_python": project["requires-python"],
        }
    )


@pytest.mark.parametrize("distribution", FOUND, ids=lambda each: each.name)
def test_all_of_its_files_come_into_its_wheel(distribution: Distribution) -> None:
    tool = tomllib.loads(distribution.file.read_text())["tool"]["setuptools"]
    root = distribution.package
    base = root.parent
    packages = tool["packages"]
    if not isinstance(packages, list):  # they are looked for
        assert [distribution.folder / each for each in packages["find"]["where"]] == [base]
        packages = find_packages(str(base), include=packages["find"].get("include", ["*"]))
    inside = {str(path.parent.relative_to(base)).replace("/", ".") for path in root.rglob("*.py")}
    assert inside == set(packages), "a folder with modules has no __init__.py, or is not included"
    data = tool["package-data"]
    taken: set[Path] = set()
    for package in packages:
        for pattern in [*data.get(package, ()), *data.get("*", ())]:
            taken |= set((base / package.replace(".", "/")).glob(pattern))
    others = {
        path for path in root.rglob("*") if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert others <= taken, "add them to tool.setuptools.package-data"


def test_extras_name_every_distribution_and_all_leaves_out_what_is_large() -> None:
    extras = FOUND[0].project["optional-dependencies"]
    named = {Requirement(line).name for key, lines in extras.items() if key not in ("all", "testing") for line in lines}
    assert named == OWN - {"anywire"}
    whole = {Requirement(line).name: Requirement(line) for line in extras["all"]}
    assert set(whole) == OWN - {"anywire", *align.LATER}
    assert not any(each.extras for each in whole.values()), "an extra may bring something large"
    assert set(align.WHERE) <= OWN
