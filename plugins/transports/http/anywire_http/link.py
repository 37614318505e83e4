"""One agent at the hub: the stream that lives as long as the link, its tasks' requests, and the control messages."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from anywire import errors
from anywire.errors import AnywireError, Congested
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest
from anywire.transport import HubSink, Plane
from anywire_http.client import Body, new_session
from anywire_http.config import HttpConfig
from anywire_http.faults import for_status, mapped
from anywire_http.wire import (
    LINK_HEADER,
    ORDER_HEADER,
    PROTOCOL,
    ControlLine,
    HubHello,
    Lines,
    LinkLine,
    decode,
    encode,
    fault_text,
    mismatch,
)

log = logging.getLogger(__name__)

HELLO_S = 5.0
"""How long an agent may take to answer a hub that opens a link."""

ANSWERS_S = 1.0
"""How long the answers of an agent that said farewell are waited for; they are on their way."""

LOW_WATER = 64
HARD_BOUND = 1024
"""Requests to one agent that no connection has taken yet."""

MOST_TASKS = 4096
"""Tasks in flight to one agent: each holds a connection."""


class LinkOwner(Protocol):
    """The hub, as its links see it."""

    config: HttpConfig
    info: HubInfo
    plane: Plane
    sink: HubSink

    def joined(self, link: AgentLink) -> None: ...
    def lost(self, link: AgentLink, reason: str) -> None: ...


class AgentLink:
    """`run` it as a task; it is over when that ends. ``expected`` is the agent that must be there."""

    def __init__(self, owner: LinkOwner, url: str, expected: AgentInfo | None = None) -> None:
        self.owner, self.url = owner, url
        self.info: AgentInfo | None = None
        self.status: AgentStatus | None = None
        self.alive = False
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Empty once joined; else why that did not come about."""
        self.ended = asyncio.Event()
        self._expected = expected
        self._session = new_session(owner.config, **{LINK_HEADER: secrets.token_hex(8)})
        self._link_url, self._tasks_url = URL(f"{url}/link"), URL(f"{url}/tasks")
        self._control_url = URL(f"{url}/control")
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        self._ending = False
        self._order = 0
        self._unsent = 0
        self._room: list[asyncio.Future[None]] = []
        self._exchanges: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._cancelled: set[tuple[str, int]] = set()
        self._control: list[bytes] = []
        self._controlling: asyncio.Task[None] | None = None

    # Life

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._run())
        return self._task

    def stop(self, reason: str) -> None:
        """End it soon; `LinkOwner.lost` follows when it had joined."""
        self._reason = self._reason or reason
        if self._task is not None and not self._ending:
            self._task.cancel()

    def end(self, reason: str) -> None:
        """End it at once."""
        self._leave(reason)
        self.stop(reason)

    async def closed(self) -> None:
        """Wait until everything is released."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _leave(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.owner.lost(self, reason)
        for exchange in self._exchanges.values():
            exchange.cancel()
        if self._controlling is not None:
            self._controlling.cancel()
        self._make_room()

    async def _run(self) -> None:
        reason = ""
        try:
            reason = await self._follow()
        except asyncio.CancelledError:
            reason = "stopped"
        except AnywireError as error:
            reason = str(error)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            reason = str(mapped(error, f"the link to {self.url}"))
        finally:
            self._ending = True
            reason = self._reason or reason or "its connection ended"
            if not self.answered.done():
                self.answered.set_result(reason)
            pending = [*self._exchanges.values(), *([self._controlling] if self._controlling else [])]
            self._leave(reason)
            self.ended.set()
            await asyncio.gather(*pending, return_exceptions=True)
            await self._session.close()

    async def _follow(self) -> str:
        """Open the link, read it to its end, and return the agent's farewell, if any."""
        owner = self.owner
        hello = encode(HubHello(PROTOCOL, owner.plane, owner.info))
        async with asyncio.timeout(HELLO_S) as opening:
            async with self._session.post(self._link_url, data=hello, allow_redirects=False) as response:
                if response.status != 200:
                    raise for_status(response.status)(f"{self.url} refused: {await fault_text(response)}")
                lines = Lines(response.content, owner.config.max_message_bytes)
                first = await lines.some()
                opening.reschedule(None)
                while first:
                    for line in first:
                        farewell = self._read(decode(line, LinkLine))
                        if farewell:
                            await self._last_answers()
                            return farewell
                    first = await lines.some()
        return ""

    def _read(self, line: LinkLine) -> str:
        if line.hello is not None:
            self._join(line)
        elif line.status is not None:
            self.status = line.status
            if self.alive:
                self.owner.sink.agent_reported(line.status)
        return line.farewell

    def _join(self, line: LinkLine) -> None:
        hello = line.hello
        assert hello is not None
        wrong = mismatch(hello.protocol, hello.plane, self.owner.plane)
        expected = self._expected
        if expected is not None and (hello.info.agent_id, hello.info.incarnation) != (
            expected.agent_id,
            expected.incarnation,
        ):
            wrong = wrong or f"agent {hello.info.agent_id} answers there, not {expected.agent_id} in this incarnation"
        if wrong:
            raise errors.TransportUnavailable(f"{self.url}: {wrong}")
        self.info, self.status = hello.info, hello.status
        self.alive = True
        self.owner.joined(self)
        if not self.answered.done():
            self.answered.set_result("")

    async def _last_answers(self) -> None:
        if self._exchanges:
            await asyncio.wait(self._exchanges.values(), timeout=ANSWERS_S)

    # Tasks

    def send(self, task: TaskRequest) -> None:
        data = encode(task, self.owner.config.max_message_bytes)
        if self._unsent >= HARD_BOUND or len(self._exchanges) >= MOST_TASKS:
            raise Congested(
                f"{self._unsent} requests wait for agent {self.url} already, {len(self._exchanges)} are under way"
            )
        key = (task.task_id, task.attempt)
        order, self._order = self._order, self._order + 1
        self._unsent += 1
        exchange = asyncio.create_task(self._exchange(key, Body(data, self._was_written), order))
        self._exchanges[key] = exchange

    async def drain(self) -> None:
        while self.alive and (self._unsent >= LOW_WATER or len(self._exchanges) >= MOST_TASKS):
            room = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room

    async def _exchange(self, key: tuple[str, int], body: Body, order: int) -> None:
        doing = f"task {key[0]} at {self.url}"
        try:
            if not await self._converse(body, order) and key not in self._cancelled and self.alive:
                raise errors.AgentLost(f"{doing}: the agent ended the answer without a final chunk", phase="streaming")
        except AnywireError as error:
            if self.alive:
                self.owner.sink.send_failed(*key, error)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            # The tasks behind this one would wait for it at the agent, and its other connections are no better.
            self.stop(str(mapped(error, doing)))
        finally:
            self._exchanges.pop(key, None)
            self._cancelled.discard(key)
            if len(self._exchanges) == MOST_TASKS - 1:
                self._make_room()

    async def _converse(self, body: Body, order: int) -> bool:
        """Send a task and read its answer; whether that had a final chunk."""
        headers = {ORDER_HEADER: str(order)}
        async with self._session.post(self._tasks_url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                text = await fault_text(response)
                raise for_status(response.status)(f"agent {self.url} did not take a task: {text}", phase="maybe_sent")
            lines = Lines(response.content, self.owner.config.max_message_bytes)
            received, final = self.owner.sink.chunk_received, False
            while some := await lines.some():
                for line in some:
                    chunk = decode(line, Chunk)
                    final = chunk.final
                    if self.alive:
                        received(chunk)
            return final

    def _was_written(self) -> None:
        self._unsent -= 1
        if self._unsent < LOW_WATER:
            self._make_room()

    def _make_room(self) -> None:
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()

    # Control

    def control(self, message: Cancel | Credit | Drain) -> None:
        """Sent with whatever else waits by the time the request before it is answered."""
        if isinstance(message, Cancel):
            self._cancelled |= {
                key for key in self._exchanges if key[0] == message.task_id and key[1] <= message.attempt
            }
            line = ControlLine(cancel=message)
        else:
            line = ControlLine(credit=message) if isinstance(message, Credit) else ControlLine(drain=message)
        self._control.append(encode(line))
        if self._controlling is None:
            self._controlling = asyncio.create_task(self._send_control())

    async def _send_control(self) -> None:
        try:
            while self._control:
                data = b"\n".join(self._control)
                self._control.clear()
                async with self._session.post(self._control_url, data=data, allow_redirects=False) as response:
                    if response.status != 200:
                        self.stop(f"{self.url} did not take a control message: {await fault_text(response)}")
                        return
        except (aiohttp.ClientError, OSError) as error:
            self.stop(str(mapped(error, f"a control message to {self.url}")))
        finally:
            self._controlling = None
