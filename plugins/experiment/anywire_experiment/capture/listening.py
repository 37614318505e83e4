"""The events of a running orchestrator, read over HTTP until enough is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from anywire.errors import AnywireError, InvalidRequest, Unauthenticated
from anywire.events import AnyEvent
from anywire_experiment.capture.taken import Taken

if TYPE_CHECKING:
    import httpx

TYPES = "task.admitted,task.prefix,task.ended"
GATHER_MS = 200
"""Events of so many milliseconds come together: that costs the server less."""

_event = msgspec.json.Decoder(AnyEvent)


class _Missed(msgspec.Struct):
    count: int = 0


class _Agents(msgspec.Struct):
    class Agent(msgspec.Struct):
        slots: int = 1

    data: list[Agent] = []


async def listen(
    client: httpx.AsyncClient, taken: Taken, seconds: float, wait: float, began: Callable[[], None]
) -> None:
    """Take in what comes for ``seconds``, then for ``wait`` more the ends of what is under way. ``began`` is called
    once everything is told from then on. What was taken in stays where this is cancelled, or the server ends. Raises
    `AnywireError` where the server does not tell its events."""
    loop = asyncio.get_running_loop()
    await _learn_fleet(client, taken)
    async with _stream(client) as answer:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:

                def close() -> None:
                    if not taken.is_closed:
                        taken.close()
                        limit.reschedule(loop.time() + (wait if taken.unfinished else 0))

                closing = loop.call_later(seconds, close)
                try:
                    await _take(answer.aiter_lines(), taken, began)
                finally:
                    closing.cancel()


async def _take(lines: AsyncIterator[str], taken: Taken, began: Callable[[], None]) -> None:
    """Until everything that was begun has ended, or the server ends, however it does."""
    import httpx

    kind = ""
    await anext(lines, "")  # a comment, with which the stream begins
    began()
    with contextlib.suppress(httpx.TransportError):
        async for line in lines:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "error":
                raise _refusal(200, value.encode())
            elif name == "data" and kind:
                _tell(taken, kind, value)
                if (taken.is_closed or taken.is_full) and not taken.unfinished:
                    return
    taken.server_ended = True


def _tell(taken: Taken, kind: str, value: str) -> None:
    try:
        if kind == "missed":
            taken.missed += msgspec.json.decode(value, type=_Missed).count
        else:
            taken.add(_event.decode(value))
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"an event of the server cannot be read: {error}; is it of another version?") from error


@contextlib.asynccontextmanager
async def _stream(client: httpx.AsyncClient) -> AsyncIterator[httpx.Response]:
    import httpx

    asked = {"types": TYPES, "gather": str(GATHER_MS)}
    patient = httpx.Timeout(5.0, read=None)
    async with client.stream("GET", "/v1/events", params=asked, timeout=patient) as answer:
        if answer.status_code != 200:
            raise _refusal(answer.status_code, await answer.aread())
        yield answer


async def _learn_fleet(client: httpx.AsyncClient, taken: Taken) -> None:
    """How many agents and slots there are, where that is told."""
    answer = await client.get("/v1/agents")
    with contextlib.suppress(msgspec.MsgspecError):
        if answer.status_code == 200 and (agents := msgspec.json.decode(answer.content, type=_Agents).data):
            taken.agents, taken.slots = len(agents), max(each.slots for each in agents)


def _refusal(status: int, body: bytes) -> AnywireError:
    try:
        message = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        message = f"the server answered {status} to a request for its events: is it an Anywire server?"
    if status == 401:
        return Unauthenticated(f"{message}; set ANYWIRE_API_KEY to a key of this server", status=401)
    return InvalidRequest(message, status=status)
