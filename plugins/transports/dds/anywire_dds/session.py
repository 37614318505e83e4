"""The handshake of a link: how both ends know that both directions work, and that they mean the same session.

Pure: numbers in, verdicts out. The protocol is described in ``idl/OrchestratorDDS.idl``.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Iterator, Sequence


def _growing() -> Iterator[int]:
    """Session numbers of this process. They only grow, so that a late HELLO of an earlier session is known as such. The
    next one cannot be guessed from the one before, so that no peer can use another's session."""
    number = secrets.randbits(61)
    while True:
        number += 1 + secrets.randbits(32)
        yield number


_numbers = _growing()


class Verdict(enum.Flag):
    """What an end has to do now."""

    NOTHING = 0
    ANSWER = enum.auto()
    """Send a HELLO with both numbers."""
    JOIN = enum.auto()
    """Both directions work."""
    RESTART = enum.auto()
    """The other end lost the link while it was joined here: tell the owner, begin a new session with `successor`."""


class Session:
    """One end's side of one session with one life of a peer.

    ``channels`` are the peer's writers that reach this end; the peer's number counts when each has carried it.
    """

    def __init__(self, channels: Sequence[str], peer: int = 0) -> None:
        self.own = next(_numbers)
        self.peer = peer
        self.joined = False
        self._heard = dict.fromkeys(channels, peer)
        self._echoed = False

    def hello(self, channel: str, number: int, echo: int) -> Verdict:
        """The peer's HELLO: its number, and ours as it knows it (0: not yet)."""
        if number < self._heard[channel]:
            return Verdict.NOTHING
        if number > max(self._heard.values()):
            self._echoed = False  # what an earlier session of the peer had heard proves nothing for this one
        self._heard[channel] = number
        if echo == self.own:
            self._echoed = True
        if any(heard != number for heard in self._heard.values()):
            return Verdict.NOTHING
        verdict = Verdict.NOTHING
        if number != self.peer:
            if self.joined:
                return Verdict.RESTART
            self.peer = number
            verdict |= Verdict.ANSWER
        return verdict | self.confirmed() if self._echoed else verdict

    def confirmed(self) -> Verdict:
        """The peer has used our number: it has heard us."""
        if self.joined or not self.peer:
            return Verdict.NOTHING
        self.joined = True
        return Verdict.JOIN

    def successor(self) -> Session:
        """The session after `Verdict.RESTART`, which has heard what this one has."""
        return Session(tuple(self._heard), peer=next(iter(self._heard.values())))
