"""What was run, in a few lines: the first thing that a reader checks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from anywire_experiment.analysis.cautions import sessions_of
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import Results
from anywire_experiment.record.folder import Session

MOST_NAMES = 12
"""Arms that are told by name."""


def summary(record: RawData, results: Results) -> list[tuple[str, str]]:
    """Terms and what is said of each. Raises `RecordError`."""
    return list(_terms(record, results))


def _terms(record: RawData, results: Results) -> Iterator[tuple[str, str]]:
    names = results.arms[:MOST_NAMES]
    more = f" and {len(results.arms) - len(names)} more" if len(names) < len(results.arms) else ""
    yield "Arms", f"{', '.join(names)}{more}"
    if results.baseline and len(results.arms) > 1:
        yield "Compared with", f"{results.baseline}, in the same block"
    whole = sum(each.state == "completed" for each in results.cells)
    yield "Blocks", f"{results.blocks}, each with every arm once; {whole} of {record.expected} cells are whole"
    sessions = sessions_of(record.folder)
    if sessions is not None and sessions.sessions:
        yield "Ran", _when(sessions.sessions)
        first = sessions.sessions[0].environment
        version = first.anywire.get("anywire") or next(iter(first.anywire.values()), "")
        state = {"clean": "as committed", "": "changes unknown"}.get(first.dirty, "with changes, which the record has")
        code = f"commit {first.commit[:12]}, {state}" if first.commit else "installed from packages"
        yield "Code", f"Anywire {version}, {code}"
        yield "Machine", f"{first.cpu_model or first.machine}, {len(first.usable_cores) or first.cores} cores"
    yield "Energy", _energy(record)


def _when(sessions: list[Session]) -> str:
    first, last = sessions[0].started, sessions[-1].ended
    try:
        minutes = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() / 60.0
    except (TypeError, ValueError):
        return first
    hours, rest = divmod(round(minutes), 60)
    took = f"{hours} h {rest} min" if hours else f"{minutes:.0f} min" if minutes >= 1.0 else "less than a minute"
    return f"{first[:16].replace('T', ' ')}, for {took}"


def _energy(record: RawData) -> str:
    """What of the machine's energy was counted, or why none was."""
    told = [each.energy for each in record.cells if each.energy is not None]
    if not told:
        return "not counted: the record is from before energy was measured"
    counted = list(dict.fromkeys(name for each in told for name in each.sources))
    if counted:
        return f"counted: {', '.join(counted)}"
    missing = list(dict.fromkeys(why for each in told for why in each.missing))
    return f"not measurable here: {'; '.join(missing) or 'no counter was found'}"
