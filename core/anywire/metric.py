"""Numbers that a service or gateway tells to whoever measures: our own type, none of a metrics library's."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_METRICS = 1000
"""Numbers of one service that are told."""
MAX_LABEL_CHARS = 512
MAX_VALUE = sys.float_info.max

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Metric(msgspec.Struct, frozen=True):
    """A gateway with ``/metrics`` shows it as ``anywire_PLUGIN_NAME``. ``name`` and those of ``labels`` have small
    letters, digits and underscores; ``name`` ends with the unit (``free_bytes``, ``load_seconds``). A ``counter`` only
    grows, and is shown with ``_total``. Numbers of one name have labels of the same names. ``text`` says in a sentence
    what it is."""

    name: str
    text: str
    value: float
    labels: Mapping[str, str] = {}
    counter: bool = False


def metric_fault(metric: Any) -> str:
    """What is wrong with a metric of a service; empty when nothing is."""
    labels: Any = getattr(metric, "labels", None)
    if not isinstance(metric, Metric) or not isinstance(labels, Mapping):
        return f"is no Metric, or has labels that are no mapping: {str(metric)[:80]!r}"
    names = (metric.name, *metric.labels)
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        return f"has a name that is none: {str(names)[:200]}"
    if not isinstance(metric.text, str) or not all(
        isinstance(value, str) and len(value) <= MAX_LABEL_CHARS for value in metric.labels.values()
    ):
        return f"{metric.name} has a text or labels that are no text, or longer than {MAX_LABEL_CHARS} characters"
    if not isinstance(metric.value, int | float) or not -MAX_VALUE <= metric.value <= MAX_VALUE:
        return f"{metric.name} is no finite number"
    if not all(map(_is_utf8, (metric.text, *metric.labels.values()))):
        return f"{metric.name} has a text or labels that are no UTF-8"
    return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a surrogate that stands alone
        return False
    return True
