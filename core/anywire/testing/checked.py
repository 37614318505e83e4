"""A transport with the laws around it: what a rig's `new_transport` gives, for bare ends and under pipelines.

Each end has the transport's own one as ``inner``: what a test sends there passes the laws by.

A call that breaks a law raises `AssertionError` with the law's sentence, instead of what the transport has raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anywire.errors import AgentUnavailable, Congested, PayloadTooLarge, TransportError, TransportUnavailable
from anywire.messages import AgentInfo, AgentStatus, Command, FromAgent, HubInfo, TaskRequest, ToAgent
from anywire.testing.laws import AgentLaws, EndLaws, HubLaws, Link
from anywire.testing.ledger import Ledger
from anywire.testing.patience import Breaches
from anywire.transport import MAX_MESSAGE_BYTES, AgentPort, AgentSink, Hub, HubSink, Plane, Reply, Transport
from anywire.transport_tools import MayCongest, payload_bytes

if TYPE_CHECKING:
    from anywire.identities.identity_proof import Identity


class CheckedTransport(Transport):
    """Delegates to ``inner``, whose own attributes are reached through this one."""

    def __init__(self, inner: Any, breaches: Breaches, ledger: Ledger) -> None:
        super().__init__(inner.config)
        self.inner, self._breaches, self._ledger = inner, breaches, ledger
        self.name, self.Config, self.capabilities = inner.name, inner.Config, inner.capabilities  # type: ignore[misc]
        self._limit: int = getattr(inner.config, "max_message_bytes", None) or MAX_MESSAGE_BYTES

    @property
    def identity(self) -> Identity | None:
        found: Identity | None = self.inner.identity
        return found

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        self.inner.identity = identity

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        laws = HubLaws(self._breaches, self._ledger, hub, plane, sink, self._limit)
        self.inner.identity, self.inner.admits = self.identity, self.admits
        try:
            end = await self.inner.open_hub(hub, plane, laws)
        except Exception as error:
            self._check_opening(laws, error)
            raise
        laws.opened = True
        return CheckedHub(end, laws)

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        laws = AgentLaws(self._breaches, self._ledger, info, plane, sink, self._limit, CheckedReply)
        self.inner.identity, self.inner.admits = self.identity, self.admits
        try:
            end = await self.inner.open_agent(info, plane, laws)
        except Exception as error:
            self._check_opening(laws, error)
            raise
        laws.opened = True
        return CheckedPort(end, laws)

    @property
    def is_local(self) -> bool:
        local: bool = self.inner.is_local
        return local

    def effective_settings(self) -> Mapping[str, str]:
        settings: Mapping[str, str] = self.inner.effective_settings()
        return settings

    def _check_opening(self, laws: EndLaws, error: Exception) -> None:
        laws.close()
        if not isinstance(error, TransportUnavailable):
            laws.breach(f"opening raised {error!r} instead of TransportUnavailable")
            laws.breaches.check()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class CheckedHub(Hub):
    def __init__(self, inner: Hub, laws: HubLaws) -> None:
        self.inner, self._laws = inner, laws

    def send(self, agent_id: str, message: ToAgent) -> None:
        laws, link = self._laws, self._laws.live.get(agent_id)
        granted = _take_grant(link)
        if link is not None and isinstance(message, TaskRequest):
            link.sent.add((message.task_id, message.attempt))
            laws.ledger.task(laws.key(link), link.session, message.task_id, message.attempt, message.priority)
        elif link is not None and isinstance(message, Command):
            link.sent.add((message.id, 0))
            laws.ledger.command(laws.key(link), message)
        try:
            self.inner.send(agent_id, message)
        except BaseException as error:
            if link is not None and isinstance(message, TaskRequest):
                laws.ledger.task_not_sent(laws.key(link), message.task_id, message.attempt)
            elif link is not None and isinstance(message, Command):
                laws.ledger.command_not_sent(laws.key(link), message)
            _check_raised(laws, error, "Hub.send", message, granted, (AgentUnavailable,))
            if isinstance(error, Congested) and not isinstance(message, MayCongest):
                laws.breach(f"Hub.send raised Congested for a {type(message).__name__}, which is small")
            laws.breaches.check()
            raise
        if link is None and not laws.closing:
            laws.breach(f"Hub.send accepted a message to {agent_id}, which is not joined")
        _check_accepted(laws, "Hub.send", message)
        laws.breaches.check()

    async def drain(self, agent_id: str) -> None:
        await _guard(self._laws, "Hub.drain", self.inner.drain(agent_id))
        if (link := self._laws.live.get(agent_id)) is not None:
            link.granted = True

    async def close(self) -> None:
        self._laws.close()
        await _guard(self._laws, "Hub.close", self.inner.close())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class CheckedPort(AgentPort):
    def __init__(self, inner: AgentPort, laws: AgentLaws) -> None:
        self.inner, self._laws = inner, laws

    def report(self, status: AgentStatus) -> None:
        self._laws.ledger.status(self._laws.plane, status)
        try:
            self.inner.report(status)
        except Exception as error:
            self._laws.breach(f"AgentPort.report raised {error!r}, it never raises")
            self._laws.breaches.check()
            raise

    async def close(self) -> None:
        self._laws.close()
        await _guard(self._laws, "AgentPort.close", self.inner.close())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class CheckedReply:
    """The `Reply` of one attempt or command that came by ``link``."""

    def __init__(self, laws: AgentLaws, link: Link, request: TaskRequest | Command, inner: Reply) -> None:
        self.inner, self._laws, self._link = inner, laws, link
        task_id, attempt = (request.id, 0) if isinstance(request, Command) else (request.task_id, request.attempt)
        self._attempt = (laws.key(link), task_id, attempt)
        laws.ledger.reply_opened(*self._attempt)

    @property
    def _lost(self) -> bool:
        return self._laws.closing or self._laws.live.get(self._link.peer_id) is not self._link

    def send(self, message: FromAgent) -> None:
        laws, lost = self._laws, self._lost
        granted = _take_grant(self._link)
        if not lost:
            laws.ledger.answer(*self._attempt, message)
        try:
            self.inner.send(message)
        except BaseException as error:
            if laws.closing:
                raise
            if lost:
                laws.breach(f"Reply.send raised {error!r} after its hub was lost, where it drops the message silently")
                laws.breaches.check()
                raise
            laws.ledger.answer_not_sent(*self._attempt, message)
            _check_raised(laws, error, "Reply.send", message, granted, ())
            laws.breaches.check()
            raise
        if not lost:
            _check_accepted(laws, "Reply.send", message)
            laws.breaches.check()

    async def drain(self) -> None:
        await _guard(self._laws, "Reply.drain", self.inner.drain())
        # The attempts of one hub share its room: whichever sends first uses the grant.
        self._link.granted = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _take_grant(link: Link | None) -> bool:
    """Whether ``drain`` has returned since the last message of this link."""
    if link is None:
        return False
    granted, link.granted = link.granted, False
    return granted


async def _guard(laws: EndLaws, where: str, awaited: Any) -> None:
    try:
        await awaited
    except Exception as error:
        laws.breach(f"{where} raised {error!r}, it raises nothing")
        laws.breaches.check()
        raise


def _check_raised(
    laws: EndLaws, error: BaseException, where: str, message: Any, granted: bool, also: tuple[type[Exception], ...]
) -> None:
    if type(error) is not TransportError and not isinstance(error, (Congested, PayloadTooLarge, *also)):
        laws.breach(f"{where} raised {error!r}, which its contract does not name")
    if isinstance(error, Congested) and granted:
        laws.breach(f"{where} raised Congested, though drain had returned and nothing was sent since")
    if isinstance(error, PayloadTooLarge) and (size := payload_bytes(message)) <= laws.limit:
        laws.breach(f"{where} refused {size} bytes of payload, the limit is {laws.limit} (max_message_bytes)")


def _check_accepted(laws: EndLaws, where: str, message: Any) -> None:
    try:
        size = payload_bytes(message)
    except TransportError:
        return
    if size > laws.limit:
        laws.breach(f"{where} accepted {size} bytes of payload, over the limit of {laws.limit} (max_message_bytes)")
