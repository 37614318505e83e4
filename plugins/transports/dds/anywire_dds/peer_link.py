"""One session with one life of a peer: its writers, how far its messages have been read, and the keys of the link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from anywire.messages import AgentInfo, HubInfo
from anywire_dds.contract import TopicName
from anywire_dds.hello import Hello
from anywire_dds.outbox import REPORT, REPORT_MESSAGES, Outbox
from anywire_dds.session import Session
from anywire_dds.signed import hello_to, public_of, read_signature, text_of
from anywire_dds.writer import Writer

if TYPE_CHECKING:
    from anywire_dds.end_key import EndKey, PeerKey
    from anywire_dds.seal import Seal


_Info = TypeVar("_Info", AgentInfo, HubInfo)


class Link(ABC, Generic[_Info]):
    """One session with one life of a peer: its writers, and how far the peer's messages have been read."""

    participant: str | None = None
    """The DDS participant that has registered this life; only what its writers write counts."""

    opened_at = 0.0
    """The event loop's time at which this session began."""

    refusal = ""
    """Why the peer is not let in; then the link never joins, and its HELLOs say so."""

    joined = False
    """Whether it has joined, and its loss was not reported yet."""

    def __init__(self, info: _Info, session: Session, own_key: EndKey | None) -> None:
        self.info: _Info = info
        """What its registration says."""
        self.name = info.agent_id if isinstance(info, AgentInfo) else info.hub_id
        self.incarnation, self.session = info.incarnation, session
        self.proof = info.proof
        """Of the peer's identity: a valid one where this end has one too, else what the peer's HELLO has said."""
        self.own_key = own_key
        self.peer_key: PeerKey | None = None
        """By which the peer signs; None unless both ends have identities."""
        self.seal: Seal | None = None
        """Of the samples other than HELLOs; None as before."""
        self.identity = ""
        """The public key of the peer's identity; empty as before."""
        if own_key is not None and info.proof:
            self.peer_key, self.seal, self.identity = own_key.peer(info.proof), own_key.seal(), public_of(info.proof)
        self._said: tuple[int, str, str] | None = None
        self._agreed: tuple[int, str] | None = None
        self.sources: set[int] = set()
        """Handles of the writers that were seen to be the peer's, see `Links.admit`."""
        self.consumed = self._reported = self._unreported_bytes = 0

    @abstractmethod
    def on_hello(self, hello: Hello) -> None:
        """Do what the peer's HELLO asks for, before it is answered."""

    @abstractmethod
    def send_hello(self) -> None:
        """Write a HELLO to each writer."""

    @abstractmethod
    def report(self, consumed: int) -> None:
        """Write a WINDOW."""

    @property
    @abstractmethod
    def outboxes(self) -> Sequence[Outbox]:
        """What is on its way to the peer."""

    @property
    @abstractmethod
    def writers(self) -> list[Writer]:
        """All its writers."""

    @abstractmethod
    def close(self) -> None:
        """Give up the writers."""

    def may_miss(self, topic: TopicName) -> bool:
        """Whether samples may be missing on this topic, because they expire."""
        return False

    def exchange(self) -> str:
        """The key that this end's HELLO names; empty for a peer without an identity."""
        return self.own_key.exchange if self.own_key is not None and self.peer_key is not None else ""

    def signature(self, text: bytes) -> str:
        """What stands in ``more`` of a HELLO that says ``text`` and carries the peer's number."""
        if self.own_key is None or self.peer_key is None:
            return ""
        return text_of(self.own_key.sign("hello", hello_to(self.name, self.incarnation, self.session.peer, text)))

    def has_said(self, echo: int, text: str, more: str) -> bool:
        """Whether a HELLO with this end's number ``echo`` is the peer's: always, where it has no key."""
        if self.own_key is None or self.peer_key is None or self._said == (echo, text, more):
            return True
        own, signature = self.own_key, read_signature(more)
        data = hello_to(own.name, own.incarnation, echo, text.encode())
        if signature is None or not self.peer_key.has_signed("hello", data, signature):
            return False
        self._said = (echo, text, more)  # a HELLO is written to each of several writers
        return True

    def agree(self, hello: Hello) -> bool:
        """Derive the link's keys from the peer's HELLO, once its number is known; False when that names no key."""
        if self.own_key is None or self.peer_key is None or self.seal is None or hello.session != self.session.peer:
            return True
        if self._agreed == (hello.session, hello.key):
            return True
        self._agreed = (hello.session, hello.key)
        return self.own_key.agree(self.seal, self.peer_key, hello.key, self.session.own, self.session.peer)

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
