"""The records in docs/results: each is whole, signed by the key beside them, and says what docs/results.md quotes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.long_form import SOAK

from anywire.identities.identity_proof import fingerprint, from_text
from anywire_experiment import outcome
from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.record.compact import opened
from anywire_experiment.record.manifest import MANIFEST
from anywire_experiment.record.signature import faults_of_signature

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
RECORDS = sorted((DOCS / "results").glob("*.record"), key=lambda each: each.stat().st_size)
LARGEST = 1024**2
"""Bytes of a record that is kept in this repository."""


def author() -> str:
    public = from_text((DOCS / "results/author.pub").read_text().strip())
    assert public is not None
    return fingerprint(public)


def _quoted() -> Iterator[str]:
    for line in PAGE.splitlines():
        if line.startswith("> "):
            yield line.removeprefix("> ").replace("\\", "").strip()


def test_every_quoted_sentence_is_in_a_record_and_every_record_is_listed_with_its_hash() -> None:
    """Whose sentences they are is computed from the raw data, so that no report is believed."""
    said: set[str] = set()
    for path in RECORDS:
        with opened(path) as (folder, _):
            assert faults_of_signature(folder, author()) == [], path
            sealed = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
            assert re.search(rf"^\| \[{path.stem}\].*`{sealed}`", PAGE, re.MULTILINE), (path, sealed)
            results = analyse(folder)
            said |= {results.headline, *(each.sentence for each in results.comparisons)}
    told = {each.removesuffix(".") for each in said}
    quoted = [*_quoted()]
    assert len(quoted) > 10
    assert [each for each in quoted if each.removesuffix(".") not in told] == []


@pytest.mark.parametrize("path", RECORDS if SOAK else RECORDS[:1], ids=lambda each: each.stem)
def test_everything_comes_out_as_its_author_sealed_it(path: Path, tmp_path: Path) -> None:
    """Whose report is drawn anew, byte for byte: the smallest one, or all of them in the long form."""
    assert outcome.unpacked(path, tmp_path / "record") == []
    assert path.stat().st_size < LARGEST
