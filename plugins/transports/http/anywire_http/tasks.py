"""The tasks of one agent at the hub: a request each, and how much of it waits for the agent."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from yarl import URL

from anywire import errors
from anywire.errors import AnywireError, Congested
from anywire.messages import Cancel, Chunk, Credit, Drain, TaskRequest
from anywire.transport_tools import WriteRoom
from anywire_http.client import Body
from anywire_http.faults import for_status, mapped
from anywire_http.wire import ORDER_HEADER, ControlLine, Lines, check_size, decode, encode, encoded_limit, fault_text

if TYPE_CHECKING:
    from anywire_http.link import AgentLink

log = logging.getLogger(__name__)

MOST_TASKS = 4096
"""Tasks in flight to one agent: each holds a connection."""


class Tasks:
    """What is under way to one agent. A request waits until the head of its answer is there: a connection takes it
    earlier, but that says nothing of the agent."""

    def __init__(self, link: AgentLink, session: aiohttp.ClientSession) -> None:
        self._link, self._session = link, session
        config = link.owner.config
        self._max_message_bytes = config.max_message_bytes
        self._limit = encoded_limit(config.max_message_bytes)
        self._tasks_url, self._control_url = URL(f"{link.url}/tasks"), URL(f"{link.url}/control")
        self._room = WriteRoom(config.buffer_bytes, f"the agent at {link.url}")
        self._waiting = 0
        self._none_waiting = asyncio.Event()
        self._none_waiting.set()
        self._order = 0
        self._exchanges: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._places: list[asyncio.Future[None]] = []
        self._cancelled: set[tuple[str, int]] = set()
        self._control: list[bytes] = []
        self._controlling: asyncio.Task[None] | None = None

    def send(self, task: TaskRequest) -> None:
        check_size(task, self._max_message_bytes)
        data = encode(task, self._limit)
        if len(self._exchanges) >= MOST_TASKS:
            raise Congested(f"{len(self._exchanges)} tasks are under way to the agent at {self._link.url}")
        self._room.admit(len(data))
        self._change(len(data))
        order, self._order = self._order, self._order + 1
        key = (task.task_id, task.attempt)
        exchange = asyncio.create_task(self._exchange(key, data, order))
        self._exchanges[key] = exchange

    def control(self, message: Cancel | Credit | Drain) -> None:
        """Sent with whatever else waits by the time the request before it is answered."""
        if isinstance(message, Cancel):
            line = ControlLine(cancel=message)
        else:
            line = ControlLine(credit=message) if isinstance(message, Credit) else ControlLine(drain=message)
        data = encode(line)
        if isinstance(message, Cancel) and (message.task_id, message.attempt) in self._exchanges:
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
            await asyncio.wait(self._exchanges.values())

    def stop(self) -> list[asyncio.Task[None]]:
        """Give up everything; what remains to be waited for."""
        running = [*self._exchanges.values(), *([self._controlling] if self._controlling else [])]
        for each in running:
            each.cancel()
        self._room.close()
        self._none_waiting.set()
        self._free_places()
        return running

    async def _exchange(self, key: tuple[str, int], data: bytes, order: int) -> None:
        doing = f"task {key[0]} at {self._link.url}"
        taken = _Once(self, len(data))
        try:
            if not await self._converse(Body(data), order, taken) and key not in self._cancelled:
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
            if self._exchanges.get(key) is asyncio.current_task():
                del self._exchanges[key]
            self._cancelled.discard(key)
            if len(self._exchanges) == MOST_TASKS - 1:
                self._free_places()

    async def _converse(self, body: Body, order: int, taken: _Once) -> bool:
        """Send a task and read its answer; whether that had a final chunk."""
        headers = {ORDER_HEADER: str(order)}
        async with self._session.post(self._tasks_url, data=body, headers=headers, allow_redirects=False) as response:
            taken()
            if response.status != 200:
                text = await fault_text(response)
                raise for_status(response.status)(
                    f"the agent at {self._link.url} did not take a task: {text}", phase="maybe_sent"
                )
            lines, final = Lines(response.content, self._limit), False
            while some := await lines.some():
                for line in some:
                    chunk = decode(line, Chunk)
                    try:
                        check_size(chunk, self._max_message_bytes)
                    except AnywireError as error:
                        error.phase = "streaming"
                        raise
                    final = chunk.final
                    self._link.received(chunk)
            return final

    async def _send_control(self) -> None:
        try:
            while self._control:
                data = b"\n".join(self._control)
                size = sum(map(len, self._control))
                self._control.clear()
                async with self._session.post(self._control_url, data=Body(data), allow_redirects=False) as response:
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


class _Once:
    """Takes ``size`` bytes from what waits, the first time it is called."""

    def __init__(self, tasks: Tasks, size: int) -> None:
        self._tasks, self._size = tasks, size

    def __call__(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._tasks._change(-size)
