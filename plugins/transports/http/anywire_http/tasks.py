"""The tasks and commands of one agent at the hub: a request each, and how much of it waits for the agent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import NamedTuple, Protocol, cast

import aiohttp
import msgspec
from yarl import URL

from anywire import errors
from anywire.errors import AnywireError, Congested
from anywire.messages import Cancel, Chunk, Command, CommandResult, Credit, FromAgent, TaskRequest
from anywire.transport_tools import WriteRoom
from anywire_http.client import Body, LinkSession
from anywire_http.config import HttpConfig
from anywire_http.faults import for_status, mapped
from anywire_http.wire import (
    ORDER_HEADER,
    TEXT_HEADER,
    ControlLine,
    Lines,
    check_size,
    decode_answer,
    encode,
    encode_task,
    encoded_limit,
    fault_text,
    is_last,
    key_of,
)

log = logging.getLogger(__name__)

MOST_TASKS = 4096
"""Tasks and commands in flight to one agent: each holds a connection."""


class TasksLink(Protocol):
    """The link, as its tasks and commands see it."""

    url: str
    alive: bool

    def received(self, message: FromAgent) -> None: ...
    def failed(self, key: tuple[str, int], error: AnywireError) -> None: ...
    def stop(self, reason: str) -> None: ...


class Tasks:
    """What is under way to one agent. A request waits until the head of its answer is there: a connection takes it
    earlier, but that says nothing of the agent."""

    def __init__(self, link: TasksLink, config: HttpConfig, session: LinkSession) -> None:
        self._link, self._session = link, session
        self._max_message_bytes = config.max_message_bytes
        self._limit = encoded_limit(config.max_message_bytes)
        self._tasks_url, self._commands_url = URL(f"{session.url}/tasks"), URL(f"{session.url}/commands")
        self._control_url = URL(f"{session.url}/control")
        self._room = WriteRoom(config.buffer_bytes, f"the agent at {link.url}")
        self._waiting = 0
        self._none_waiting = asyncio.Event()
        self._none_waiting.set()
        self._order = 0
        self._exchanges: set[asyncio.Task[None]] = set()
        self._under_way: Counter[tuple[str, int]] = Counter()
        """Exchanges by task and attempt; a command that is sent twice has two."""
        self._places: list[asyncio.Future[None]] = []
        self._cancelled: set[tuple[str, int]] = set()
        self._control: list[bytes] = []
        self._controlling: asyncio.Task[None] | None = None

    def send(self, message: TaskRequest | Command) -> None:
        check_size(message, self._max_message_bytes)
        parts = (encode(message, self._limit),) if isinstance(message, Command) else encode_task(message, self._limit)
        size = sum(map(len, parts))
        if len(self._exchanges) >= MOST_TASKS:
            raise Congested(f"{len(self._exchanges)} tasks are under way to the agent at {self._link.url}")
        self._room.admit(size)
        self._change(size)
        key = key_of(message)
        if isinstance(message, Command):
            asking = _Asking(key, self._commands_url, parts, size, {}, CommandResult)
        else:
            headers = {ORDER_HEADER: str(self._order)}
            if len(parts) > 1:
                headers[TEXT_HEADER] = str(len(parts[1]))
            asking = _Asking(key, self._tasks_url, parts, size, headers, Chunk)
            self._order += 1
        self._under_way[key] += 1
        self._exchanges.add(asyncio.create_task(self._exchange(asking)))

    def control(self, message: Cancel | Credit) -> None:
        """Sent with whatever else waits by the time the request before it is answered."""
        data = encode(ControlLine(cancel=message) if isinstance(message, Cancel) else ControlLine(credit=message))
        if isinstance(message, Cancel) and (message.task_id, message.attempt) in self._under_way:
            self._cancelled.add((message.task_id, message.attempt))
        self._change(len(data))
        self._control.append(data)
        if self._controlling is None:
            self._controlling = asyncio.create_task(self._send_control())

    async def drain(self) -> None:
        await self._room.drain()
        while self._link.alive and len(self._exchanges) >= MOST_TASKS:
            place = asyncio.get_running_loop().create_future()
            self._places.append(place)
            await place
            await self._room.drain()

    async def arrived(self) -> None:
        """Wait until the agent has everything that was accepted."""
        await self._none_waiting.wait()

    async def answered(self) -> None:
        """Wait until every answer has ended."""
        if self._exchanges:
            await asyncio.wait(self._exchanges)

    def stop(self) -> list[asyncio.Task[None]]:
        """Give up everything; what remains to be waited for."""
        running = [*self._exchanges, *([self._controlling] if self._controlling else [])]
        for each in running:
            each.cancel()
        self._room.close()
        self._none_waiting.set()
        self._free_places()
        return running

    async def _exchange(self, asking: _Asking) -> None:
        key = asking.key
        doing = f"{'task' if key[1] else 'command'} {key[0]} at {self._link.url}"
        taken = _Once(self, asking.size)
        try:
            whole = await self._converse(doing, asking, taken)
            if not whole and key not in self._cancelled and self._under_way[key] == 1:
                raise errors.AgentLost(f"{doing}: the agent ended the answer without a final chunk", phase="streaming")
        except AnywireError as error:
            self._link.failed(key, error)
        except msgspec.MsgspecError as error:
            fault = mapped(error, doing)
            fault.phase = "streaming"
            self._link.failed(key, fault)
        except (aiohttp.ClientError, OSError) as error:
            # The tasks behind this one would wait for it at the agent, and its other connections are no better.
            self._link.stop(str(mapped(error, doing)))
        except Exception:
            log.exception("%s failed", doing)
            self._link.stop(f"{doing} failed")
        finally:
            taken()
            self._exchanges.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
                self._cancelled.discard(key)
            if len(self._exchanges) == MOST_TASKS - 1:
                self._free_places()

    async def _converse(self, doing: str, asking: _Asking, taken: _Once) -> bool:
        """Send a request and read its answer; whether that had a final chunk or result."""
        body, headers = Body(*asking.parts), asking.headers
        async with self._session.post(asking.url, data=body, headers=headers) as response:
            taken()
            if response.status != 200:
                text = await fault_text(response)
                raise for_status(response.status)(f"{doing} was not taken: {text}", phase="maybe_sent")
            lines, final = Lines(response.content, self._limit), False
            while some := await lines.some():
                for line in some:
                    message = decode_answer(line, asking.answer)
                    if message is None:
                        continue
                    try:
                        check_size(message, self._max_message_bytes)
                    except AnywireError as error:
                        error.phase = "streaming"
                        raise
                    final = final or is_last(message, asking.key)
                    self._link.received(message)
            return final

    async def _send_control(self) -> None:
        try:
            while self._control:
                data = b"\n".join(self._control)
                size = sum(map(len, self._control))
                self._control.clear()
                async with self._session.post(self._control_url, data=Body(data)) as response:
                    if response.status != 200:
                        text = await fault_text(response)
                        self._link.stop(f"{self._link.url} did not take a control message: {text}")
                        return
                self._change(-size)
        except (aiohttp.ClientError, OSError) as error:
            self._link.stop(str(mapped(error, f"a control message to {self._link.url}")))
        finally:
            self._controlling = None

    def _change(self, size: int) -> None:
        """So many bytes wait more; less, when negative."""
        self._waiting += size
        if self._waiting:
            self._none_waiting.clear()
        else:
            self._none_waiting.set()
        self._room.set_waiting(self._waiting)

    def _free_places(self) -> None:
        for place in self._places:
            if not place.done():
                place.set_result(None)
        self._places.clear()


class _Asking(NamedTuple):
    """A request to the agent, whose answer is as a rule of messages of that type."""

    key: tuple[str, int]
    url: URL
    parts: tuple[bytes, ...]
    size: int
    headers: dict[str, str]
    answer: type[Chunk] | type[CommandResult]


class _Once:
    """Takes ``size`` bytes from what waits, the first time it is called."""

    def __init__(self, tasks: Tasks, size: int) -> None:
        self._tasks, self._size = tasks, size

    def __call__(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._tasks._change(-size)
