"""The sending end of a plane over DDS."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from anywire.errors import AgentUnavailable, AnywireError
from anywire.messages import AgentInfo, AgentStatus, HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_dds import types, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.endpoints import BATCH, CODECS, Endpoints
from anywire_dds.outbox import REPORT, REPORT_MESSAGES, Outbox
from anywire_dds.session import Session, Verdict
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW

log = logging.getLogger(__name__)


class _Link:
    """One session with one agent: its writers, and what has been said."""

    def __init__(self, hub: DdsHub, info: AgentInfo, session: Session) -> None:
        self.info, self.session = info, session
        self.status: AgentStatus | None = None
        self.revision = 0
        self.consumed = self.reported = self.unreported_bytes = 0
        endpoints = hub.endpoints
        partition = endpoints.partition(("agent", info.agent_id, info.incarnation))
        peer = f"agent {info.agent_id}"
        self.requests = Outbox(endpoints.writer("request", partition), peer, hub.sink.send_failed)
        # Offering half the lease makes Cyclone show this hub alive twice as often.
        control = endpoints.writer("control", partition, endpoints.lease_ns // 2)
        self.controls = Outbox(control, peer, hub.sink.send_failed, bounded=False)

    def close(self, endpoints: Endpoints) -> None:
        self.requests.close()
        self.controls.close()
        endpoints.retire(self.requests.writer, self.controls.writer)


class DdsHub(Hub):
    """Made by `DdsTransport.open_hub`."""

    def __init__(self, config: DdsConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        self.info, self.sink = info, sink
        self._loop = asyncio.get_running_loop()
        self._limit = config.max_message_bytes
        self._links: dict[str, _Link] = {}
        self._sessions: dict[int, _Link] = {}
        self._closing: asyncio.Task[None] | None = None
        self._agents = Announcements(
            CODECS["register"], types.AgentRegistration, lambda agent: agent.agent_id, wire.to_agent,
            self._begin, self._end,
        )  # fmt: skip
        self.endpoints = endpoints = Endpoints(config, plane, info.hub_id, info.lease_ms)
        try:
            fleet = endpoints.partition()
            own = endpoints.partition(("hub", info.hub_id, info.incarnation))
            self._take_responses = endpoints.read("response", own, self._on_responses)
            self._take_status = endpoints.read("status", fleet, self._on_status)
            self._take_agents = endpoints.read("register", fleet, self._on_agents)
            self._registration = endpoints.writer("hub", fleet)
            self._registration.write(wire.pack_hub(info, round(endpoints.lease_ns / 1e6)))
        except BaseException:
            endpoints.abandon()
            raise

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self._links.get(agent_id)
        if link is None or not link.session.joined:
            raise AgentUnavailable(f"agent {agent_id} is not joined over DDS", agent_id=agent_id)
        sample = wire.pack_to_agent(link.session.peer, message, self._limit)
        if isinstance(message, TaskRequest):
            link.requests.send(sample, message.task_id, message.attempt)
        else:
            link.controls.send(sample, getattr(message, "task_id", ""), getattr(message, "attempt", 0))

    async def drain(self, agent_id: str) -> None:
        link = self._links.get(agent_id)
        if link is not None:
            await link.requests.drain()

    @property
    def closing(self) -> bool:
        return self._closing is not None

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        endpoints, links = self.endpoints, list(self._links.values())
        endpoints.stop()
        self._links.clear()
        self._sessions.clear()
        for link in links:
            link.requests.close()

        key = types.HubRegistration(self.info.incarnation, 0, 0, self.info.hub_id, "")
        # Cancels that were sent go out before the goodbye does.
        await endpoints.say_goodbye([link.controls.writer for link in links], self._registration, key)
        for link in links:
            link.controls.close()
        await endpoints.close()

    # Samples

    def _on_agents(self) -> None:
        samples = self._take_agents()
        if not all(sample.valid_data for _, sample in samples):
            # An agent's last chunks are on another topic than its departure: they come first.
            while self._on_responses():
                pass
        self._agents.process(samples)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_agents)

    def _on_status(self) -> None:
        samples = self._take_status()
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_status)
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                revision, status = wire.to_status(CODECS["status"].unpack(data))
            except (Malformed, msgspec.DecodeError) as error:
                log.warning("unreadable status ignored: %s", error)
                continue
            link = self._links.get(status.agent_id)
            if link is not None and link.info.incarnation == status.incarnation:
                self._newest(link, revision, status)

    def _on_responses(self) -> bool:
        """True when there may be more."""
        samples = self._take_responses()
        sessions = self._sessions
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                values = wire.unpack_response(data)
            except Malformed as error:
                log.warning("unreadable response ignored: %s", error)
                continue
            frame = values[5]
            if frame == FRAME_HELLO:
                self._hello(values[0], values[11])
                continue
            link = sessions.get(values[0])
            if link is None or not link.session.joined:
                continue  # of a session that is over
            if frame == FRAME_MESSAGE:
                self.sink.chunk_received(wire.to_chunk(values))
                self._account(link, len(data))
            elif frame == FRAME_WINDOW:
                link.requests.consumed(wire.window(values[11]))
        if len(samples) < BATCH:
            return False
        self._loop.call_soon(self._on_responses)
        return True

    def _account(self, link: _Link, size: int) -> None:
        link.consumed += 1
        link.unreported_bytes += size
        if link.unreported_bytes >= REPORT or link.consumed - link.reported >= REPORT_MESSAGES:
            link.reported, link.unreported_bytes = link.consumed, 0
            link.controls.send_now(wire.control_window(link.session.peer, link.consumed))

    # Links

    def _begin(self, info: AgentInfo) -> None:
        self._open(info, Session(("response",)))

    def _open(self, info: AgentInfo, session: Session) -> _Link | None:
        try:
            link = _Link(self, info, session)
        except AnywireError as error:
            log.error("agent %s cannot be linked: %s", info.agent_id, error)
            return None
        self._links[info.agent_id] = self._sessions[session.own] = link
        self._greet(link)
        return link

    def _greet(self, link: _Link) -> None:
        hello = wire.Hello(self.info.hub_id, self.info.incarnation, link.session.own)
        link.requests.send_now(wire.request_hello(hello, link.session.peer))
        link.controls.send_now(wire.control_hello(hello, link.session.peer))

    def _hello(self, echo: int, text: str) -> None:
        hello = wire.read_hello(text)
        link = self._links.get(hello.name) if hello is not None else None
        if hello is None or link is None or link.info.incarnation != hello.incarnation:
            return  # its registration has not come yet: it will get our HELLO then, and answer
        verdict = link.session.hello("response", hello.session, echo)
        if Verdict.RESTART in verdict:
            info, session = link.info, link.session.successor()
            self._end(info.agent_id, info.incarnation, "the agent had lost this hub")
            link = self._open(info, session)
            if link is None:
                return
        elif Verdict.ANSWER in verdict:
            self._greet(link)
        if Verdict.JOIN in verdict:
            log.info("agent %s joined over DDS", link.info.agent_id)
            self.sink.agent_joined(link.info)
        if hello.status is not None:
            self._newest(link, hello.revision, hello.status, again=Verdict.JOIN in verdict)

    def _newest(self, link: _Link, revision: int, status: AgentStatus, *, again: bool = False) -> None:
        if revision > link.revision:
            link.revision, link.status = revision, status
        elif not again:
            return
        if link.session.joined and link.status is not None and self._links.get(link.info.agent_id) is link:
            self.sink.agent_reported(link.status)

    def _end(self, agent_id: str, incarnation: int, reason: str) -> None:
        link = self._links.get(agent_id)
        if link is None or link.info.incarnation != incarnation:
            return
        del self._links[agent_id]
        del self._sessions[link.session.own]
        link.close(self.endpoints)
        if link.session.joined:
            log.info("agent %s lost over DDS: %s", agent_id, reason)
            self.sink.agent_lost(agent_id, incarnation, reason)
