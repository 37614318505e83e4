"""The records in docs/results: each is whole, signed by the key beside them, and says what docs/results.md quotes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from tests.long_form import SOAK

from anywire_experiment import outcome
from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.metrics import SHARES
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.record.compact import opened
from anywire_experiment.record.manifest import MANIFEST
from anywire_experiment.record.signature import faults_of_signature, fingerprint_of
from anywire_experiment.statistics.samples import Estimate

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
RECORDS = sorted((DOCS / "results").glob("*.record"), key=lambda each: each.stat().st_size)
LARGEST = 1024**2
"""Bytes of a record that is kept in this repository."""
WITHOUT = "Of what follows no record is here."
"""What comes after this in a section rests on no record."""
SECTIONS = {
    "A poll loop costs more than any transport": {"polling"},
    "Transports": {"quick", "b0-one-client", "b6-stages"},
    "Streams and bursts": {"b2-streaming"},
    "Gateways before one engine": {"gateways"},
    "Strategies, with a real model": {
        "llm-schedulers",
        "llm-fairness",
        "llm-early-refusal",
        "llm-early-refusal-8",
    },
    "A second attempt for late streams": {"hedging"},
    "The instrument, held against what is known": {"sensitivity"},
}
"""The sections that rest on records, and on which."""
FIGURE = re.compile(
    r"(?:(?P<value>[\d,]+(?:\.\d+)?)(?: %| ms| µs)? )?"
    r"\((?:\d+ % interval )?(?P<low>[\d,]+(?:\.\d+)?) to (?P<high>[\d,]+(?:\.\d+)?)(?: %)?\)"
)
"""A figure with its interval, as in ``16.9 % (2.8 to 39.3)``."""


class Kept(NamedTuple):
    """What a record in this repository is, and what follows from its raw data."""

    sealed: str
    requests: int
    results: Results


@cache
def kept(name: str) -> Kept:
    with opened(DOCS / f"results/{name}.record") as (folder, _):
        assert faults_of_signature(folder, fingerprint_of(str(DOCS / "results/author.pub"))) == [], name
        sealed = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        requests = sum(pq.read_metadata(each).num_rows for each in folder.rglob("samples.parquet"))
        return Kept(sealed, requests, analyse(folder))


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return {title: text.partition(WITHOUT)[0] for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def quoted(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("> ")]
    return [line.removeprefix("> ").replace("\\", "").strip().removesuffix(".") for line in lines]


def sentences(name: str) -> set[str]:
    results = kept(name).results
    return {each.removesuffix(".") for each in (results.headline, *(each.sentence for each in results.comparisons))}


def told(results: Results) -> Iterator[tuple[float, float, float]]:
    """Every estimate with its interval, in the units that the page uses."""
    for arm in results.figures:
        for name, metric in arm.metrics.items():
            if metric.typical is not None and metric.typical.interval is not None:
                scale = 100.0 if name in SHARES else 1.0
                interval = metric.typical.interval
                yield scale * metric.typical.value, scale * interval.low, scale * interval.high
    for each in results.comparisons:
        yield from _compared(each)


def _compared(each: ComparisonFigures) -> Iterator[tuple[float, float, float]]:
    units: tuple[Callable[[float], float], ...] = (lambda v: v, lambda v: -v, lambda v: v * 1000, lambda v: v * -1000)
    ratios: tuple[Callable[[float], float], ...] = (
        lambda v: v,
        lambda v: 1 / v,
        lambda v: (v - 1) * 100,
        lambda v: (1 - v) * 100,
    )
    differences, factors = [each.difference], []
    if each.comparison is not None:
        differences.append(each.comparison.difference)
        factors += [each.comparison.ratio, each.comparison.equivalence]
    for estimates, ways in ((differences, units), (factors, ratios)):
        for estimate in estimates:
            if isinstance(estimate, Estimate):
                for way in ways:
                    low, high = sorted((way(estimate.low), way(estimate.high)))
                    yield way(estimate.value), low, high


def as_written(written: str | None, value: float) -> bool:
    if written is None:
        return True
    digits = len(written.partition(".")[2])
    return abs(float(written.replace(",", "")) - value) <= 0.5 * 10.0**-digits + 1e-9


def test_every_record_is_listed_with_what_it_is() -> None:
    for path in RECORDS:
        listed = re.search(rf"^\| \[{path.stem}\]\(results/{path.name}\) .*$", PAGE, re.MULTILINE)
        assert listed is not None, path
        cells, requests, size, sealed = (each.strip() for each in listed[0].split("|")[3:7])
        record = kept(path.stem)
        assert sealed == f"`{record.sealed}`"
        assert int(cells) == len(record.results.cells)
        assert int(requests.replace(",", "")) == record.requests
        assert size == f"{path.stat().st_size / 1000:.0f} kB"
        assert path.stat().st_size < LARGEST
    assert {path.stem for path in RECORDS} == set(
        re.findall(r"^\| \[([\w-]+)\]\(results/[\w-]+\.record\)", PAGE, re.MULTILINE)
    )


def test_every_quoted_sentence_is_in_a_record_of_its_section() -> None:
    """Whose sentences they are is computed from the raw data, so that no report is believed."""
    found = 0
    for title, text in sections().items():
        said = set().union(*(sentences(name) for name in SECTIONS.get(title, set())))
        assert [each for each in quoted(text) if each not in said] == [], title
        found += len(quoted(text))
    assert found > 10
    for name in SECTIONS.values():
        assert name <= {path.stem for path in RECORDS}
    introduction = quoted(PAGE.partition("\n## ")[0])
    assert set(introduction) <= set().union(*(sentences(path.stem) for path in RECORDS))


@pytest.mark.parametrize("title", SECTIONS)
def test_every_figure_with_an_interval_is_in_a_record_of_its_section(title: str) -> None:
    """The figure and both ends of one estimate, to the digits that are written."""
    text = "\n".join(line for line in sections()[title].splitlines() if not line.startswith("> "))
    estimates = [each for name in SECTIONS[title] for each in told(kept(name).results)]
    figures = list(FIGURE.finditer(text.replace("**", "").replace("\n", " ")))
    assert figures
    wrong = [
        each[0]
        for each in figures
        if not any(all(map(as_written, (each["value"], each["low"], each["high"]), estimate)) for estimate in estimates)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", RECORDS if SOAK else RECORDS[:1], ids=lambda each: each.stem)
def test_everything_comes_out_as_its_author_sealed_it(path: Path, tmp_path: Path) -> None:
    """Whose report is drawn anew, byte for byte: the smallest one, or all of them in the long form."""
    assert outcome.unpacked(path, tmp_path / "record") == []
