"""The sending end of a plane over DDS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec
from cyclonedds.core import Policy

from anywire.errors import AgentLost, AgentUnavailable, Refused, TransportError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_dds import types, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.contract import TopicName
from anywire_dds.deadline import Streams
from anywire_dds.endpoints import BATCH, CODECS, Endpoints
from anywire_dds.links import Link, Links
from anywire_dds.outbox import Outbox
from anywire_dds.session import Session
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW
from anywire_dds.writer import Writer, of_priority

log = logging.getLogger(__name__)

REMEMBERED = 1024
"""Attempts given up here of which chunks may still come."""


class _Link(Link):
    """One session with one agent."""

    def __init__(self, hub: DdsHub, info: AgentInfo, session: Session) -> None:
        super().__init__(info.agent_id, info.incarnation, session)
        self.info = info
        self.status: AgentStatus | None = None
        self.revision = 0
        self._hub = hub
        endpoints = hub.endpoints
        partition = endpoints.partition(("agent", info.agent_id, info.incarnation))
        peer = f"agent {info.agent_id}"
        self._writers = endpoints.writers("request", partition, hub.config.priorities)
        self.requests = Outbox(self._writers[-1], peer, hub.sink.send_failed)
        control = endpoints.writer("control", partition, endpoints.often_alive())
        self.controls = Outbox(control, peer, hub.sink.send_failed, bounded=False)
        self._untaken: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._told = self._heeded = 0

    def writer(self, priority: int) -> Writer:
        return of_priority(self._writers, priority)

    def expect_taken(self, task_id: str, attempt: int, lifespan: float) -> None:
        """A request was sent: within ``lifespan`` seconds the agent says that it has it, or it has expired."""
        timer = asyncio.get_running_loop().call_later(lifespan, self._expired, task_id, attempt, lifespan)
        self._untaken[task_id, attempt] = timer

    def taken(self, task_id: str, attempt: int) -> None:
        """The agent has that request, or shall not have it any more."""
        if (timer := self._untaken.pop((task_id, attempt), None)) is not None:
            timer.cancel()

    def _expired(self, task_id: str, attempt: int, lifespan: float) -> None:
        del self._untaken[task_id, attempt]
        # What was sent and expired is never consumed: the agent is to count it as if it had been.
        if self.requests.ahead and self.requests.sent != self._told:
            self._told = self.requests.sent
            self.requests.send_now(wire.request_window(self.session.peer, self._told))
        message = f"agent {self.name} did not take the request within {lifespan:g} s"
        self._hub.give_up(self.name, task_id, attempt, Refused(f"{message} (transports.dds.lifespan)"))

    def heed(self, hello: wire.Hello) -> None:
        # The agent may have heard nothing of this hub yet, and so not know that it is to write streams: its HELLO is
        # complete, and answered, only when it does.
        if self._hub.config.deadline is not None and hello.session != self._heeded:
            self._heeded = hello.session
            self.greet()

    def greet(self) -> None:
        hub = self._hub
        deadline_ms = round((hub.config.deadline or 0) * 1000)
        priorities = tuple(hub.config.priorities)
        hello = wire.Hello(
            hub.info.hub_id, hub.info.incarnation, self.session.own, deadline_ms=deadline_ms, priorities=priorities
        )
        self.requests.send_now(wire.request_hello(hello, self.session.peer))
        self.controls.send_now(wire.control_hello(hello, self.session.peer))

    def stop(self) -> None:
        """Send no more requests."""
        for timer in self._untaken.values():
            timer.cancel()
        self.requests.close()

    def report(self, consumed: int) -> None:
        self.controls.send_now(wire.control_window(self.session.peer, consumed))

    def close(self) -> None:
        self.stop()
        self.controls.close()
        self._hub.endpoints.retire(*self._writers, self.controls.writer)


class DdsHub(Hub):
    """Made by `DdsTransport.open_hub`."""

    def __init__(self, config: DdsConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        self.info, self.sink, self.config = info, sink, config
        self._loop = asyncio.get_running_loop()
        self._limit, self._lifespan = config.max_message_bytes, config.lifespan
        self._streams = Streams(config.deadline) if config.deadline is not None else None
        self._links: Links[AgentInfo, _Link] = Links(
            "agent", self._channels(), lambda agent, session: _Link(self, agent, session), self._heard, self._lost
        )
        self._given_up: dict[tuple[str, int], None] = {}
        self._closing: asyncio.Task[None] | None = None
        self._agents = Announcements(
            CODECS["register"], types.AgentRegistration, lambda agent: agent.agent_id, wire.to_agent,
            self._links.begin, self._links.end,
        )  # fmt: skip
        self.endpoints = endpoints = Endpoints(config, plane, info.hub_id, info.lease_ms)
        try:
            fleet = endpoints.partition()
            own = endpoints.partition(("hub", info.hub_id, info.incarnation))
            if config.deadline is not None:
                period = Policy.Deadline(round(config.deadline * 1e9))
                self._take_streams = endpoints.read("stream", own, self._on_streams, period, missed=self._on_missed)
            self._take_responses = endpoints.read("response", own, self._on_responses)
            self._take_status = endpoints.read("status", fleet, self._on_status)
            self._take_agents = endpoints.read("register", fleet, self._on_agents)
            self._registration = endpoints.writer("hub", fleet)
            self._registration.write(wire.pack_hub(info, round(endpoints.lease_ns / 1e6)))
        except BaseException:
            endpoints.abandon()
            raise

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self._links.by_name.get(agent_id)
        if link is None or not link.session.joined:
            raise AgentUnavailable(f"agent {agent_id} is not joined over DDS", agent_id=agent_id)
        sample = wire.pack_to_agent(link.session.peer, message, self._limit)
        if isinstance(message, TaskRequest):
            writer = link.writer(message.priority) if message.priority else None
            link.requests.send(sample, message.task_id, message.attempt, writer)
            if self._lifespan is not None:
                link.expect_taken(message.task_id, message.attempt, self._lifespan)
        else:
            link.controls.send(sample, getattr(message, "task_id", ""), getattr(message, "attempt", 0))
            if isinstance(message, Cancel):
                link.taken(message.task_id, message.attempt)
        if self._streams is not None:
            self._streams.sent(agent_id, message)

    async def drain(self, agent_id: str) -> None:
        link = self._links.by_name.get(agent_id)
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
        endpoints, links = self.endpoints, self._links.clear()
        endpoints.stop()
        for link in links:
            link.stop()

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
            self._take_all()
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
            link = self._links.by_name.get(status.agent_id)
            if link is not None and link.info.incarnation == status.incarnation:
                self._newest(link, revision, status)

    def _channels(self) -> tuple[TopicName, ...]:
        """The writers that must have reached this hub before an agent has joined."""
        return ("response",) if self._streams is None else ("response", "stream")

    def _on_responses(self) -> None:
        if self._receive("response", self._take_responses()):
            self._loop.call_soon(self._on_responses)

    def _on_streams(self) -> None:
        if self._receive("stream", self._take_streams()):
            self._loop.call_soon(self._on_streams)

    def _take_all(self) -> None:
        while self._receive("response", self._take_responses()):
            pass
        while self._streams is not None and self._receive("stream", self._take_streams()):
            pass

    def _on_missed(self) -> None:
        """Streams missed their deadline: give up those that have stalled."""
        self._take_all()
        assert self._streams is not None
        for stream in self._streams.stalled():
            message = f"agent {stream.agent_id} has sent nothing of the stream for {self._streams.period:g} s"
            error = AgentLost(f"{message} (transports.dds.deadline)", phase="streaming")
            self.give_up(stream.agent_id, stream.task_id, stream.attempt, error)

    def give_up(self, agent_id: str, task_id: str, attempt: int, error: TransportError | Refused) -> None:
        """End an attempt from here: what still comes of it is dropped."""
        error.agent_id, error.task_id = agent_id, task_id
        log.warning("task %s: %s", task_id, error)
        self._given_up[task_id, attempt] = None
        while len(self._given_up) > REMEMBERED:
            del self._given_up[next(iter(self._given_up))]
        with contextlib.suppress(AgentUnavailable):
            self.send(agent_id, Cancel(self.info.hub_id, task_id, attempt, "given up"))
        self.sink.send_failed(task_id, attempt, error)

    def _receive(self, channel: TopicName, samples: list[Any]) -> bool:
        """True when there may be more."""
        sessions, chunk_received = self._links.by_session, self.sink.chunk_received
        watched = self._streams is not None or bool(self._given_up)
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
                self._links.hello(channel, values[0], values[11])
                continue
            link = sessions.get(values[0])
            if link is None or not link.session.joined:
                continue  # of a session that is over
            if frame == FRAME_MESSAGE:
                chunk = wire.to_chunk(values)
                if not watched or self._still_wanted(chunk):
                    chunk_received(chunk)
                link.account(len(data))
            elif frame == FRAME_WINDOW:
                link.requests.consumed(wire.window(values[11]))
                if values[10]:
                    link.taken(values[10], values[6])
        return len(samples) == BATCH

    def _still_wanted(self, chunk: Chunk) -> bool:
        if (chunk.task_id, chunk.attempt) in self._given_up:
            return False
        if self._streams is not None:
            self._streams.received(chunk)
        return True

    # Links

    def _heard(self, link: _Link, hello: wire.Hello, joined: bool) -> None:
        if joined:
            self.sink.agent_joined(link.info)
        if hello.status is not None:
            self._newest(link, hello.revision, hello.status, again=joined)

    def _newest(self, link: _Link, revision: int, status: AgentStatus, *, again: bool = False) -> None:
        if revision > link.revision:
            link.revision, link.status = revision, status
        elif not again:
            return
        if link.session.joined and link.status is not None and self._links.by_name.get(link.name) is link:
            self.sink.agent_reported(link.status)

    def _lost(self, link: _Link, reason: str) -> None:
        if self._streams is not None:
            self._streams.lost(link.name)
        self.sink.agent_lost(link.name, link.incarnation, reason)
