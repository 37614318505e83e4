"""An agent's end of a plane over DDS."""

from __future__ import annotations

import asyncio
import logging
import time

from cyclonedds.core import Policy

from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo, TaskRequest
from anywire.transport import AgentPort, AgentSink, Plane, Reply
from anywire_dds import types, wire
from anywire_dds.announcements import Announcements
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.endpoints import BATCH, CODECS, FAREWELL, Endpoints
from anywire_dds.links import Link, Links
from anywire_dds.outbox import Outbox
from anywire_dds.session import Session, Verdict
from anywire_dds.types import FRAME_HELLO, FRAME_MESSAGE, FRAME_WINDOW
from anywire_dds.writer import Writer, of_priority

log = logging.getLogger(__name__)


class _Link(Link):
    """One session with one hub; it is also the way back (`Reply`) of every task of that hub."""

    def __init__(self, port: DdsAgentPort, hub: HubInfo, session: Session) -> None:
        super().__init__(hub.hub_id, hub.incarnation, session)
        self.lifespan_ns = 0
        """How long a request of this hub counts, since it was written; 0: for ever."""
        self._port = port
        self._limit = port.limit
        self._open = True
        self._partition = port.endpoints.partition(("hub", hub.hub_id, hub.incarnation))
        self._writers = port.endpoints.writers("response", self._partition, ())
        self._stream_writers: list[Writer] = []
        self._streams: dict[tuple[str, int], Writer] = {}
        self.responses = Outbox(self._writers[-1], f"hub {hub.hub_id}", _undeliverable)

    def send(self, chunk: Chunk, priority: int = 0) -> None:
        if not self._open:
            return
        sample = wire.pack_chunk(self.session.peer, chunk, self._limit)
        if self._stream_writers and self._send_of_stream(sample, chunk, priority):
            return
        writer = of_priority(self._writers, priority) if priority else None
        self.responses.send(sample, chunk.task_id, chunk.attempt, writer)

    def _send_of_stream(self, sample: bytes, chunk: Chunk, priority: int) -> bool:
        """False when it is none: an answer of one chunk has no deadline, nor has what comes after a stream's end."""
        stream = (chunk.task_id, chunk.attempt)
        writer = self._streams.get(stream)
        if writer is None:
            if chunk.final or chunk.seq:
                return False
            writer = of_priority(self._stream_writers, priority)
        self.responses.send(sample, *stream, writer, wire.stream_key(*stream) if chunk.final else None)
        if chunk.final:
            del self._streams[stream]
        else:
            self._streams[stream] = writer
        return True

    def reply(self, priority: int) -> Reply:
        return _PriorityReply(self, priority) if priority > 0 and len(self._writers) > 1 else self

    def took(self, task: TaskRequest, size: int) -> None:
        """A request with a lifespan has come in time: tell the hub at once that it did."""
        self.account(size)
        self.responses.send_now(wire.response_window(self.session.peer, self.consumed, task.task_id, task.attempt))

    def end_streams(self, task_id: str, attempt: int) -> None:
        """Nothing more is sent of this attempt and of lower ones."""
        for stream in [each for each in self._streams if each[0] == task_id and each[1] <= attempt]:
            self.responses.send(b"", *stream, self._streams.pop(stream), wire.stream_key(*stream))

    async def drain(self) -> None:
        await self.responses.drain()

    def heed(self, hello: wire.Hello) -> None:
        endpoints = self._port.endpoints
        if hello.priorities and len(self._writers) == 1:
            self._writers[:0] = endpoints.writers("response", self._partition, hello.priorities)[:-1]
        if hello.deadline_ms and not self._stream_writers:
            period = Policy.Deadline(hello.deadline_ms * 1_000_000)
            self._stream_writers = endpoints.writers("stream", self._partition, hello.priorities, period)
            self._greet(self._stream_writers[-1])

    def greet(self) -> None:
        self._greet(self._writers[-1])
        if self._stream_writers:
            self._greet(self._stream_writers[-1])

    def _greet(self, writer: Writer) -> None:
        hello = self._port.hello(self.session.own)
        self.responses.send_now(wire.response_hello(hello, self.session.peer), writer)

    def joined(self) -> None:
        # The instance of the HELLO, which would miss its deadline for ever.
        if self._stream_writers:
            self.responses.end_now(wire.stream_key("", 0), self._stream_writers[-1])

    def report(self, consumed: int) -> None:
        self.responses.send_now(wire.response_window(self.session.peer, consumed))

    @property
    def writers(self) -> list[Writer]:
        return [*self._writers, *self._stream_writers]

    def stop(self) -> None:
        self._open = False
        self.responses.close()

    def close(self) -> None:
        self.stop()
        self._port.endpoints.retire(*self.writers)


class _PriorityReply:
    """The way back of a task with a priority."""

    def __init__(self, link: _Link, priority: int) -> None:
        self._link, self._priority = link, priority

    def send(self, chunk: Chunk) -> None:
        self._link.send(chunk, self._priority)

    async def drain(self) -> None:
        await self._link.drain()


def _undeliverable(task_id: str, attempt: int, error: AnywireError) -> None:
    log.error("a chunk of task %s (attempt %s) could not be sent: %s", task_id, attempt, error)


class DdsAgentPort(AgentPort):
    """Made by `DdsTransport.open_agent`."""

    def __init__(self, config: DdsConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        self.info, self.sink, self.limit = info, sink, config.max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._status: AgentStatus | None = None
        self._revision = 0
        self._links: Links[HubInfo, _Link] = Links(
            "hub", ("request", "control"), lambda hub, session: _Link(self, hub, session), self._heard, self._lost
        )
        self._closing: asyncio.Task[None] | None = None
        self._hubs = Announcements(
            CODECS["hub"], types.HubRegistration, lambda hub: hub.hub_id, wire.to_hub,
            self._links.begin, self._links.end,
        )  # fmt: skip
        self.endpoints = endpoints = Endpoints(config, plane, info.agent_id, info.lease_ms)
        try:
            fleet = endpoints.partition()
            own = endpoints.partition(("agent", info.agent_id, info.incarnation))
            self._take_requests = endpoints.read("request", own, self._on_requests)
            self._take_controls = endpoints.read("control", own, self._on_controls)
            self._registration = endpoints.writer("register", fleet)
            self._reports = endpoints.writer("status", fleet, endpoints.often_alive())
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
        links = list(self._links.by_name.values())
        try:
            async with asyncio.timeout(FAREWELL):
                await asyncio.gather(*(link.responses.empty() for link in links))
        except TimeoutError:
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
                if (link := self._links.hello("request", values[0], values[12])) is not None:
                    link.lifespan_ns = self.endpoints.lifespan_ns("request", sample.publication_handle)
                continue
            link = self._speaking(values[0])
            if link is None:
                continue  # of a session that is over
            if values[2] == FRAME_MESSAGE:
                task = wire.to_request(values)
                if not link.lifespan_ns:
                    self.sink.task_received(task, link.reply(task.priority) if task.priority else link)
                    link.account(len(data))
                elif self._is_over(task, sample.source_timestamp, link.lifespan_ns):
                    link.account(len(data))
                else:
                    link.took(task, len(data))
                    self.sink.task_received(task, link.reply(task.priority))
            elif values[2] == FRAME_WINDOW:
                link.account_for(wire.window(values[12]))
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
                self._links.hello("control", link_number, reason)
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
                # Not before those who were about to send have seen that they are cancelled.
                self._loop.call_soon(self._loop.call_soon, link.end_streams, task_id, attempt)
            elif kind == "drain":
                self.sink.drain_requested(reason)
        if len(samples) == BATCH:
            self._loop.call_soon(self._on_controls)

    def _is_over(self, task: TaskRequest, written_at_ns: int, lifespan_ns: int) -> bool:
        """Whether a request has outlived its writer's lifespan, or its own time, while nobody took it. DDS itself
        counts from its arrival in the reader: what waits before that, while this process is paused, is young to it."""
        own_ns = task.time_left_ms * 1_000_000
        late_ns = time.time_ns() - written_at_ns - (min(lifespan_ns, own_ns) if own_ns else lifespan_ns)
        if late_ns <= 0:
            return False
        log.warning(
            "task %s came %.1f s after its lifespan was over and is not begun; where that is not so, the clocks of the "
            "two hosts differ", task.task_id, late_ns / 1e9,
        )  # fmt: skip
        return True

    # Links

    def hello(self, session: int) -> wire.Hello:
        return wire.Hello(self.info.agent_id, self.info.incarnation, session, self._status, self._revision)

    def _speaking(self, number: int) -> _Link | None:
        """The link of a message. The hub would not send one without having heard us, so the link is joined."""
        link = self._links.by_session.get(number)
        if link is not None and Verdict.JOIN in link.session.confirmed():
            self._joined(link)
        return link if link is not None and link.session.joined else None

    def _heard(self, link: _Link, hello: wire.Hello, joined: bool) -> None:
        if joined:
            self._joined(link)

    def _joined(self, link: _Link) -> None:
        link.joined()
        self.sink.hub_joined(link.name, link.incarnation)

    def _lost(self, link: _Link, reason: str) -> None:
        self.sink.hub_lost(link.name, link.incarnation, reason)
