"""Whom an end cannot be linked to, and why: what ``anywire doctor`` tells of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

MOST = 64
"""Peers remembered: whoever is refused may come under ever new names."""


class Unlinked:
    """The newest reason why there is no link to a peer or an address, until there is one.

    It logs nothing: whoever notes a reason logs it too.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def note(self, peer: str, reason: str, *, is_vague: bool = False) -> None:
        """``peer`` is an address or a name for people, ``reason`` a sentence that says what would do. A vague one does
        not take the place of another."""
        if is_vague and peer in self._reasons:
            return
        self._reasons.pop(peer, None)
        self._reasons[peer] = reason
        if len(self._reasons) > MOST:
            del self._reasons[next(iter(self._reasons))]

    def linked(self, peer: str) -> None:
        """There is a link to it now, or nobody is there any more."""
        self._reasons.pop(peer, None)

    def reasons(self) -> list[str]:
        return list(self._reasons.values())


class _End(Protocol):
    @property
    def unlinked(self) -> Unlinked: ...


def findings(ends: Iterable[_End], transport: str) -> list[tuple[str, str]]:
    """What `anywire.transport.HasFindings` tells of these ends: each reason with what would do."""
    remedy = f"compare transports.{transport} at both ends; the other end's log tells the same from its side"
    return [(reason, remedy) for end in ends for reason in end.unlinked.reasons()]
