"""What goes wrong between the client and a server."""

from __future__ import annotations


class Fault(OSError):
    """A request got no answer, or an answer broke off. Its text may tell the server's address."""


class CannotConnect(Fault):
    """No connection came about; ``__cause__`` says why."""


class Closed(Fault):
    """The connection ended before the answer did. ``was_idle``: it was kept from an earlier answer, and gave no byte of
    this one, so that the server may have closed it before the request reached it."""

    was_idle = False


class NoHttp(Fault):
    """What came is no HTTP, or more of it than an answer may have beside its body."""


class Silence(Fault):
    """Nothing came for ``seconds``. ``begun``: after some of the answer's body had been read."""

    def __init__(self, seconds: float, *, begun: bool = False) -> None:
        super().__init__(f"nothing came for {seconds:g} s")
        self.seconds, self.begun = seconds, begun
