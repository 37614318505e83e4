"""What a cell comes to: what the client saw, how soon it was noticed and over, and whether that is what must be."""

from __future__ import annotations

from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from anywire_experiment.fault_table.observed import Observed, Seen
from anywire_experiment.faults.catalogue import Fault

STRUCK = "agent-1"
"""The agent that faults of agents meet."""

HELD_UP = 2
"""A stream was held up when it paused for so many times the longest pause of any stream without the fault."""

Result = Literal["pass", "FAIL", "n/a"]


class Row(msgspec.Struct, frozen=True):
    """A cell of the table. ``saw`` counts the streams by how they ended. ``noticed_ms`` is the time from the fault to
    the first thing that the pipeline noticed of it, ``recovered_ms`` that until the last stream that it held up
    (`HELD_UP`) went on, or ended with an error; None where there was neither. ``lost`` and ``doubled`` count tokens
    that are missing before others that came, or at the end of a whole answer, and those that came twice or are wrong.
    ``why`` says what is not as it must be, or why there is no such cell."""

    fault: str
    transport: str
    result: Result
    saw: str = ""
    noticed_ms: float | None = None
    recovered_ms: float | None = None
    lost: int = 0
    doubled: int = 0
    why: tuple[str, ...] = ()


class Difference(NamedTuple):
    lost: int
    doubled: int


def judged(fault: Fault, observed: Observed) -> Row:
    if observed.state == "n/a":
        return Row(fault.name, observed.transport, "n/a", why=(observed.reason,))
    if observed.state == "not carried out":
        return Row(fault.name, observed.transport, "FAIL", why=(observed.reason,))
    pairs = list(zip(observed.seen, observed.undisturbed, strict=True))
    differences = [difference(seen, right.text) for seen, right in pairs]
    why = list(observed.problems)
    if not observed.met:
        why.append("no stream met the fault")
    elif fault.noticed and not _noticed_ns(observed):
        why.append("the pipeline did not notice the fault")
    for number, (seen, right) in enumerate(pairs, 1):
        if wrong := _wrong_with(seen, right, fault) or _wrong_way(seen, observed.transport):
            why.append(f"stream {number} {wrong}")
    return Row(
        fault.name,
        observed.transport,
        "FAIL" if why else "pass",
        _counted(observed.seen),
        _milliseconds(observed.struck_ns, _noticed_ns(observed)),
        _milliseconds(observed.struck_ns, _recovered_ns(observed, fault)),
        sum(each.lost for each in differences),
        sum(each.doubled for each in differences),
        tuple(why),
    )


def difference(seen: Seen, right: str) -> Difference:
    """Tokens lost and doubled (or wrong), of a stream whose whole text is ``right``. What a stream that ended with an
    error did not get to is not lost."""
    wanted, got = right.split(), seen.text.split()
    lost = doubled = 0
    for what, start, end, from_, to in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        is_rest = end == len(wanted) and from_ == to == len(got) and seen.outcome != "ok"
        lost += 0 if is_rest else end - start
        doubled += to - from_
    return Difference(lost, doubled)


def _wrong_with(seen: Seen, right: Seen, fault: Fault) -> str:
    """What is wrong with a stream; empty when it is as it must be."""
    if seen.outcome == "ok":
        return "" if seen.text == right.text else "was told as whole and has another text than the undisturbed one"
    if not right.text.startswith(seen.text):
        return f"ended with {seen.outcome} after a wrong text"
    if seen.outcome in fault.errors and seen.agent == STRUCK and seen.text:
        return ""
    said = f": {seen.message}" if seen.message else ""
    after = f" after {len(seen.piece_ns)} tokens" if seen.piece_ns else ""
    return f"ended with {seen.outcome}{after}{said}"


def _wrong_way(seen: Seen, transport: str) -> str:
    return f"came over {seen.transport}" if seen.transport not in ("", transport) else ""


def _counted(seen: list[Seen]) -> str:
    """``3 complete, 1 engine_failed after its beginning``."""
    counts = Counter(
        "complete"
        if each.outcome == "ok"
        else f"{each.outcome} after the beginning"
        if each.text
        else f"{each.outcome}, nothing before"
        for each in seen
    )
    return ", ".join(f"{number} {how}" for how, number in sorted(counts.items()))


def _noticed_ns(observed: Observed) -> int:
    """When the pipeline noticed anything, while there were streams; 0 for never."""
    until = max((each.ended_ns for each in observed.seen), default=0)
    times = (each.at_ns for each in observed.notes if each.trouble and observed.struck_ns <= each.at_ns <= until)
    return min(times, default=0)


def _recovered_ns(observed: Observed, fault: Fault) -> int:
    """When the last stream that the fault held up went on, or ended with an error; 0 when it held up none."""
    # A fault that streams under way meet holds up no first token.
    pauses = (pause for each in observed.undisturbed for pause in _pauses(each)[0 if fault.first else 1 :])
    usual = max((end - start for start, end in pauses), default=0)
    over = 0
    for each in observed.seen:
        start, end = max(_pauses(each, observed.struck_ns), key=lambda pause: pause[1] - pause[0], default=(0, 0))
        if each.outcome != "ok":
            over = max(over, each.ended_ns)
        elif end - start > HELD_UP * usual:
            over = max(over, end)
    return over


def _pauses(seen: Seen, struck_ns: int = 0) -> list[tuple[int, int]]:
    """From one token to the next, from sending on and up to the end, those that were over before ``struck_ns`` left
    out."""
    return [pause for pause in pairwise((seen.sent_ns, *seen.piece_ns, seen.ended_ns)) if pause[1] > struck_ns]


def _milliseconds(start_ns: int, end_ns: int) -> float | None:
    return round((end_ns - start_ns) / 1e6, 1) if end_ns else None
