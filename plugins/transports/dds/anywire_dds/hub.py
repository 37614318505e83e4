"""The sending end of a plane over DDS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from cyclonedds.core import Policy

from anywire.clock import SystemClock
from anywire.errors import AgentLost, AgentUnavailable, AnywireError, Refused
from anywire.lease import AwakeTime
from anywire.messages import AgentInfo, AgentStatus, Command, HubInfo, TaskRequest, ToAgent
from anywire.protocol import PROTOCOL
from anywire.transport import Hub, HubSink, Plane
from anywire_dds import presence, types, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig, datagram_bytes
from anywire_dds.contract import TopicName
from anywire_dds.deadline import Streams
from anywire_dds.endpoints import CODECS, MAX_BATCHES, Endpoints, Finding, Samples, flush
from anywire_dds.hello import (
    Hello,
    control_hello,
    control_window,
    request_hello,
    request_window,
    window,
)
from anywire_dds.lifespan import Unconfirmed
from anywire_dds.links import Admits, Links
from anywire_dds.log_once import LogOnce
from anywire_dds.outbox import Outbox
from anywire_dds.peer_link import Link
from anywire_dds.session import Session
from anywire_dds.silent import SilentHubSink
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_PROGRESS, FRAME_RESULT, FRAME_WINDOW
from anywire_dds.unacknowledged import Unacknowledged
from anywire_dds.writer import Writer, of_priority

if TYPE_CHECKING:
    from anywire_dds.end_key import EndKey

log = logging.getLogger(__name__)

MAX_LEAP = 2**31
"""Reports of which none has arrived, between two that have: a greater leap of the revision is none."""


class _Link(Link[AgentInfo]):
    """One session with one agent."""

    def __init__(self, hub: DdsHub, info: AgentInfo, session: Session) -> None:
        super().__init__(info, session, hub.key)
        self.status: AgentStatus | None = None
        self.revision = 0
        self._hub = hub
        endpoints = hub.endpoints
        partition = endpoints.partition(("agent", info.agent_id, info.incarnation))
        peer = f"agent {info.agent_id}"
        self._writers = endpoints.writers("request", partition, hub.config.priorities, seal=self.seal)
        self.requests = Outbox(self._writers[-1], peer, self._request_failed, hub.config.buffer_bytes)
        control = endpoints.writer("control", partition, endpoints.often_alive(), seal=self.seal)
        self.controls = Outbox(control, peer, self._control_failed, None)
        self._reported_sent = self._answered = 0

    def writer(self, priority: int) -> Writer:
        return of_priority(self._writers, priority)

    def report_sent(self) -> None:
        """What was sent and expired is never consumed: the agent is to count it as if it had been."""
        if self.requests.ahead and self.requests.sent != self._reported_sent:
            self._reported_sent = self.requests.sent
            self.requests.send_now(request_window(self.session.peer, self._reported_sent))

    def on_hello(self, hello: Hello) -> None:
        # The agent may have heard nothing of this hub yet, and so not know that it is to write streams: its HELLO is
        # complete, and answered, only when it does.
        if self._hub.config.deadline is not None and hello.session != self._answered:
            self._answered = hello.session
            self.send_hello()

    def send_hello(self) -> None:
        hub = self._hub
        deadline_ms = round((hub.config.deadline or 0) * 1000)
        priorities = tuple(hub.config.priorities)
        hello = Hello(
            hub.info.hub_id, hub.info.incarnation, self.session.own, hub.endpoints.protocol, deadline_ms=deadline_ms,
            priorities=priorities, proof=hub.info.proof, key=self.exchange(), refusal=self.refusal,
        )  # fmt: skip
        self.requests.send_hello(request_hello(hello, self.session.peer, self.signature))
        self.controls.send_hello(control_hello(hello, self.session.peer, self.signature))

    def report(self, consumed: int) -> None:
        self.controls.send_now(control_window(self.session.peer, consumed))

    @property
    def outboxes(self) -> tuple[Outbox, ...]:
        return self.requests, self.controls

    @property
    def writers(self) -> list[Writer]:
        return [*self._writers, self.controls.writer]

    def stop(self) -> None:
        """Send nothing more."""
        self.requests.close()
        self.controls.close()

    def close(self) -> None:
        self.stop()
        self._hub.endpoints.retire(*self.writers)

    def _request_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        self._hub.sink.send_failed(self.name, self.incarnation, task_id, attempt, error)

    def _control_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        log.error("a control message of task %s (attempt %s) could not be sent: %s", task_id, attempt, error)


class DdsHub(Hub):
    """Made by `DdsTransport.open_hub`. Nothing is called back before `start_soon`."""

    def __init__(
        self,
        config: DdsConfig,
        info: HubInfo,
        plane: Plane,
        sink: HubSink,
        key: EndKey | None = None,
        admits: Admits[AgentInfo] | None = None,
    ) -> None:
        self.info, self.sink, self.config, self.key = info, sink, config, key
        self._loop = asyncio.get_running_loop()
        self._limit = config.max_message_bytes
        self._awake = AwakeTime(SystemClock())
        self._streams: Streams | None = None
        if config.deadline is not None:
            self._streams = Streams(config.deadline, self._awake)
        self._unconfirmed: Unconfirmed[_Link] | None = None
        if config.lifespan is not None:
            self._unconfirmed = Unconfirmed(config.lifespan, self._awake, self._take_all, self._expired)
        self._links: Links[AgentInfo, _Link] = Links(
            "agent", info.protocol or PROTOCOL, self._channels(), lambda agent, session: _Link(self, agent, session),
            self._joined, self._heard, self._lost, lambda: self.endpoints.pauses.resumed(),
            datagram_bytes(config), key, admits,
        )  # fmt: skip
        self._unacknowledged = Unacknowledged(config.progress_timeout, self._links.under_way, self._links.stuck)
        self._faults = LogOnce(log)
        self._closing: asyncio.Task[None] | None = None
        self.endpoints = endpoints = Endpoints(config, plane, info.lease_ms, info.protocol or PROTOCOL, held=True)
        self._agents = Announcements(
            CODECS["register"], types.AgentRegistration, lambda agent: agent.agent_id, presence.to_agent,
            lambda writer: endpoints.participant_of("register", writer), endpoints.protocol_of,
            self._links.begin, self._links.end, endpoints.unheard, self._links.withdraw,
            self._registered if key is not None else None,
        )  # fmt: skip
        try:
            self._hearing = endpoints.watch_hearing(self._links.unheard_by)
            fleet = endpoints.partition()
            own = endpoints.partition(("hub", info.hub_id, info.incarnation))
            if config.deadline is not None:
                period = Policy.Deadline(round(config.deadline * 1e9))
                self._take_streams = endpoints.read("stream", own, self._on_streams, period, missed=self._on_missed)
            self._take_responses = endpoints.read("response", own, self._on_responses)
            self._take_status = endpoints.read("status", fleet, self._on_status)
            self._take_agents = endpoints.read("register", fleet, self._on_agents)
            registration = presence.pack_hub(info, round(endpoints.lease_ns / 1e6))
            shows = [key.registration(registration)] if key is not None else []
            self._registration = endpoints.writer("hub", fleet, *shows)
            self._registration.write(registration)
        except BaseException:
            endpoints.abandon()
            raise

    def start_soon(self) -> None:
        """Begin to call back, after the opening has returned to its caller."""
        if self._streams is not None or self._unconfirmed is not None:
            self._awake.start()
        self._unacknowledged.start()
        self.endpoints.start_soon()

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self._links.by_name.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"agent {agent_id} is not joined over DDS", agent_id=agent_id)
        sample = wire.pack_to_agent(link.session.peer, message, self._limit)
        if isinstance(message, TaskRequest):
            writer = link.writer(message.priority) if message.priority else None
            self._send_request(link, sample, message.task_id, message.attempt, writer)
        elif isinstance(message, Command):
            self._send_request(link, sample, message.id, 0, None)
        else:
            link.controls.send(sample, message.task_id, message.attempt)
        if self._streams is not None:
            self._streams.sent(link.name, link.incarnation, message)
        if self.endpoints.poll is not None:
            self.endpoints.poll.sent()

    def _send_request(self, link: _Link, sample: bytes, task_id: str, attempt: int, writer: Writer | None) -> None:
        link.requests.send(sample, task_id, attempt, writer)
        if self._unconfirmed is not None:
            self._unconfirmed.sent(link, task_id, attempt)

    async def drain(self, agent_id: str) -> None:
        link = self._links.by_name.get(agent_id)
        if link is not None:
            await link.requests.drain()

    @property
    def closing(self) -> bool:
        return self._closing is not None

    def close(self) -> Coroutine[Any, Any, None]:
        # Nothing is called back from here on, also when the coroutine is awaited later.
        if self._closing is None:
            self.sink = SilentHubSink()
            self._unacknowledged.close()
            if self._unconfirmed is not None:
                self._unconfirmed.close()
            if self._streams is not None or self._unconfirmed is not None:
                self._awake.stop()
            self._closing = asyncio.ensure_future(self._close())
        return self._closed(self._closing)

    @staticmethod
    async def _closed(closing: asyncio.Task[None]) -> None:
        await asyncio.shield(closing)

    async def _close(self) -> None:
        endpoints = self.endpoints
        joined = list(self._links.by_name.values())
        # Its agents go on to say what they have consumed, so that what was accepted can be written.
        if not await flush([outbox for link in joined for outbox in (link.requests, link.controls)]):
            log.warning("hub %s closes with messages unsent: their agents do not read", self.info.hub_id)
        endpoints.stop()
        for link in self._links.clear():
            link.stop()
        key = types.HubRegistration(self.info.incarnation, 0, 0, self.info.hub_id, "")
        await endpoints.say_goodbye([each for link in joined for each in link.writers], self._registration, key)
        await endpoints.close()

    # Samples

    def _on_agents(self) -> None:
        samples = self._take_agents()
        if not all(sample.valid_data for _, sample in samples):
            # An agent's last chunks are on another topic than its departure: they come first.
            self._take_all()
        self._agents.process(samples)
        if samples.more:
            self._loop.call_soon(self._on_agents)

    def _on_status(self) -> None:
        samples = self._take_status()
        if samples.more:
            self._loop.call_soon(self._on_status)
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                self._read_status(data, sample.publication_handle)
            except Exception:
                self._faults.warning("status", "a report could not be processed", exc_info=True)

    def _read_status(self, data: bytes, writer: int) -> None:
        participant, life, *_ = self.endpoints.source_of("status", writer)
        # Whose report it is says its writer; what the report says of that is the core's to check.
        link = self._links.of(*life) if life is not None else None
        if life is None:
            self._faults.warning(("nobody's", participant), "a report of a writer that names no agent is ignored")
        if link is None:
            return
        if participant is None or participant != link.participant:
            self._faults.warning(
                ("foreign", participant), "a report in the name of agent %s, not by its participant, is ignored",
                link.name,
            )  # fmt: skip
            return
        if link.peer_key is not None and not link.peer_key.has_signed_report(data):
            self._links.foreign_report(link)
            return
        try:
            revision, status = presence.read_status(data)
        except Malformed as error:
            self._faults.warning(("unreadable", participant), "an unreadable report is ignored: %s", error)
            return
        if revision - link.revision > MAX_LEAP:
            self._faults.warning(
                ("revision", link.name), "a report of agent %s has revision %d after %d: it is ignored",
                link.name, revision, link.revision,
            )  # fmt: skip
        else:
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
        """Process what has arrived of every agent."""
        for _ in range(MAX_BATCHES):
            if not self._receive("response", self._take_responses()):
                break
        for _ in range(MAX_BATCHES):
            if self._streams is None or not self._receive("stream", self._take_streams()):
                break

    def _on_missed(self) -> None:
        """DDS says that streams missed their deadline: report those that have stalled."""
        if self._streams is None or self._closing is not None:
            return
        self._take_all()
        for stream in self._streams.take_stalled():
            message = f"agent {stream.agent_id} has sent nothing of the stream for {self._streams.period:g} s"
            error = AgentLost(
                f"{message} (transports.dds.deadline)", phase="streaming", agent_id=stream.agent_id,
                task_id=stream.task_id,
            )  # fmt: skip
            log.warning("task %s: %s", stream.task_id, error)
            self.sink.send_failed(stream.agent_id, stream.incarnation, stream.task_id, stream.attempt, error)

    def _expired(self, link: _Link, task_id: str, attempt: int) -> None:
        """An agent has not confirmed a request within its lifespan."""
        if not link.requests.discard(task_id, attempt):
            link.report_sent()
        message = f"agent {link.name} did not take the request within {self.config.lifespan:g} s"
        error = Refused(f"{message} (transports.dds.lifespan)", agent_id=link.name, task_id=task_id)
        log.warning("task %s: %s", task_id, error)
        self.sink.send_failed(link.name, link.incarnation, task_id, attempt, error)

    def _receive(self, channel: TopicName, samples: Samples) -> bool:
        """True when there may be more."""
        if samples and self.endpoints.poll is not None:
            self.endpoints.poll.received()
        read = self._read_response if self.key is None else self._read_authentic
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                read(channel, data, sample)
            except Malformed as error:
                participant = self.endpoints.participant_of(channel, sample.publication_handle)
                self._faults.warning(("response", participant), "an unreadable response is ignored: %s", error)
            except Exception:
                self._faults.warning("failed", "a response could not be processed", exc_info=True)
        return samples.more

    def _read_authentic(self, channel: TopicName, data: bytes, sample: Any) -> None:
        if (packed := self._links.authentic(channel, data)) is not None:
            self._read_response(channel, packed, sample)

    def _read_response(self, channel: TopicName, data: bytes, sample: Any) -> None:
        values = wire.unpack_response(data)
        frame = values[wire.RESPONSE_FRAME]
        if frame == FRAME_HELLO:
            self._hearing.look()
            participant = self.endpoints.participant_of(channel, sample.publication_handle)
            says, more = values[wire.RESPONSE_EXTRA], values[wire.RESPONSE_MORE]
            self._links.hello(channel, values[0], says, more, participant)
            return
        link = self._links.by_session.get(values[0])
        if link is None or not link.session.joined:
            return  # of a session that is over
        writer = sample.publication_handle
        if writer not in link.sources and not self._links.admit(
            link, writer, self.endpoints.participant_of(channel, writer)
        ):
            return
        if frame == FRAME_WINDOW:
            link.requests.consumed(window(values[wire.RESPONSE_EXTRA]))
            if self._unconfirmed is not None and (task_id := values[wire.RESPONSE_TASK]):
                self._unconfirmed.confirmed(link, task_id, values[wire.RESPONSE_ATTEMPT])
            return
        link.account(len(data))
        if frame == FRAME_MESSAGE:
            chunk = wire.to_chunk(values)
            if self._streams is not None:
                self._streams.received(link.name, link.incarnation, chunk)
            self.sink.chunk_received(link.name, link.incarnation, chunk)
        elif frame == FRAME_PROGRESS:
            self.sink.progress_received(link.name, link.incarnation, wire.to_progress(values))
        elif frame == FRAME_RESULT:
            self.sink.result_received(link.name, link.incarnation, wire.to_result(values))

    # Links

    def _registered(self, info: AgentInfo, data: bytes, writer: int) -> AgentInfo:
        source = self.endpoints.source_of("register", writer)
        return self.key.registered(info, data, source.proof, source.signature) if self.key and source.proof else info

    def findings(self) -> list[Finding]:
        return [*self.endpoints.findings(), *self._links.findings()]

    def _joined(self, link: _Link) -> None:
        self.sink.agent_joined(msgspec.structs.replace(link.info, proof=link.proof))

    def _heard(self, link: _Link, hello: Hello, joined: bool) -> None:
        if hello.status is not None:
            self._newest(link, hello.revision, hello.status, again=joined)
        elif joined and link.status is not None:
            self._newest(link, link.revision, link.status, again=True)

    def _newest(self, link: _Link, revision: int, status: AgentStatus, *, again: bool = False) -> None:
        """Report a status if it is newer than the last; ``again`` reports the newest in any case."""
        if revision > link.revision:
            link.revision, link.status = revision, status
        elif not again:
            return
        if link.status is not None and self._links.by_name.get(link.name) is link:
            self.sink.agent_reported(link.name, link.incarnation, link.status)

    def _lost(self, link: _Link, reason: str) -> None:
        if self._streams is not None:
            self._streams.lost(link.name, link.incarnation)
        if self._unconfirmed is not None:
            self._unconfirmed.lost(link)
        self.sink.agent_lost(link.name, link.incarnation, reason)
