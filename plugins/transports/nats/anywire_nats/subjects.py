"""The subjects by which the ends of one fleet and one plane meet and talk."""

from __future__ import annotations

from anywire.transport import Plane


class Subjects:
    """Those of one end: ``dials`` is True for a hub. ``name`` is its own, of this connection."""

    def __init__(self, fleet: str, plane: Plane, name: str, *, dials: bool) -> None:
        self._begin = f"anywire.{fleet.replace('.', '~')}.{plane}"
        self._own, self._other = ("hub", "agent") if dials else ("agent", "hub")
        self._name = name
        self.inbox = f"{self._begin}.to_{self._own}.{name}.*"
        """What others send to this end; the last part is the sender's name."""
        self.here = f"{self._begin}.{self._own}s.{name}"
        """Where this end says that it is there."""
        self.others = f"{self._begin}.{self._other}s.*"
        """Where those say so whom this end is to meet."""

    def to(self, peer: str) -> str:
        """Where packets for ``peer`` go."""
        return f"{self._begin}.to_{self._other}.{peer}.{self._name}"

    def back(self, peer: str) -> str:
        """Where the server answers when nobody has subscribed to what goes to ``peer``: as if it came from there."""
        return f"{self._begin}.to_{self._own}.{self._name}.{peer}"


def sender(subject: str) -> str:
    """The name in the last part of a subject."""
    return subject.rpartition(".")[2]
