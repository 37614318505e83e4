"""Chat over WebSocket: each text frame of the client is a request, each frame back what would be an event.

The requests of one connection are answered one after another. Reading goes on meanwhile, so that a client that
closes or disappears is noticed and its task cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Literal

from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError, InvalidRequest, PayloadTooLarge
from anywire.messages import Chunk, Progress
from anywire.printable import printable
from anywire.request_log import RequestLog
from anywire.task_stream import TaskStream
from anywire_gateway_openai.answers import answer
from anywire_gateway_openai.body import BodyRoom
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.default_model import DefaultModel
from anywire_gateway_openai.errors import CLIENT_GONE, HttpError, as_anywire, error_code, error_json, status_of
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.notes import HEADERS, REQUEST_ID
from anywire_gateway_openai.openapi.form import Form, described
from anywire_gateway_openai.reading import ProgressReader, next_chunks
from anywire_gateway_openai.request_headers import TaskHeaders, task_headers
from anywire_gateway_openai.revocation import revoked
from anywire_gateway_openai.sse import EventEncoder, progress_json
from anywire_gateway_openai.tasks import include_usage
from anywire_gateway_openai.validation import check_streamed_chat
from anywire_gateway_openai.wire import open_transport, room

log = logging.getLogger(__name__)

MAX_AHEAD = 16
"""Requests a client may send before the answers to those before; together at most the size of one."""
MAX_AT_ONCE = 16
"""Frames of a client that are read before the event loop runs again."""
CLOSE_S = 2.0
"""How long a client may take to answer a close frame, or to stop sending what is not read any more."""
DONE = b"[DONE]"
KEY_GONE = 4401
"""Closes a connection whose key was revoked or has expired."""
PROTOCOL = "anywire"
"""The subprotocol that is chosen where a client offers it: a browser with its key needs another one beside."""


class ChatSockets:
    """The open connections. ``heartbeat``: seconds without a word from a client until it is pinged."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        metrics: Metrics,
        default_model: DefaultModel,
        requests: RequestLog,
        *,
        max_body_bytes: int,
        write_timeout: float,
        heartbeat: float,
        room: BodyRoom,
    ) -> None:
        self.room, self.callers = room, callers
        self.context, self.metrics, self.default_model, self.requests = context, metrics, default_model, requests
        self.max_body_bytes, self.write_timeout, self.heartbeat = max_body_bytes, write_timeout, heartbeat
        self._open: set[_Connection] = set()

    @described(Form(status=101, errors=(405,)))
    async def chat_beside_post(self, request: web.BaseRequest) -> web.StreamResponse:
        """The same WebSocket, at a path that takes a POST as well."""
        if not _asks_for_websocket(request):
            raise HttpError(
                405,
                "method_not_allowed",
                f"{request.path[:256]} answers POST, and GET with a WebSocket handshake only",
                headers={"Allow": "POST"},
            )
        return await self.chat(request)

    @described(Form(status=101, errors=(426,)))
    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        """A WebSocket: chat completions, one after another on one connection."""
        if not _asks_for_websocket(request):
            raise HttpError(
                426,
                "upgrade_required",
                "this is a WebSocket; over plain HTTP post to chat/completions",
                headers={"Upgrade": "websocket", "Connection": "Upgrade"},
            )
        connection = _Connection(self, request, task_headers(request.headers), request[CALLER])
        self._open.add(connection)
        self.metrics.connections += 1
        try:
            return await connection.serve()
        finally:
            self._open.discard(connection)
            self.metrics.connections -= 1

    def finish(self) -> None:
        """Close each connection once what its client has sent is answered."""
        for connection in self._open:
            connection.finish()


def _asks_for_websocket(request: web.BaseRequest) -> bool:
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


class _Socket(web.WebSocketResponse[Literal[False]]):
    """aiohttp's, but for what happens to a frame that is too large: it would close without a word, and with what the
    client is still sending unread, which makes the client's system throw away whatever had been said."""

    def __init__(self, limit: int, stop: Callable[[], None]) -> None:
        super().__init__(timeout=CLOSE_S, autoping=False, compress=False, max_msg_size=limit + 1, decode_text=False)
        self._limit, self._stop = limit, stop

    def _handshake(self, request: web.BaseRequest) -> tuple[CIMultiDict[str], str | None, int, bool]:
        """aiohttp's would log the subprotocols of a client that offers none it knows, and one of them may be a key."""
        offered = request.headers.getall("Sec-WebSocket-Protocol", ())
        if not offered:
            return super()._handshake(request)
        others = CIMultiDict(request.headers)
        del others["Sec-WebSocket-Protocol"]
        headers, _, compress, takes_over = super()._handshake(request.clone(headers=others))
        known = PROTOCOL if PROTOCOL in (each.strip() for text in offered for each in text.split(",")) else None
        if known is not None:
            headers["Sec-WebSocket-Protocol"] = known
        return headers, known, compress, takes_over

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if code == WSCloseCode.MESSAGE_TOO_BIG and not self.closed:
            self._stop()
            text = f"a frame may have at most {self._limit} bytes (max_body_bytes)"
            await self.send_frame(error_json(PayloadTooLarge(text), origin=True), WSMsgType.TEXT)
            await self.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)
            try:
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.Event().wait()  # a client that hangs up cancels this task
            except TimeoutError:
                pass
        return await super().close(code=code, message=message, drain=drain)


class _Connection:
    def __init__(self, owner: ChatSockets, request: web.BaseRequest, headers: TaskHeaders, caller: Caller) -> None:
        self._owner, self._request, self._headers, self._caller = owner, request, headers, caller
        self._socket = _Socket(owner.max_body_bytes, self._stop)
        self._answering: asyncio.Task[None] | None = None
        self._requests: asyncio.Queue[bytes | AnywireError | None] = asyncio.Queue()
        self._ahead_bytes = 0
        self._share = owner.room.share()
        self._task: TaskStream | None = None
        self._model = ""
        """Both are of the request that is answered."""
        self._key_is_gone = False
        self._ending: asyncio.Task[None] | None = None

    async def serve(self) -> web.StreamResponse:
        unwatch = self._owner.callers.revocations.watch(self._caller, self._key_gone)
        try:
            return await self._serve()
        finally:
            unwatch()

    async def _serve(self) -> web.StreamResponse:
        try:
            self._socket.headers.update(self._request[HEADERS])
            await self._socket.prepare(self._request)
        except web.HTTPException as error:
            raise InvalidRequest(f"this is no WebSocket handshake: {error.text}") from error
        with self._share:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())
            if self._key_is_gone:
                self._key_gone()
            try:
                await self._read_all()
            finally:
                self._stop()
                left = [each for each in (self._answering, self._ending) if each is not None]
                await asyncio.gather(*left, return_exceptions=True)
        return self._socket

    def _key_gone(self) -> None:
        """Say so and close the connection, now that its key counts no more."""
        self._key_is_gone = True
        if self._answering is not None and self._ending is None:
            self._stop()
            self._ending = asyncio.get_running_loop().create_task(self._end_without_key())

    async def _end_without_key(self) -> None:
        fault = revoked()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._write([error_json(fault, origin=True)])
                await self._socket.close(code=KEY_GONE, message=fault.message.encode())
        except (ConnectionError, TimeoutError):
            self._abort()

    def _stop(self) -> None:
        """Answer nothing more: after a close frame nothing may follow."""
        if self._answering is not None:
            self._answering.cancel()

    def finish(self) -> None:
        self._requests.put_nowait(None)

    async def _read_all(self) -> None:
        """Until the connection is closed, by whomever."""
        pinged, at_once = False, 0
        while True:
            at_once += 1
            if at_once == MAX_AT_ONCE:
                # What has arrived is read without waiting, and so are the smallest frames by the thousand.
                at_once = 0
                await asyncio.sleep(0)
            try:
                message = await self._socket.receive(self._owner.write_timeout if pinged else self._owner.heartbeat)
            except TimeoutError:
                if pinged:
                    log.debug("a WebSocket client has not answered a ping for %g s", self._owner.write_timeout)
                    self._abort()
                    return
                pinged = True
                await self._socket.ping()
                continue
            pinged = False
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                binary = InvalidRequest("send each request as JSON in a text frame, not in a binary one")
                if not self._accept(message.data if message.type is WSMsgType.TEXT else binary):
                    self._stop()
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many requests ahead")
                    return
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return

    def _accept(self, data: bytes | AnywireError) -> bool:
        size = len(data) if isinstance(data, bytes) else 0
        ahead = self._requests.qsize()
        if ahead >= MAX_AHEAD or (ahead and self._ahead_bytes + size > self._owner.max_body_bytes):
            return False
        try:
            self._share.take(size)
        except HttpError as error:
            data, size = error, 0
        self._ahead_bytes += size
        self._requests.put_nowait(data)
        return True

    async def _answer_all(self) -> None:
        try:
            while (data := await self._requests.get()) is not None:
                began, status, code = perf_counter(), CLIENT_GONE, ""
                self._task, self._model = None, ""
                try:
                    if isinstance(data, AnywireError):
                        raise data
                    self._ahead_bytes -= len(data)
                    await self._answer(data)
                    status = 200
                except ConnectionError:
                    raise
                except Exception as error:
                    fault = as_anywire(error)
                    status, code = status_of(fault), error_code(fault)
                    self._owner.metrics.errors[status] += 1
                    await self._write([error_json(fault, origin=True)])
                finally:
                    if self._key_is_gone:
                        status, code = 401, error_code(revoked())
                    if isinstance(data, bytes):
                        self._share.give_back(len(data))
                    self._owner.requests.add(
                        f"WS {self._request.path}",
                        status,
                        began,
                        task=self._task,
                        model=printable(self._model),
                        error=code,
                        request_id=self._request[REQUEST_ID],
                    )
            await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server shuts down")
        except ConnectionError as error:
            log.debug("a WebSocket client is gone: %s", error)
            self._abort()

    async def _answer(self, body: bytes) -> None:
        fields, text, outline = await check_streamed_chat(body, self._owner.max_body_bytes)
        streamed = fields.stream is not False
        caller = self._owner.callers.again(self._request)
        self._model = model = fields.model or self._owner.default_model.of("chat", caller)
        submission = self._headers.submission("chat", model, text, streamed, caller, outline)
        stream = self._task = self._owner.context.submit(submission)
        reader = ProgressReader(stream) if streamed and submission.progress else None
        try:
            if not streamed:
                chunk = await stream.result()
                await self._write([answer("chat", stream.task_id, stream.model or model, chunk), DONE])
                return
            chunks = await self._next(stream, reader)
            encoder = EventEncoder("chat", stream.task_id, stream.model or model, include_usage(fields))
            while True:
                events = encoder.events(chunks)
                await self._write(payloads(events))
                if encoder.ended:
                    return
                chunks = await self._next(stream, reader)
        except BaseException as error:
            stream.cancel(str(error) or "the client went away")
            raise
        finally:
            if reader is not None:
                reader.close()

    async def _next(self, stream: TaskStream, reader: ProgressReader | None) -> list[Chunk]:
        """The next chunks; what the agent does before them is sent."""
        if reader is None:
            return await next_chunks(stream)
        while isinstance(step := await reader.next(), Progress):
            await self._write([progress_json(step)])
        return step

    async def _write(self, texts: Iterable[bytes]) -> None:
        """Send text frames in one segment; returns when the client has room for more. Raises `ConnectionError` when
        it is gone, or took nothing for ``write_timeout`` seconds."""
        transport = open_transport(self._request)
        transport.write(b"".join([part for text in texts for part in (_frame_head(len(text)), text)]))
        await room(self._request, transport, self._owner.write_timeout)

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def payloads(events: bytes) -> list[bytes]:
    """What server-sent events hold, comments left out."""
    return [event[6:] for event in events.split(b"\n\n") if event.startswith(b"data: ")]


def _frame_head(size: int) -> bytes:
    """Of an unfragmented, unmasked text frame."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")
