"""What came of one cell, as the record keeps it: all that its verdict follows from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from anywire_experiment.fault_table.notes import Note

CELL = "cell.json"

State = Literal["carried out", "not carried out", "n/a"]


class Seen(msgspec.Struct):
    """What one client saw. ``outcome`` is ``ok`` for a whole answer, else the code of the error, ``timeout`` when it
    gave up, ``connection`` when its connection broke. ``agent`` is the one that began to answer, ``status`` the HTTP
    status. Times are CLOCK_MONOTONIC ns: of sending, of each piece of text, of the end."""

    outcome: str = ""
    status: int = 0
    agent: str = ""
    transport: str = ""
    message: str = ""
    text: str = ""
    sent_ns: int = 0
    ended_ns: int = 0
    piece_ns: list[int] = []


class Observed(msgspec.Struct):
    """One fault on one transport. ``state`` is ``not carried out`` when the system could not be brought so far, ``n/a``
    when there is no such cell here; ``reason`` says why. ``undisturbed`` and ``seen`` are the same questions, asked
    before the fault and with it. ``struck_ns`` is when it struck, CLOCK_MONOTONIC ns, and ``met`` how many requests or
    streams met it. ``notes`` are what the pipeline noticed from then on.
    ``problems`` are sentences about what else was not as it must be."""

    fault: str
    transport: str
    state: State = "not carried out"
    reason: str = ""
    started: str = ""
    undisturbed: list[Seen] = []
    seen: list[Seen] = []
    struck_ns: int = 0
    met: int = 0
    notes: list[Note] = []
    problems: list[str] = []


def read(folder: Path) -> Observed:
    """Raises OSError or `msgspec.DecodeError`."""
    return msgspec.json.decode((folder / CELL).read_bytes(), type=Observed)


def write(folder: Path, observed: Observed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CELL).write_bytes(msgspec.json.format(msgspec.json.encode(observed), indent=2) + b"\n")
