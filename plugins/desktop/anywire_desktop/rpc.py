"""JSON-RPC 2.0 over lines: reads calls, runs them side by side, answers each of them once.

Bounds: `MAX_CALLS` under way, `anywire_desktop.line_streams.MAX_LINE` bytes a line. Answers come in any order.
Batches and arguments by position are refused. A notification is carried out and not answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from anywire.errors import AnywireError, InvalidRequest, QueueFull, ShuttingDown, TaskCancelled
from anywire_desktop.call import Call, Command, Send
from anywire_desktop.line_streams import MAX_LINE, TooLong

MAX_CALLS = 256
"""Calls that may be under way; further ones are refused at once."""

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
FAILED = -32000
"""The code of what a command raises: ``data`` says more."""
BUSY = -32001
CANCELLED = -32800
"""As in the Language Server Protocol."""

log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class Refused(Exception):
    """A line that is no call."""

    def __init__(self, code: int, message: str, call_id: str | int | None = None) -> None:
        super().__init__(message)
        self.code, self.id = code, call_id


class Asked(msgspec.Struct, frozen=True):
    """A call as it was read. ``id`` is None for a notification."""

    method: str
    arguments: dict[str, Any]
    id: str | int | None = None


def read_call(line: bytes) -> Asked:
    """Raises `Refused`."""
    try:
        content = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(PARSE_ERROR, f"the line is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(INVALID_REQUEST, "a line is one object; batches are not served")
    call_id = content.get("id")
    if "id" in content and (not isinstance(call_id, str | int) or isinstance(call_id, bool)):
        raise Refused(INVALID_REQUEST, "id must be a text or a whole number")
    method = content.get("method")
    if content.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise Refused(INVALID_REQUEST, 'a call has "jsonrpc": "2.0" and the name of a "method"', call_id)
    arguments = content.get("params")
    if arguments is not None and not isinstance(arguments, dict):
        raise Refused(INVALID_PARAMS, 'give arguments by name: "params" is an object', call_id)
    return Asked(method, arguments or {}, call_id)


def error_object(error: BaseException) -> dict[str, Any]:
    """How a call is told that it failed."""
    if isinstance(error, Refused):
        return {"code": error.code, "message": str(error)}
    if isinstance(error, asyncio.CancelledError | TaskCancelled):
        return {"code": CANCELLED, "message": str(error) or "the call was cancelled", "data": {"code": "cancelled"}}
    if not isinstance(error, AnywireError):
        return {"code": INTERNAL_ERROR, "message": "the bridge failed; its log (standard error) says why"}
    data: dict[str, Any] = {"code": error.code, "remedy": error.remedy}
    data |= {name: value for name in ("param", "status", "detail_code") if (value := getattr(error, name))}
    code = INVALID_PARAMS if isinstance(error, InvalidRequest) and error.param else FAILED
    return {"code": BUSY if isinstance(error, QueueFull) else code, "message": str(error), "data": data}


class Calls:
    """All calls of one app, by ``commands``. ``send`` writes an object."""

    def __init__(self, commands: Iterable[Command], send: Send) -> None:
        self._commands = {each.name: each for each in (*commands, Command(self.cancel), Command(self.list_commands))}
        self._send = send
        self._work: dict[str | int, asyncio.Task[Any]] = {}
        """What can be cancelled, by the id of its call."""
        self._answering: dict[asyncio.Task[None], asyncio.Task[Any]] = {}
        """All calls under way, each with its work."""
        self._closing = False

    async def read(self, lines: AsyncIterator[bytes | TooLong]) -> None:
        """Take calls until the lines end."""
        async for line in lines:
            if isinstance(line, TooLong):
                await self._refuse(Refused(INVALID_REQUEST, f"a line may have {MAX_LINE} bytes"))
            elif line.strip():
                try:
                    self._begin(read_call(line))
                except Refused as error:
                    await self._refuse(error)

    async def cancel(self, call_id: str | int) -> bool:
        """End a call under way; false when there is none of this id. The call is answered with code -32800."""
        work = self._work.get(call_id)
        return work is not None and work.cancel()

    async def list_commands(self) -> dict[str, tuple[str, ...]]:
        """The arguments of each command, by its name."""
        return {name: command.arguments for name, command in sorted(self._commands.items())}

    async def close(self, patience: float) -> None:
        """Cancel all calls; returns once each is answered, at the latest after ``patience`` seconds."""
        self._closing = True
        for work in self._answering.values():
            work.cancel()
        if self._answering:
            _, left = await asyncio.wait(set(self._answering), timeout=patience)
            for answering in left:
                log.error("%s does not end at its cancel and is left alone", answering.get_name())

    def _begin(self, asked: Asked) -> None:
        """Raises what keeps a call from being begun."""
        if asked.id is not None and asked.id in self._work:
            raise Refused(INVALID_REQUEST, "a call with this id is under way", asked.id)
        command = self._commands.get(asked.method)
        if command is None:
            near = get_close_matches(asked.method[:64], self._commands, 3)
            hint = f": did you mean {', '.join(near)}?" if near else "; list_commands tells which there are"
            raise Refused(METHOD_NOT_FOUND, f"there is no command {asked.method[:64]!r}{hint}", asked.id)
        if len(self._answering) >= MAX_CALLS and asked.method != "cancel":
            raise Refused(BUSY, f"{MAX_CALLS} calls are under way: wait for one of them", asked.id)
        channel = asked.arguments.get("on_event", asked.arguments.get("onEvent"))
        call = Call(self._send, channel if isinstance(channel, str | int) else asked.id)
        work = asyncio.create_task(command.run(asked.arguments, call), name=f"command {command.name}")
        # A task that is cancelled before its first step runs none of its code: so the answer is another task's.
        answering = asyncio.create_task(self._answer(asked, work), name=f"call of {command.name}")
        self._answering[answering] = work
        answering.add_done_callback(self._answering.pop)
        if asked.id is not None:
            self._work[asked.id] = work

    async def _answer(self, asked: Asked, work: asyncio.Task[Any]) -> None:
        await asyncio.wait({work})
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.id}
        try:
            answer["result"] = work.result()
            _encoder.encode(answer)
        except asyncio.CancelledError as error:
            answer["error"] = error_object(ShuttingDown("the bridge ends") if self._closing else error)
        except AnywireError as error:
            answer["error"] = error_object(error)
        except Exception as error:
            log.exception("the command %s failed", asked.method)
            answer["error"] = error_object(error)
        if "error" in answer:
            answer.pop("result", None)
        if asked.id is not None:
            self._work.pop(asked.id, None)
            await self._send(answer)
        elif "error" in answer:
            log.warning("the notification %s failed: %s", asked.method, answer["error"]["message"])

    async def _refuse(self, error: Refused) -> None:
        if error.id is None and error.code not in (PARSE_ERROR, INVALID_REQUEST):
            log.warning("a notification is refused: %s", error)
            return
        await self._send({"jsonrpc": "2.0", "id": error.id, "error": error_object(error)})


def encode(message: Mapping[str, Any]) -> bytes:
    """An object as one line."""
    return _encoder.encode(message)
