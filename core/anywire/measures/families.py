"""Numbers of one name: what a scrape shows and an exporter sends, in types of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

FamilyKind = Literal["counter", "gauge", "summary"]
Labels = tuple[str, ...]
"""The values of the labels, in the order of their names."""

OTHER = "other"
"""The value of a label that has too many values: what it stands for is counted together."""


class Exemplar(NamedTuple):
    """One measured value and the span that it is of. ``time`` is in seconds since 1970."""

    trace_id: str
    span_id: str
    value: float
    time: float


class Family(NamedTuple):
    """``name`` ends with the unit (``_seconds``, ``_bytes``), if it has one, and never with ``_total``. A ``counter``
    only grows. A ``summary`` has two values, count and sum. Each sample has the values of ``labels``."""

    name: str
    text: str
    kind: FamilyKind
    labels: Labels
    samples: Sequence[tuple[Labels, float]] = ()
    counts: Sequence[tuple[Labels, int]] = ()
    """Of a summary; ``samples`` are the sums."""


class HistogramSample(NamedTuple):
    """``counts`` are those of each bucket alone, the last one is beyond all bounds. ``exemplars`` is by the bucket's
    number."""

    labels: Labels
    counts: Sequence[int]
    sum: float
    exemplars: dict[int, Exemplar]


class HistogramFamily(NamedTuple):
    """Values by bucket, each up to and including one of ``bounds``."""

    name: str
    text: str
    labels: Labels
    bounds: Sequence[float]
    samples: Sequence[HistogramSample]


AnyFamily = Family | HistogramFamily


def alone(name: str, text: str, value: float, kind: FamilyKind = "gauge") -> Family:
    """A number without labels."""
    return Family(name, text, kind, (), (((), value),))


class BoundedNames:
    """Lets the first ``most`` different names through; each further one is `OTHER`. So a label has ``most`` values and
    one, whatever clients and agents make up."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, set[str]()

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) < self._most:
            self._known.add(name)
            return name
        return OTHER
