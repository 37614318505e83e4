"""The links of one end: their sessions, from the peer's registration to its departure. The same for hubs and agents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, HubInfo
from anywire.printable import printable
from anywire.protocol import protocol_mismatch
from anywire_dds import wire
from anywire_dds.contract import TopicName
from anywire_dds.endpoints import Finding
from anywire_dds.hello import MAX_REFUSAL, Hello, read_hello
from anywire_dds.log_once import LogOnce
from anywire_dds.peer_link import Link
from anywire_dds.session import Session, Verdict
from anywire_dds.signed import Forged, public_of, unbound
from anywire_dds.types import FRAME_HELLO
from anywire_dds.writer import Writer

if TYPE_CHECKING:
    from anywire_dds.end_key import EndKey

log = logging.getLogger(__name__)

ASK_AGAIN = 1.0
"""Seconds after which it is looked whether those that are not let in are let in by now."""
ASKED_AT_ONCE = 64
"""Of them; the others the next time, because a proof may have to be verified for each."""

WRITERS_OF_LINK = 64
"""Writers of one link of which it is remembered that they are its peer's: more than a peer has."""


_Info = TypeVar("_Info", AgentInfo, HubInfo)
_Link = TypeVar("_Link", bound=Link[Any])

Admits = Callable[[_Info], str]
"""Why a peer that shows this is not let in; empty when it is."""


class _Registration(NamedTuple):
    info: Any
    participant: str | None


class Links(Generic[_Info, _Link]):
    """Keeps one link for each life of a peer until it has joined, and one joined link for each id.

    ``resumed()`` is the event loop's time at which this process last went on after it had stood still for most of its
    lease. When a peer says that it had lost this end, and the link is older than that, the others have lost it too:
    all such links are ended at once, so that nothing is sent in vain to those that have not said so yet.

    ``peer`` is what the peers are (``agent`` or ``hub``), ``protocol`` the version of the messages that this end
    speaks, ``channels`` the writers of a peer. A life whose version does not go with it gets no link. ``make`` creates
    the link to a peer; ``joined(link)`` is called when both directions work, ``heard(link, hello, joined)`` for every
    HELLO that counts, after it; ``lost(link, reason)`` at the end of a link that was joined.

    Of two lives of one id the greater incarnation wins: when it joins, the lesser is lost first, and it is told so; a
    lesser one that registers later gets no link while the greater is joined. With ``own_key``, the key of this end,
    that holds for lives of one identity. One that ``admits`` lets in wins over one that it does not, and then one with
    an identity over one without; else the one that has joined keeps the id.
    """

    def __init__(
        self,
        peer: str,
        protocol: str,
        channels: Sequence[str],
        make: Callable[[_Info, Session], _Link],
        joined: Callable[[_Link], None],
        heard: Callable[[_Link, Hello, bool], None],
        lost: Callable[[_Link, str], None],
        resumed: Callable[[], float],
        datagram_bytes: int,
        own_key: EndKey | None = None,
        admits: Admits[_Info] | None = None,
    ) -> None:
        self._peer, self._protocol, self._channels = peer, protocol, channels
        self._make: Callable[[_Info, Session], _Link] = make
        self._joined, self._heard, self._lost = joined, heard, lost
        self._registered: dict[str, dict[int, _Registration]] = {}
        self._links: dict[tuple[str, int], _Link] = {}
        self._refused: dict[tuple[str, int], str] = {}
        self._resumed, self._datagram_bytes = resumed, datagram_bytes
        self._own_key = own_key
        self._admits: Admits[_Info] | None = admits
        self._loop = asyncio.get_running_loop()
        self._faults = LogOnce(log)
        self.by_name: dict[str, _Link] = {}
        """The joined links."""
        self.by_session: dict[int, _Link] = {}
        self._strangers: dict[tuple[str, int], str] = {}
        """The lives that are not let in, each with the reason."""
        self._asking: asyncio.TimerHandle | None = None
        self.forged = 0
        """Samples in the name of a peer with an identity that were not its own, and were dropped."""

    def of(self, name: str, incarnation: int) -> _Link | None:
        """The link to this life, joined or not."""
        return self._links.get((name, incarnation))

    def begin(self, name: str, info: Any, participant: str | None) -> None:
        """A life of a peer has registered."""
        if mismatch := protocol_mismatch(info.protocol, self._protocol):
            self._refuse(name, info.incarnation, mismatch)
            return
        self._registered.setdefault(name, {})[info.incarnation] = _Registration(info, participant)
        joined = self.by_name.get(name)
        if joined is not None and not self._refusal(info) and not self._prevails(info, joined):
            self._refuse_life(name, info, joined)
            return
        self._open(name, info.incarnation, Session(self._channels))

    def hello(self, channel: str, echo: int, text: str, more: str, participant: str | None) -> _Link | None:
        """Take in a HELLO that a writer of ``participant`` has sent, with its signature in ``more``; returns the link
        that it is of, if it is of one."""
        hello = read_hello(text)
        link = self._links.get((hello.name, hello.incarnation)) if hello is not None else None
        if hello is None or link is None:
            return None  # its registration has not come yet: it will get our HELLO then, and answer
        if not self._is_of(link, participant, "a HELLO"):
            return None
        if not link.has_said(echo, text, more):
            self._drop(link, "a HELLO in the name of %s %s is not signed by its key: ignored")
            return None
        if hello.refusal:
            self._faults.warning(
                ("refusal", link.name, hello.refusal), "%s %s does not let this end in: %s",
                self._peer, printable(link.name), printable(hello.refusal, MAX_REFUSAL),
            )  # fmt: skip
            return None
        if link.refusal:
            if Verdict.ANSWER in link.session.hello(channel, hello.session, echo):
                link.send_hello()  # the first one came before the peer knew of this end
            return None
        if mismatch := protocol_mismatch(hello.protocol, self._protocol):
            self._registered[link.name].pop(link.incarnation, None)
            self._refuse(link.name, link.incarnation, mismatch)
            self._close(link, mismatch)
            return None
        if self._own_key is None:
            link.proof = unbound(hello.proof)
        link.on_hello(hello)
        verdict = link.session.hello(channel, hello.session, echo)
        if Verdict.RESTART in verdict:
            reopened = self._lost_here(link, f"the {self._peer} had lost this end", link.session.successor())
            if reopened is None:
                return None
            link = reopened
            if self._own_key is None:
                link.proof = unbound(hello.proof)
            link.on_hello(hello)
        elif Verdict.ANSWER in verdict:
            link.send_hello()
        if not link.agree(hello):
            self._drop(link, "a HELLO of %s %s names no key: nothing else that it says counts")
        joined = Verdict.JOIN in verdict
        if joined:
            self._join(link)
        self._heard(link, hello, joined)
        return link

    def admit(self, link: _Link, writer: int, participant: str | None) -> bool:
        """Whether a message of a writer that is not among the link's ``sources`` counts: ``participant``, whose the
        writer is, must have registered the peer. Session numbers alone prove nothing, because whoever is in the domain
        can read them."""
        if not self._is_of(link, participant, "a message"):
            return False
        if len(link.sources) >= WRITERS_OF_LINK:
            link.sources.clear()
        link.sources.add(writer)
        return True

    def authentic(self, topic: TopicName, data: bytes) -> bytes | None:
        """A sample as it was packed; None for one that is dropped. For an end with an identity, before anything of the
        sample is read: a sample of a peer with an identity must carry the next tag of its writer. Raises
        `Malformed`."""
        number, frame = wire.head(topic, data)
        if frame == FRAME_HELLO:
            return data
        link = self.by_session.get(number)
        if link is None:
            return None
        if link.seal is None:
            return data
        try:
            sample, missing = link.seal.opened(topic, data)
        except Forged:
            self._drop(link, "a message in the name of %s %s does not carry its tag, or has come before: ignored")
            return None
        if missing and not link.may_miss(topic):
            log.warning("%d messages of %s %s are missing: the link is begun anew", missing, self._peer, link.name)
            self.restart(link, f"messages of the {self._peer} are missing")
            return None
        return sample

    def foreign_report(self, link: _Link) -> None:
        """A report in the name of this peer was not signed by its key."""
        self._drop(link, "a report in the name of %s %s is not signed by its key: ignored")

    def _drop(self, link: _Link, message: str) -> None:
        self.forged += 1
        self._faults.warning((link.name, message), message, self._peer, link.name)

    def _is_of(self, link: _Link, participant: str | None, what: str) -> bool:
        if participant is not None and participant == link.participant:
            return True
        self._faults.warning(
            (link.name, participant), "%s in the name of %s %s was not sent by its participant: ignored",
            what, self._peer, link.name,
        )  # fmt: skip
        return False

    def confirmed(self, link: _Link) -> _Link | None:
        """The link, once its peer has used our number: it would not without having heard us, so that joins the link.
        None while nothing was heard of the peer."""
        if Verdict.JOIN in link.session.confirmed():
            self._join(link)
        return link if link.joined else None

    def under_way(self) -> Iterator[tuple[_Link, Writer, int]]:
        """The writers of all joined links, each with the bytes on their way by its link."""
        for link in self.by_name.values():
            size = sum(outbox.ahead_bytes for outbox in link.outboxes)
            for writer in link.writers:
                yield link, writer, size

    def stuck(self, link: _Link) -> None:
        """A peer that lives does not acknowledge what it was sent: nothing behind that message would ever arrive."""
        if not link.joined:
            return
        log.warning(
            "%s %s does not acknowledge what it is sent, though it is alive: the link is begun anew. A path that drops "
            "IP fragments, or datagrams of this size, does that: datagrams have up to %d bytes "
            "(transports.dds.datagram_bytes)", self._peer, link.name, self._datagram_bytes,
        )  # fmt: skip
        self.restart(link, f"the {self._peer} did not acknowledge what it was sent (transports.dds.progress_timeout)")

    def withdraw(self, lives: Iterable[tuple[str, int]]) -> None:
        """Send nothing more to these: that they are lost is reported next, one after the other."""
        for name, incarnation in lives:
            link = self.by_name.get(name)
            if link is not None and link.incarnation == incarnation:
                del self.by_name[name]

    def unheard_by(self, participant: str) -> None:
        """A participant says that it does not hear this process, which hears it."""
        for link in list(self.by_name.values()):
            if link.participant == participant and self._links.get((link.name, link.incarnation)) is link:
                log.warning(
                    "%s %s does not hear this process any more, though it is heard: packets to it are lost",
                    self._peer, link.name,
                )  # fmt: skip
                self._lost_here(link, f"the {self._peer} does not hear this end", Session(self._channels))

    def _lost_here(self, link: _Link, reason: str, session: Session) -> _Link | None:
        """A peer has lost this end: begin anew with it, and with all that must have lost it too."""
        resumed = self._resumed()
        others = [each for each in self.by_name.values() if each is not link and each.opened_at < resumed]
        if link.opened_at >= resumed:
            others = []
        self.withdraw((each.name, each.incarnation) for each in others)
        reopened = self.restart(link, reason, session)
        for each in others:
            if self._links.get((each.name, each.incarnation)) is each:
                self.restart(each, "this process had stood still for longer than its lease")
        return reopened

    def restart(self, link: _Link, reason: str, session: Session | None = None) -> _Link | None:
        """End this link and begin a new session with the same life of the peer."""
        self._close(link, reason)
        return self._open(link.name, link.incarnation, session or Session(self._channels))

    def end(self, name: str, incarnation: int, reason: str) -> None:
        """A life of a peer has departed."""
        self._refused.pop((name, incarnation), None)
        self._strangers.pop((name, incarnation), None)
        lives = self._registered.get(name, {})
        lives.pop(incarnation, None)
        if not lives:
            self._registered.pop(name, None)
        link = self._links.get((name, incarnation))
        if link is not None:
            self._close(link, reason)
        if name in self.by_name:
            return
        # Others were refused while this one was there: of each identity the greatest is next.
        greatest = {public_of(lives[each].info.proof): each for each in sorted(lives)}
        for each in greatest.values():
            if (name, each) not in self._links:
                self._open(name, each, Session(self._channels))

    def findings(self) -> list[Finding]:
        """The peers that are there and were refused."""
        found = [
            Finding(f"{self._peer} {name} is not linked: {what}", remedy)
            for (name, _), mismatch in self._refused.items()
            for what, _, remedy in [mismatch.partition(": ")]
        ]
        found += [
            Finding(f"{self._peer} {name} is not let in", reason) for (name, _), reason in self._strangers.items()
        ]
        if self.forged:
            what = f"{self.forged} messages in the names of {self._peer}s were not theirs"
            found.append(Finding(what, "see who is in the domain"))
        return found

    def clear(self) -> list[_Link]:
        """Remove all links without notifying anybody. The caller closes them."""
        if self._asking is not None:
            self._asking.cancel()
        links = list(self._links.values())
        self._registered.clear()
        self._links.clear()
        self.by_name.clear()
        self.by_session.clear()
        return links

    def _refuse(self, name: str, incarnation: int, mismatch: str) -> None:
        self._refused[name, incarnation] = mismatch
        self._faults.warning(("version", name), "%s %s is refused: %s", self._peer, name, mismatch)

    def _open(self, name: str, incarnation: int, session: Session) -> _Link | None:
        registration = self._registered.get(name, {}).get(incarnation)
        if registration is None:
            return None  # everything was closed meanwhile
        try:
            link = self._make(registration.info, session)
        except AnywireError as error:
            log.error("a %s cannot be linked: %s", self._peer, error)
            return None
        link.participant, link.opened_at = registration.participant, self._loop.time()
        self._links[name, incarnation] = link
        link.refusal = self._refusal(registration.info)
        if link.refusal:
            self._strangers[name, incarnation] = link.refusal
            self._faults.warning(
                ("stranger", name, incarnation, link.refusal), "%s %s is not let in: %s",
                self._peer, printable(name), link.refusal,
            )  # fmt: skip
            if self._asking is None:
                self._asking = self._loop.call_later(ASK_AGAIN, self._ask_again)
        else:
            self.by_session[session.own] = link
        link.send_hello()
        return link

    def _refusal(self, info: _Info) -> str:
        return self._admits(info)[:MAX_REFUSAL] if self._admits is not None else ""

    def _ask_again(self) -> None:
        """Look whether those that are not let in are let in by now."""
        self._asking = None
        for life in list(self._strangers)[:ASKED_AT_ONCE]:
            reason = self._strangers.pop(life)
            link = self._links.get(life)
            if link is None or not link.refusal:
                continue
            if self._refusal(link.info):
                self._strangers[life] = reason
            else:
                self.restart(link, "it is let in")
        if self._strangers:
            self._asking = self._loop.call_later(ASK_AGAIN, self._ask_again)

    def _prevails(self, info: _Info, over: _Link) -> bool:
        """Whether the life that registers so takes the name from ``over``."""
        if public_of(info.proof) == over.identity:
            return info.incarnation > over.incarnation
        return self._rank(info) > self._rank(over.info)

    def _rank(self, info: _Info) -> tuple[bool, bool]:
        return not self._refusal(info), bool(info.proof)

    def _refuse_life(self, name: str, info: _Info, joined: _Link) -> None:
        identity = public_of(info.proof)
        if identity == joined.identity:
            log.warning(
                "%s %s is there twice: incarnation %s is refused, because %s has joined",
                self._peer, name, info.incarnation, joined.incarnation,
            )  # fmt: skip
        else:
            self._faults.warning(
                ("identity", name, identity), "%s %s is linked under another key: incarnation %s, %s, is refused",
                self._peer, name, info.incarnation, "whose key is another one" if identity else "which shows no key",
            )  # fmt: skip

    def _join(self, link: _Link) -> None:
        joined = self.by_name.get(link.name)
        if joined is not None and joined is not link and not self._prevails(link.info, joined):
            self._refuse_life(link.name, link.info, joined)
            self._close(link, "its name is another one's")
            return
        for incarnation in sorted(self._registered.get(link.name, {})):
            lesser = self._links.get((link.name, incarnation))
            if lesser is None or lesser is link or lesser.refusal:
                continue
            if self._prevails(link.info, lesser):
                log.warning(
                    "%s %s is there twice: incarnation %s replaces %s",
                    self._peer, link.name, link.incarnation, incarnation,
                )  # fmt: skip
                # A session that is never answered: its peer sees that it has lost us.
                self.by_session.pop(lesser.session.own, None)
                lesser.session = Session(self._channels)
                self.by_session[lesser.session.own] = lesser
                lesser.send_hello()
                self._close(lesser, f"replaced by incarnation {link.incarnation}")
        self.by_name[link.name] = link
        link.joined = True
        log.debug("%s %s joined over DDS", self._peer, link.name)
        self._joined(link)

    def _close(self, link: _Link, reason: str) -> None:
        self._links.pop((link.name, link.incarnation), None)
        self.by_session.pop(link.session.own, None)
        link.close()
        if self.by_name.get(link.name) is link:
            del self.by_name[link.name]
        if link.joined:
            link.joined = False
            log.debug("%s %s lost over DDS: %s", self._peer, link.name, reason)
            self._lost(link, reason)
