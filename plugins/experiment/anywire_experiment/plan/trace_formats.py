"""The rows of traces: the project's own form, and those in which public traces of LLM services are published.

| format | file | columns |
|---|---|---|
| ``anywire`` | CSV | ``arrival_s``, ``input_tokens``, ``output_tokens`` |
| ``azure`` | CSV | ``TIMESTAMP`` (seconds, or date and time), ``ContextTokens``, ``GeneratedTokens`` |
| ``burstgpt`` | CSV | ``Timestamp`` (s), ``Request tokens``, ``Response tokens``, and if there those of sessions (1) |
| ``mooncake`` | JSON lines | ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` |

(1) ``Session ID`` and ``Elapsed time`` (s).

A CSV may have further columns of ``anywire``, in which an empty field is as none: ``prefix`` (which of
``prompts.prefixes`` beginnings it has, from 1), ``priority``, ``deadline_s``, ``tenant``, ``model``, ``stream`` (true
or false), ``session`` and ``think_s`` (seconds from the end of the session's answer before it), ``blocks`` (numbers
with spaces between; equal ones stand for equal text, as Mooncake's hashes do), ``cancel_s`` and ``cancel_tokens`` (when
its client gave it up). Other columns are not looked at. In BurstGPT a request with no response tokens failed there, and
is left out, and so is the name of the model, which is another service's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from anywire_experiment.plan.traffic import LONGEST_ANSWER, LONGEST_PAUSE, LONGEST_PROMPT
from anywire_experiment.plan.workload import LONGEST_DEADLINE, TENANT

MOST_BLOCKS = 65_536
MAX_NAME_CHARS = 256
MOST_URGENT = 1_000_000

_TENANT = re.compile(TENANT)
Row = Mapping[str, Any]


class Arrival(NamedTuple):
    """One request: seconds after the start, and what a trace gives besides: its lengths in tokens, the number of its
    beginning from 1, its priority, deadline in seconds and tenant. 0, None and the empty text: the workload says it.

    ``think_s`` is the pause after the answer before it in its ``session``, None where that is not known. ``blocks``
    identify the text of its prompt. ``cancel_s`` and ``cancel_tokens`` say when its client gives it up, 0 for never."""

    at: float
    input_tokens: int = 0
    output_tokens: int = 0
    prefix: int = 0
    priority: int | None = None
    deadline_s: float = 0.0
    tenant: str = ""
    session: str = ""
    think_s: float | None = None
    blocks: tuple[int, ...] = ()
    model: str = ""
    stream: bool | None = None
    cancel_s: float = 0.0
    cancel_tokens: int = 0


class Format(NamedTuple):
    """A format: how it is known, and what a row of it is."""

    columns: tuple[str, str, str]
    """Of the arrival and both lengths: what a file must have to be one of these."""
    read: Callable[[Row], Arrival | None]


def _own(row: Row) -> Arrival:
    return _with_more(
        row, Arrival(_number(row["arrival_s"], "arrival_s"), *_lengths(row, "input_tokens", "output_tokens"))
    )


def _azure(row: Row) -> Arrival:
    return _with_more(row, Arrival(_time(row["TIMESTAMP"]), *_lengths(row, "ContextTokens", "GeneratedTokens")))


def _burstgpt(row: Row) -> Arrival | None:
    given, made = _lengths(row, "Request tokens", "Response tokens")
    if not made:
        return None
    took = row.get("Elapsed time") or ""
    return Arrival(
        _number(row["Timestamp"], "Timestamp"),
        given,
        made,
        session=_name(row.get("Session ID") or "", "Session ID"),
        think_s=_pause(took, "Elapsed time") if took else None,
    )


def _mooncake(row: Row) -> Arrival:
    ids = row.get("hash_ids", ())
    if not isinstance(ids, list | tuple) or not all(type(each) is int for each in ids):
        raise ValueError("hash_ids: expected a list of whole numbers")
    if len(ids) > MOST_BLOCKS:
        raise ValueError(f"hash_ids: {len(ids)} of them, the limit is {MOST_BLOCKS}")
    at = _number(row["timestamp"], "timestamp") / 1000
    return Arrival(at, *_lengths(row, "input_length", "output_length"), blocks=tuple(ids))


FORMATS: dict[str, Format] = {
    "anywire": Format(("arrival_s", "input_tokens", "output_tokens"), _own),
    "azure": Format(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _azure),
    "burstgpt": Format(("Timestamp", "Request tokens", "Response tokens"), _burstgpt),
    "mooncake": Format(("timestamp", "input_length", "output_length"), _mooncake),
}
MORE = (
    *("prefix", "priority", "deadline_s", "tenant", "session", "think_s"),
    *("blocks", "model", "stream", "cancel_s", "cancel_tokens"),
)
"""Further columns that a CSV may have."""


def _with_more(row: Row, arrival: Arrival) -> Arrival:
    given = {name: text for name in MORE if (text := (row.get(name) or "").strip())}
    if not given:
        return arrival
    seconds = _number(given.get("deadline_s", "0"), "deadline_s")
    if not 0 <= seconds <= LONGEST_DEADLINE:
        raise ValueError(f"a deadline is from 0 to {LONGEST_DEADLINE} seconds, not {given['deadline_s']}")
    tenant = given.get("tenant", "")
    if tenant and not _TENANT.match(tenant):
        raise ValueError(f"a tenant has 1 to 64 letters, digits or signs, not {tenant!r}")
    blocks = given.get("blocks", "").split()
    if len(blocks) > MOST_BLOCKS:
        raise ValueError(f"blocks: {len(blocks)} of them, the limit is {MOST_BLOCKS}")
    return arrival._replace(
        prefix=_count(given.get("prefix", "0"), "prefix", LONGEST_PROMPT),
        priority=_priority(given["priority"]) if "priority" in given else None,
        deadline_s=seconds,
        tenant=tenant,
        session=_name(given.get("session", ""), "session"),
        think_s=_pause(given["think_s"], "think_s") if "think_s" in given else None,
        blocks=tuple(map(int, blocks)),
        model=_name(given.get("model", ""), "model"),
        stream=_truth(given["stream"]) if "stream" in given else None,
        cancel_s=_pause(given.get("cancel_s", "0"), "cancel_s"),
        cancel_tokens=_count(given.get("cancel_tokens", "0"), "cancel_tokens", LONGEST_ANSWER),
    )


def _lengths(row: Row, given: str, made: str) -> tuple[int, int]:
    return _count(row[given], given, LONGEST_PROMPT), _count(row[made], made, LONGEST_ANSWER)


def _count(value: Any, name: str, most: int) -> int:
    count = int(value)
    if not 0 <= count <= most:
        raise ValueError(f"{name} is from 0 to {most}, not {count}")
    return count


def _priority(text: str) -> int:
    priority = int(text)
    if abs(priority) > MOST_URGENT:
        raise ValueError(f"priority is from {-MOST_URGENT} to {MOST_URGENT}, not {text}")
    return priority


def _number(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number, not {value}")
    return number


def _pause(value: Any, name: str) -> float:
    number = _number(value, name)
    if not 0 <= number <= LONGEST_PAUSE:
        raise ValueError(f"{name} is from 0 to {LONGEST_PAUSE:g} seconds, not {value}")
    return number


def _name(text: str, name: str) -> str:
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise ValueError(f"{name} has at most {MAX_NAME_CHARS} printable characters")
    return text


def _truth(text: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if found is None:
        raise ValueError(f"stream is true or false, not {text!r}")
    return found


def _time(text: str) -> float:
    try:
        return _number(text, "TIMESTAMP")
    except ValueError:
        # Traces that give date and time have up to seven digits of a second; the library reads six.
        head, dot, fraction = text.partition(".")
        digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))] if dot else ""
        zone = fraction[len(digits) :]
        return datetime.fromisoformat(head + zone).timestamp() + float(f"0.{digits or 0}")
