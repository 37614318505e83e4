"""The file by which the software is cited says what the package says, in the form of the Citation File Format 1.2.0."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

REQUIRED = {"authors", "cff-version", "message", "title"}
TEXTS = {"abstract", "commit", "date-released", "doi", "license-url", "message", "title", "type", "version"} | {
    *("cff-version", "license", "repository", "repository-artifact", "repository-code", "url"),
}
LISTS = {"authors", "contact", "identifiers", "keywords", "references"}
OF_A_PERSON = {"given-names", "family-names", "name-particle", "name-suffix", "alias"}
OF_AN_ENTITY = {"name", "date-start", "date-end"}
OF_BOTH = {"address", "affiliation", "city", "country", "email", "fax", "location", "orcid", "post-code", "region"} | {
    *("tel", "website"),
}
DATE = r"\d{4}-\d\d-\d\d"
RELEASE = re.compile(rf"^## \[(\d+\.\d+\.\d+)\] - ({DATE})$", re.MULTILINE)


def cited() -> dict[str, Any]:
    # Dates stay the texts that they are in the file.
    tree: dict[str, Any] = yaml.load((ROOT / "CITATION.cff").read_text(), Loader=yaml.BaseLoader)
    return tree


def faults(tree: dict[str, Any]) -> list[str]:
    """What the format's schema does not allow."""
    said = [f"{key}: missing" for key in sorted(REQUIRED - tree.keys())]
    said += [f"{key}: unknown" for key in sorted(tree.keys() - TEXTS - LISTS - {"preferred-citation"})]
    for what, keys, kind in (("text", TEXTS, str), ("list", LISTS, list)):
        wrong = sorted(key for key in tree.keys() & keys if not isinstance(tree[key], kind) or not tree[key])
        said += [f"{key}: no {what}" for key in wrong]
    for name, pattern in (
        ("cff-version", r"1\.2\.0"),
        ("type", "software|dataset"),
        ("date-released", DATE),
        ("doi", r"10\.\d{4,9}(\.\d+)?/[A-Za-z0-9:/_;\-.()\[\]\\]+"),
        *((name, "(https?|s?ftp)://.+") for name in ("repository", "repository-artifact", "repository-code", "url")),
    ):
        if isinstance(text := tree.get(name, ""), str) and text and not re.fullmatch(pattern, text):
            said.append(f"{name}: {text!r} is none")
    for at, each in enumerate(tree.get("authors", [])):
        of = OF_AN_ENTITY if "name" in each else OF_A_PERSON
        said += [f"authors[{at}].{key}: unknown" for key in sorted(each.keys() - of - OF_BOTH)]
    words = tree.get("keywords", [])
    return said + (["keywords: one stands there twice"] if len({*words}) < len(words) else [])


def test_it_is_in_the_form_of_the_format() -> None:
    assert faults(cited()) == []


def test_it_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited()["version"], cited()["license"]) == (project["version"], project["license"])
    assert [each["name"] for each in cited()["authors"]] == [each["name"] for each in project["authors"]]
    assert cited()["type"] == "software"


def test_its_date_is_that_of_the_release() -> None:
    """One that was not released yet has none."""
    released = dict(RELEASE.findall((ROOT / "CHANGELOG.md").read_text()))
    assert cited().get("date-released") == released.get(cited()["version"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"title": None}, "title: missing"),
        ({"repository_code": "https://example.org"}, "repository_code: unknown"),
        ({"repository-code": "example.org/anywire"}, "repository-code: 'example.org/anywire' is none"),
        ({"date-released": "1 May 2026"}, "date-released: '1 May 2026' is none"),
        ({"authors": [{"name": "A", "family-names": "B"}]}, "authors[0].family-names: unknown"),
        ({"authors": []}, "authors: no list"),
        ({"cff-version": "1.1.0"}, "cff-version: '1.1.0' is none"),
        ({"keywords": ["a", "a"]}, "keywords: one stands there twice"),
        ({"version": ""}, "version: no text"),
    ],
)
def test_what_the_format_does_not_allow_is_noticed(changed: dict[str, Any], said: str) -> None:
    tree = cited() | changed
    assert faults({key: value for key, value in tree.items() if value is not None}) == [said]
