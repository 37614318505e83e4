"""An agent's end of a plane over DDS."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from cyclonedds.core import Policy

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, CommandResult, Credit, FromAgent, HubInfo
from anywire.protocol import PROTOCOL
from anywire.transport import AgentPort, AgentSink, Plane, Reply
from anywire_dds import presence, types, user_data, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig, datagram_bytes
from anywire_dds.contract import TopicName
from anywire_dds.endpoints import CODECS, MAX_BATCHES, Endpoints, Finding, flush
from anywire_dds.hello import Hello, response_hello, response_window, window
from anywire_dds.links import Admits, Links
from anywire_dds.log_once import LogOnce
from anywire_dds.outbox import Outbox
from anywire_dds.peer_link import Link
from anywire_dds.session import Session
from anywire_dds.silent import SilentAgentSink
from anywire_dds.types import FRAME_COMMAND, FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW
from anywire_dds.unacknowledged import Unacknowledged
from anywire_dds.writer import Writer, of_priority

if TYPE_CHECKING:
    from anywire_dds.end_key import EndKey

log = logging.getLogger(__name__)

_CHANNELS: tuple[Literal["request", "control"], ...] = ("request", "control")


class _Link(Link[HubInfo]):
    """One session with one hub; it is also the way back (`Reply`) of every task and command of that
    hub."""

    def __init__(self, port: DdsAgentPort, hub: HubInfo, session: Session) -> None:
        super().__init__(hub, session, port.key)
        self.lifespan_ns = 0
        """How long a request of this hub counts, since it was written; 0: for ever."""
        self._port = port
        self._limit = port.limit
        self._open = True
        self._partition = port.endpoints.partition(("hub", hub.hub_id, hub.incarnation))
        self._writers = port.endpoints.writers("response", self._partition, (), seal=self.seal)
        self._stream_writers: list[Writer] = []
        self._streams: dict[tuple[str, int], Writer] = {}
        self.responses = Outbox(self._writers[-1], f"hub {hub.hub_id}", self._failed, port.buffer_bytes)

    def send(self, message: FromAgent, priority: int = 0) -> None:
        if not self._open:
            return
        sample = wire.pack_from_agent(self.session.peer, message, self._limit)
        if (poll := self._port.endpoints.poll) is not None:
            poll.sent()
        if isinstance(message, CommandResult):
            self.responses.send(sample, message.id, 0)
            return
        if self._stream_writers and isinstance(message, Chunk) and self._send_of_stream(sample, message, priority):
            return
        writer = of_priority(self._writers, priority) if priority else None
        self.responses.send(sample, message.task_id, message.attempt, writer)

    def _send_of_stream(self, sample: bytes, chunk: Chunk, priority: int) -> bool:
        """False when it is none: an answer of one chunk has no deadline, nor has what comes after a stream's end."""
        stream = (chunk.task_id, chunk.attempt)
        writer = self._streams.get(stream)
        if writer is None:
            if chunk.final or chunk.seq:
                return False
            writer = of_priority(self._stream_writers, priority)
        # Acceptance, tokens and end are on one topic, where they keep their order.
        self.responses.send(sample, *stream, writer, wire.stream_key(*stream) if chunk.final else None)
        if chunk.final:
            del self._streams[stream]
        else:
            self._streams[stream] = writer
        return True

    def reply(self, priority: int) -> Reply:
        return _PriorityReply(self, priority) if priority > 0 and len(self._writers) > 1 else self

    def confirm(self, task_id: str, attempt: int) -> None:
        """Tell the hub at once that a request or command with a lifespan has come in time."""
        self.responses.send_now(response_window(self.session.peer, self.consumed, task_id, attempt))

    def may_miss(self, topic: TopicName) -> bool:
        return topic == "request" and self.lifespan_ns > 0

    async def drain(self) -> None:
        await self.responses.drain()

    def on_hello(self, hello: Hello) -> None:
        endpoints = self._port.endpoints
        if hello.priorities and len(self._writers) == 1:
            more = endpoints.writers("response", self._partition, hello.priorities, seal=self.seal)
            self._writers[:0] = more[:-1]
        if hello.deadline_ms and not self._stream_writers:
            period = Policy.Deadline(hello.deadline_ms * 1_000_000)
            self._stream_writers = endpoints.writers(
                "stream", self._partition, hello.priorities, period, seal=self.seal
            )
            self._write_hello(self._stream_writers[-1])

    def send_hello(self) -> None:
        self._write_hello(self._writers[-1])
        if self._stream_writers:
            self._write_hello(self._stream_writers[-1])

    def _write_hello(self, writer: Writer) -> None:
        hello = self._port.hello(self.session.own, self.exchange(), self.refusal)
        self.responses.send_hello(response_hello(hello, self.session.peer, self.signature), writer)

    def end_hello(self) -> None:
        """The handshake is over: introduce the writers that have said no HELLO."""
        # The hub asks DDS whose a writer is when it first hears it. Of one that is gone by then DDS does not tell.
        window = response_window(self.session.peer, 0)
        for writer in (*self._writers[:-1], *self._stream_writers[:-1]):
            self.responses.send_now(window, writer)
        # The instance of these samples, which would miss its deadline for ever.
        for writer in self._stream_writers:
            self.responses.end_now(wire.stream_key("", 0), writer)

    def report(self, consumed: int) -> None:
        self.responses.send_now(response_window(self.session.peer, consumed))

    @property
    def outboxes(self) -> tuple[Outbox]:
        return (self.responses,)

    @property
    def writers(self) -> list[Writer]:
        return [*self._writers, *self._stream_writers]

    def stop(self) -> None:
        self._open = False
        self.responses.close()

    def close(self) -> None:
        self.stop()
        self._port.endpoints.retire(*self.writers)

    def _failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        log.error("a chunk of task %s (attempt %s) could not be sent: %s", task_id, attempt, error)
        # An answer with a gap is none: both ends lose the link.
        self._port.restart(self, f"a chunk could not be sent: {error}")


class _PriorityReply:
    """The way back of a task with a priority."""

    def __init__(self, link: _Link, priority: int) -> None:
        self._link, self._priority = link, priority

    def send(self, message: FromAgent) -> None:
        self._link.send(message, self._priority)

    async def drain(self) -> None:
        await self._link.drain()


class DdsAgentPort(AgentPort):
    """Made by `DdsTransport.open_agent`. Nothing is called back before `start_soon`."""

    def __init__(
        self,
        config: DdsConfig,
        info: AgentInfo,
        plane: Plane,
        sink: AgentSink,
        key: EndKey | None = None,
        admits: Admits[HubInfo] | None = None,
    ) -> None:
        self.info, self.sink, self.key = info, sink, key
        self.limit, self.buffer_bytes = config.max_message_bytes, config.buffer_bytes
        self._loop = asyncio.get_running_loop()
        self._status: AgentStatus | None = None
        self._revision = 0
        self._links: Links[HubInfo, _Link] = Links(
            "hub", info.protocol or PROTOCOL, _CHANNELS, lambda hub, session: _Link(self, hub, session),
            self._joined, self._heard, self._lost, lambda: self.endpoints.pauses.resumed(),
            datagram_bytes(config), key, admits,
        )  # fmt: skip
        self._unacknowledged = Unacknowledged(config.progress_timeout, self._links.under_way, self._links.stuck)
        self._faults = LogOnce(log)
        self._closing: asyncio.Task[None] | None = None
        self.endpoints = endpoints = Endpoints(config, plane, info.lease_ms, info.protocol or PROTOCOL, held=True)
        self._hubs = Announcements(
            CODECS["hub"], types.HubRegistration, lambda hub: hub.hub_id, presence.to_hub,
            lambda writer: endpoints.participant_of("hub", writer), endpoints.protocol_of,
            self._links.begin, self._links.end, endpoints.unheard,
            registered=self._registered if key is not None else None,
        )  # fmt: skip
        try:
            self._hearing = endpoints.watch_hearing(self._links.unheard_by)
            fleet = endpoints.partition()
            own = endpoints.partition(("agent", info.agent_id, info.incarnation))
            self._take_requests = endpoints.read("request", own, self._on_requests)
            self._take_controls = endpoints.read("control", own, self._on_controls)
            self._says = presence.pack_agent(info, round(endpoints.lease_ns / 1e6))
            shows = [key.registration(self._says)] if key is not None else []
            self._registration = endpoints.writer("register", fleet, *shows)
            self._reports = endpoints.writer(
                "status", fleet, endpoints.often_alive(), user_data.of_reports(info.agent_id, info.incarnation)
            )
        except BaseException:
            endpoints.abandon()
            raise

    def start_soon(self) -> None:
        """Begin to call back, after the opening has returned to its caller."""
        self._unacknowledged.start()
        self.endpoints.start_soon()

    def report(self, status: AgentStatus) -> None:
        if self._closing is not None:
            return
        if (status.agent_id, status.incarnation) != (self.info.agent_id, self.info.incarnation):
            # The key of a report is its sender: in another's name it would be that one's.
            self._faults.warning("foreign", "agent %s was told to report for another: dropped", self.info.agent_id)
            return
        try:
            sample = presence.pack_status(status, self._revision + 1)
            if self.key is not None:
                sample = self.key.signed_report(sample)
            first, self._status = self._status is None, status
            self._revision += 1
            if first:
                self._announce()
            self._reports.write(sample)
        except AnywireError as error:
            self._faults.warning(str(error), "agent %s cannot report: %s", self.info.agent_id, error)

    def _announce(self) -> None:
        self._take_hubs = self.endpoints.read("hub", self.endpoints.partition(), self._on_hubs)
        self._registration.write(self._says)

    @property
    def closing(self) -> bool:
        return self._closing is not None

    def close(self) -> Coroutine[Any, Any, None]:
        # Nothing is called back from here on, also when the coroutine is awaited later.
        if self._closing is None:
            self.sink = SilentAgentSink()
            self._unacknowledged.close()
            self._closing = asyncio.ensure_future(self._close())
        return self._closed(self._closing)

    @staticmethod
    async def _closed(closing: asyncio.Task[None]) -> None:
        await asyncio.shield(closing)

    async def _close(self) -> None:
        links = list(self._links.by_name.values())
        # Its hubs go on to say what they have consumed, so that what was accepted can be written.
        if not await flush([link.responses for link in links]):
            log.warning("agent %s closes with chunks unsent: their hub does not read", self.info.agent_id)
        self.endpoints.stop()
        for link in self._links.clear():
            link.stop()

        info = self.info
        key = types.AgentRegistration(info.incarnation, 0, 0, info.agent_id, "", "", "", "", "", [])
        # The last chunks arrive before the goodbye does.
        await self.endpoints.say_goodbye([each for link in links for each in link.writers], self._registration, key)
        await self.endpoints.close()

    # Samples

    def _on_hubs(self) -> None:
        samples = self._take_hubs()
        if not all(sample.valid_data for _, sample in samples):
            # What a hub has sent is on other topics than its departure: it comes first.
            self._take_all()
        self._hubs.process(samples)
        if samples.more:
            self._loop.call_soon(self._on_hubs)

    def _on_requests(self) -> None:
        if self._receive("request"):
            self._loop.call_soon(self._on_requests)

    def _on_controls(self) -> None:
        if self._receive("control"):
            self._loop.call_soon(self._on_controls)

    def _take_all(self) -> None:
        """Process what has arrived of every hub."""
        for channel in _CHANNELS:
            for _ in range(MAX_BATCHES):
                if not self._receive(channel):
                    break

    def _receive(self, channel: Literal["request", "control"]) -> bool:
        """True when there may be more. A sample that cannot be processed does not affect the others."""
        take, read = (
            (self._take_requests, self._read_request)
            if channel == "request"
            else (self._take_controls, self._read_control)
        )
        if self.key is not None:
            read = functools.partial(self._read_authentic, channel, read)
        samples = take()
        if samples and self.endpoints.poll is not None:
            self.endpoints.poll.received()
        for data, sample in samples:
            if not sample.valid_data:
                continue
            try:
                read(data, sample)
            except Malformed as error:
                participant = self.endpoints.participant_of(channel, sample.publication_handle)
                self._faults.warning((channel, participant), "an unreadable %s message is ignored: %s", channel, error)
            except Exception:
                self._faults.warning("failed", "a %s message could not be processed", channel, exc_info=True)
        return samples.more

    def _read_authentic(
        self, channel: Literal["request", "control"], read: Callable[[bytes, Any], None], data: bytes, sample: Any
    ) -> None:
        if (packed := self._links.authentic(channel, data)) is not None:
            read(packed, sample)

    def _read_request(self, data: bytes, sample: Any) -> None:
        values = wire.unpack_request(data)
        frame, body = values[wire.REQUEST_FRAME], values[wire.REQUEST_BODY]
        if frame == FRAME_HELLO:
            self._hearing.look()
            participant = self.endpoints.participant_of("request", sample.publication_handle)
            more = values[wire.REQUEST_MORE]
            if (heard := self._links.hello("request", values[0], body, more, participant)) is not None:
                heard.lifespan_ns = self.endpoints.lifespan_ns("request", sample.publication_handle)
            return
        link = self._speaking("request", values[0], sample.publication_handle)
        if link is None:
            return
        if frame == FRAME_WINDOW:
            link.account_for(window(body))
            return
        link.account(len(data))
        if frame == FRAME_MESSAGE:
            task = wire.to_request(values)
            if self._in_time(link, task.task_id, task.attempt, task.time_left_ms, sample.source_timestamp):
                self.sink.task_received(link.name, link.incarnation, task, link.reply(task.priority))
        elif frame == FRAME_COMMAND:
            command = wire.to_command(values)
            if self._in_time(link, command.id, 0, command.time_left_ms, sample.source_timestamp):
                self.sink.command_received(link.name, link.incarnation, command, link)

    def _read_control(self, data: bytes, sample: Any) -> None:
        link_number, frame, attempt, chunks, kind, hub_id, task_id, reason, more = wire.unpack_control(data)
        if frame == FRAME_HELLO:
            self._hearing.look()
            participant = self.endpoints.participant_of("control", sample.publication_handle)
            self._links.hello("control", link_number, reason, more, participant)
            return
        link = self._speaking("control", link_number, sample.publication_handle)
        if link is None:
            return
        if frame == FRAME_WINDOW:
            link.responses.consumed(window(reason))
        elif frame == FRAME_MESSAGE and kind == "credit":
            self.sink.credit_received(link.name, link.incarnation, Credit(hub_id, task_id, attempt, chunks))
        elif frame == FRAME_MESSAGE and kind == "cancel":
            self.sink.cancel_received(link.name, link.incarnation, Cancel(hub_id, task_id, attempt, reason))

    def _speaking(self, channel: Literal["request", "control"], number: int, writer: int) -> _Link | None:
        """The link of a message with this session number; None when that session is over, or the writer is not its
        hub's."""
        link = self._links.by_session.get(number)
        if link is None:
            return None
        if writer not in link.sources and not self._links.admit(
            link, writer, self.endpoints.participant_of(channel, writer)
        ):
            return None
        return link if link.session.joined else self._links.confirmed(link)

    def _in_time(self, link: _Link, task_id: str, attempt: int, own_ms: int, written_at_ns: int) -> bool:
        """Whether a request or command has not outlived its writer's lifespan, nor its own time (``own_ms``, 0: none),
        while nobody took it; it is confirmed then. DDS itself counts from its arrival in the reader: what waits before
        that, while this process is paused, is young to it."""
        lifespan_ns, own_ns = link.lifespan_ns, own_ms * 1_000_000
        if not lifespan_ns:
            return True
        late_ns = time.time_ns() - written_at_ns - (min(lifespan_ns, own_ns) if own_ns else lifespan_ns)
        if late_ns <= 0:
            link.confirm(task_id, attempt)
            return True
        log.warning(
            "task %s came %.1f s after its lifespan was over and is not begun; where that is not so, the clocks of the "
            "two hosts differ", task_id, late_ns / 1e9,
        )  # fmt: skip
        return False

    # Links

    def findings(self) -> list[Finding]:
        return [*self.endpoints.findings(), *self._links.findings()]

    def _registered(self, info: HubInfo, data: bytes, writer: int) -> HubInfo:
        source = self.endpoints.source_of("hub", writer)
        return self.key.registered(info, data, source.proof, source.signature) if self.key and source.proof else info

    def hello(self, session: int, key: str, refusal: str) -> Hello:
        info = self.info
        return Hello(
            info.agent_id, info.incarnation, session, self.endpoints.protocol, self._status, self._revision,
            proof=info.proof, key=key, refusal=refusal,
        )  # fmt: skip

    def restart(self, link: _Link, reason: str) -> None:
        """End this link, at both ends, and begin a new one."""
        if self._closing is None:
            self._links.restart(link, reason)

    def _joined(self, link: _Link) -> None:
        link.end_hello()
        self.sink.hub_joined(msgspec.structs.replace(link.info, proof=link.proof))

    def _heard(self, link: _Link, hello: Hello, joined: bool) -> None:
        """A hub's HELLO says nothing more than what its link has taken from it."""

    def _lost(self, link: _Link, reason: str) -> None:
        self.sink.hub_lost(link.name, link.incarnation, reason)
