"""The links of one end: their sessions, from the peer's registration to its departure. The same for hubs and agents."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from anywire.errors import AnywireError
from anywire_dds import wire
from anywire_dds.outbox import REPORT, REPORT_MESSAGES
from anywire_dds.session import Session, Verdict

log = logging.getLogger(__name__)


class Link(ABC):
    """One session with one life of a peer: its writers, and how far the peer's messages have been read."""

    def __init__(self, name: str, incarnation: int, session: Session) -> None:
        self.name, self.incarnation, self.session = name, incarnation, session
        self.consumed = self._reported = self._unreported_bytes = 0

    @abstractmethod
    def heed(self, hello: wire.Hello) -> None:
        """Do what the peer's HELLO asks for, before it is answered."""

    @abstractmethod
    def greet(self) -> None:
        """Write a HELLO to each writer."""

    @abstractmethod
    def report(self, consumed: int) -> None:
        """Write a WINDOW."""

    @abstractmethod
    def close(self) -> None:
        """Give up the writers."""

    def account(self, size: int) -> None:
        """A message of ``size`` bytes was consumed."""
        self.consumed += 1
        self._unreported_bytes += size
        if self._unreported_bytes >= REPORT or self.consumed - self._reported >= REPORT_MESSAGES:
            self._report()

    def account_for(self, sent: int) -> None:
        """The peer has sent so many messages: what of them was not consumed has expired."""
        self.consumed = max(self.consumed, sent)
        self._report()

    def _report(self) -> None:
        self._reported, self._unreported_bytes = self.consumed, 0
        self.report(self.consumed)


_Info = TypeVar("_Info")
_Link = TypeVar("_Link", bound=Link)


class Links(Generic[_Info, _Link]):
    """Keeps one link for each peer there is.

    ``peer`` is what the peers are (``agent`` or ``hub``), ``channels`` their writers. ``make`` creates the link to a
    peer; ``heard(link, hello, joined)`` is told of every HELLO that counts, ``joined`` when it has completed the
    handshake; ``lost(link, reason)`` of the end of a link that was joined.
    """

    def __init__(
        self,
        peer: str,
        channels: Sequence[str],
        make: Callable[[_Info, Session], _Link],
        heard: Callable[[_Link, wire.Hello, bool], None],
        lost: Callable[[_Link, str], None],
    ) -> None:
        self._peer, self._channels = peer, channels
        self._make, self._heard, self._lost = make, heard, lost
        self._infos: dict[str, _Info] = {}
        self.by_name: dict[str, _Link] = {}
        self.by_session: dict[int, _Link] = {}

    def begin(self, info: _Info) -> None:
        """The peer has registered."""
        self._open(info, Session(self._channels))

    def hello(self, channel: str, echo: int, text: str) -> _Link | None:
        """Take in what a HELLO says; returns the link that it is of, if it is of one."""
        hello = wire.read_hello(text)
        link = self.by_name.get(hello.name) if hello is not None else None
        if hello is None or link is None or link.incarnation != hello.incarnation:
            return None  # its registration has not come yet: it will get our HELLO then, and answer
        link.heed(hello)
        verdict = link.session.hello(channel, hello.session, echo)
        if Verdict.RESTART in verdict:
            info, session = self._infos[link.name], link.session.successor()
            self.end(link.name, link.incarnation, f"the {self._peer} had lost this end")
            reopened = self._open(info, session)
            if reopened is None:
                return None
            link = reopened
            link.heed(hello)
        elif Verdict.ANSWER in verdict:
            link.greet()
        joined = Verdict.JOIN in verdict
        if joined:
            log.info("%s %s joined over DDS", self._peer, link.name)
        self._heard(link, hello, joined)
        return link

    def end(self, name: str, incarnation: int, reason: str) -> None:
        """The peer has departed, or has lost this end."""
        link = self.by_name.get(name)
        if link is None or link.incarnation != incarnation:
            return
        del self.by_name[name]
        del self.by_session[link.session.own]
        del self._infos[name]
        link.close()
        if link.session.joined:
            log.info("%s %s lost over DDS: %s", self._peer, name, reason)
            self._lost(link, reason)

    def clear(self) -> list[_Link]:
        """Forget all links without a word; the caller closes them."""
        links = list(self.by_name.values())
        self.by_name.clear()
        self.by_session.clear()
        self._infos.clear()
        return links

    def _open(self, info: Any, session: Session) -> _Link | None:
        try:
            link = self._make(info, session)
        except AnywireError as error:
            log.error("a %s cannot be linked: %s", self._peer, error)
            return None
        self.by_name[link.name] = self.by_session[session.own] = link
        self._infos[link.name] = info
        link.greet()
        return link
