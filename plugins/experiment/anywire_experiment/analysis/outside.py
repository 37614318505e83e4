"""What a reader must know of systems that are not in a record, and of what its arms used beside their cells."""

from __future__ import annotations

from collections.abc import Iterator

from anywire_experiment.record.folder import Sessions


def outside_of_it(sessions: Sessions | None) -> Iterator[str]:
    """A sentence for each optional system that was not there, and for each server that was no process of a cell."""
    for session in sessions.sessions[:1] if sessions is not None else ():
        for label, why in session.left_out.items():
            yield f"the system {label} was left out: {why}"
        yield from session.outside
