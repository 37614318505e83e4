"""An agent's end of a plane over DDS."""

from __future__ import annotations

import asyncio
import logging

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo
from anywire.transport import AgentPort, AgentSink, Plane
from anywire_dds import types, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.endpoints import BATCH, CODECS, FAREWELL, Endpoints
from anywire_dds.outbox import REPORT, REPORT_MESSAGES, Outbox
from anywire_dds.session import Session, Verdict
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW

log = logging.getLogger(__name__)


class _Link:
    """One session with one hub; it is also the way back (`Reply`) of every task of that hub."""

    def __init__(self, port: DdsAgentPort, hub: HubInfo, session: Session) -> None:
        self.hub, self.session = hub, session
        self.consumed = self.reported = self.unreported_bytes = 0
        self._limit = port.limit
        self._open = True
        partition = port.endpoints.partition(("hub", hub.hub_id, hub.incarnation))
        self.responses = Outbox(port.endpoints.writer("response", partition), f"hub {hub.hub_id}", _undeliverable)

    def send(self, chunk: Chunk) -> None:
        if self._open:
            sample = wire.pack_chunk(self.session.peer, chunk, self._limit)
            self.responses.send(sample, chunk.task_id, chunk.attempt)

    async def drain(self) -> None:
        await self.responses.drain()

    def stop(self) -> None:
        self._open = False
        self.responses.close()

    def close(self, endpoints: Endpoints) -> None:
        self.stop()
        endpoints.retire(self.responses.writer)


def _undeliverable(task_id: str, attempt: int, error: AnywireError) -> None:
    log.error("a chunk of task %s (attempt %s) could not be sent: %s", task_id, attempt, error)


class DdsAgentPort(AgentPort):
    """Made by `DdsTransport.open_agent`."""

    def __init__(self, config: DdsConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        self.info, self.sink, self.limit = info, sink, config.max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._status: AgentStatus | None = None
        self._revision = 0
        self._links: dict[str, _Link] = {}
        self._sessions: dict[int, _Link] = {}
        self._closing: asyncio.Task[None] | None = None
        self._hubs = Announcements(
            CODECS["hub"], types.HubRegistration, lambda hub: hub.hub_id, wire.to_hub, self._begin, self._end
        )
        self.endpoints = endpoints = Endpoints(config, plane, info.agent_id, info.lease_ms)
        try:
            fleet = endpoints.partition()
            own = endpoints.partition(("agent", info.agent_id, info.incarnation))
            self._take_requests = endpoints.read("request", own, self._on_requests)
            self._take_controls = endpoints.read("control", own, self._on_controls)
            self._registration = endpoints.writer("register", fleet)
            # Offering half the lease makes Cyclone show this agent alive twice as often.
            self._reports = endpoints.writer("status", fleet, endpoints.lease_ns // 2)
        except BaseException:
            endpoints.abandon()
            raise

    def report(self, status: AgentStatus) -> None:
        if self._closing is not None:
            return
        first = self._status is None
        self._status = status
        self._revision += 1
        try:
            if first:
                self._announce()
            self._reports.write(wire.pack_status(status, self._revision))
        except AnywireError as error:
            log.error("agent %s cannot report: %s", self.info.agent_id, error)

    def _announce(self) -> None:
        lease_ms = round(self.endpoints.lease_ns / 1e6)
        self._take_hubs = self.endpoints.read("hub", self.endpoints.partition(), self._on_hubs)
        self._registration.write(wire.pack_agent(self.info, lease_ms))

    @property
    def closing(self) -> bool:
        return self._closing is not None

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        links = list(self._links.values())
        try:
            async with asyncio.timeout(FAREWELL):
                await asyncio.gather(*(link.responses.empty() for link in links))
        except TimeoutError:
            log.warning("agent %s closes with chunks unsent: their hub does not read", self.info.agent_id)
        self.endpoints.stop()
        self._links.clear()
        self._sessions.clear()
        for link in links:
            link.stop()

        info = self.info
        key = types.AgentRegistration(info.incarnation, 0, 0, info.agent_id, "", "", "", "", "", [])
        # The last chunks arrive before the goodbye does.
        await self.endpoints.say_goodbye([link.responses.writer for link in links], self._registration, key)
        await self.endpoints.close()

    # Samples

    def _on_hubs(self) -> None:
        samples = self._take_hubs()
        self._hubs.process(samples)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_hubs)

    def _on_requests(self) -> None:
        samples = self._take_requests()
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                values = wire.unpack_request(data)
            except Malformed as error:
                log.warning("unreadable request ignored: %s", error)
                continue
            if values[2] == FRAME_HELLO:
                self._hello("request", values[0], values[12])
            elif values[2] == FRAME_MESSAGE and (link := self._speaking(values[0])) is not None:
                self.sink.task_received(wire.to_request(values), link)
                self._account(link, len(data))
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_requests)

    def _on_controls(self) -> None:
        samples = self._take_controls()
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                link_number, frame, attempt, chunks, kind, hub_id, task_id, reason = wire.unpack_control(data)
            except Malformed as error:
                log.warning("unreadable control message ignored: %s", error)
                continue
            if frame == FRAME_HELLO:
                self._hello("control", link_number, reason)
                continue
            link = self._speaking(link_number)
            if link is None:
                continue  # of a session that is over
            if frame == FRAME_WINDOW:
                link.responses.consumed(wire.window(reason))
            elif kind == "credit":
                self.sink.credit_received(Credit(hub_id, task_id, attempt, chunks))
            elif kind == "cancel":
                self.sink.cancel_received(Cancel(hub_id, task_id, attempt, reason))
            elif kind == "drain":
                self.sink.drain_requested(reason)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_controls)

    def _speaking(self, number: int) -> _Link | None:
        """The link of a message. The hub would not send one without having heard us, so the link is joined."""
        link = self._sessions.get(number)
        if link is not None and Verdict.JOIN in link.session.confirmed():
            self._joined(link)
        return link if link is not None and link.session.joined else None

    def _account(self, link: _Link, size: int) -> None:
        link.consumed += 1
        link.unreported_bytes += size
        if link.unreported_bytes >= REPORT or link.consumed - link.reported >= REPORT_MESSAGES:
            link.reported, link.unreported_bytes = link.consumed, 0
            link.responses.send_now(wire.response_window(link.session.peer, link.consumed))

    # Links

    def _begin(self, hub: HubInfo) -> None:
        self._open(hub, Session(("request", "control")))

    def _open(self, hub: HubInfo, session: Session) -> _Link | None:
        try:
            link = _Link(self, hub, session)
        except AnywireError as error:
            log.error("hub %s cannot be linked: %s", hub.hub_id, error)
            return None
        self._links[hub.hub_id] = self._sessions[session.own] = link
        self._greet(link)
        return link

    def _greet(self, link: _Link) -> None:
        info, own = self.info, link.session.own
        hello = wire.Hello(info.agent_id, info.incarnation, own, self._status, self._revision)
        link.responses.send_now(wire.response_hello(hello, link.session.peer))

    def _hello(self, channel: str, echo: int, text: str) -> None:
        hello = wire.read_hello(text)
        link = self._links.get(hello.name) if hello is not None else None
        if hello is None or link is None or link.hub.incarnation != hello.incarnation:
            return  # its registration has not come yet: it will get our HELLO then, and answer
        verdict = link.session.hello(channel, hello.session, echo)
        if Verdict.RESTART in verdict:
            hub, session = link.hub, link.session.successor()
            self._end(hub.hub_id, hub.incarnation, "the hub had lost this agent")
            link = self._open(hub, session)
            if link is None:
                return
        elif Verdict.ANSWER in verdict:
            self._greet(link)
        if Verdict.JOIN in verdict:
            self._joined(link)

    def _joined(self, link: _Link) -> None:
        log.info("hub %s joined over DDS", link.hub.hub_id)
        self.sink.hub_joined(link.hub.hub_id, link.hub.incarnation)

    def _end(self, hub_id: str, incarnation: int, reason: str) -> None:
        link = self._links.get(hub_id)
        if link is None or link.hub.incarnation != incarnation:
            return
        del self._links[hub_id]
        del self._sessions[link.session.own]
        link.close(self.endpoints)
        if link.session.joined:
            log.info("hub %s lost over DDS: %s", hub_id, reason)
            self.sink.hub_lost(hub_id, incarnation, reason)
