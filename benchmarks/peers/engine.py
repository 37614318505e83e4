"""The engine behind every router: answers at once, and costs little itself.

    python -m peers.engine PORT

A bare protocol without a web framework. An answer that is asked for whole is twenty tokens in one write; each token of
a stream is a write of its own, in a turn of the event loop of its own, as an engine would send it. It answers what
routers ask about it as well (models, health), and 404 to the rest.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any, cast

import httptools
import msgspec

from peers.workload import ANSWER, MODEL, PATH, WORDS, pace_of, token, usage_of

HOST = "127.0.0.1"


class Asked(msgspec.Struct):
    """What of a request counts here."""

    stream: bool | None = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        return self.max_tokens or self.max_completion_tokens or len(WORDS)


decode_asked = msgspec.json.Decoder(Asked).decode


def _whole(body: dict[str, Any], status: str = "200 OK") -> bytes:
    """An answer with a JSON object."""
    payload = json.dumps(body, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def _piece(data: bytes) -> bytes:
    """One piece of a body in chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """An event of a stream, whole but for its coding."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    event = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    return f"data: {json.dumps(event | {'choices': [choice]}, separators=(',', ':'))}\n\n".encode()


CHAT = _whole(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage_of(len(WORDS)),
    }
)
BEFORE_TOKEN, AFTER_TOKEN = _event({"content": "\x00"}).split(b"\\u0000")
BEGIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + _piece(_event({"role": "assistant", "content": ""}))
)
END = _piece(_event({}, "length")) + _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"

_LISTED = {"id": MODEL, "object": "model", "created": 1700000000, "owned_by": "vllm", "root": MODEL, "parent": None}
_EMPTY = _whole({})
_MODEL_INFO = _whole({"model_path": MODEL, "served_model_name": MODEL, "is_generation": True})
_SERVER_INFO = _whole({"model_path": MODEL, "served_model_name": MODEL, "tp_size": 1, "dp_size": 1})
KNOWN = {
    b"/v1/models": _whole({"object": "list", "data": [_LISTED | {"max_model_len": 32768}]}),
    b"/version": _whole({"version": "0.11.0"}),
    **dict.fromkeys((b"/get_model_info", b"/model_info"), _MODEL_INFO),
    **dict.fromkeys((b"/get_server_info", b"/server_info"), _SERVER_INFO),
    **dict.fromkeys((b"/", b"/health", b"/health_generate", b"/ping"), _EMPTY),
}
"""What routers ask before they send a request, and from time to time."""
UNKNOWN = _whole({"error": {"message": "not found", "type": "invalid_request_error"}}, "404 Not Found")
INVALID = _whole({"error": {"message": "no such request", "type": "invalid_request_error"}}, "400 Bad Request")


class Connection(asyncio.Protocol):
    """A connection, whose requests are answered one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._path = self._body = b""
        self._left, self._pace, self._due, self._keep = 0, 0.0, 0.0, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        self._left = -1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()  # another protocol, tried out

    def on_url(self, part: bytes) -> None:
        self._path += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        path, body, self._keep = self._path, self._body, self._parser.should_keep_alive()
        self._path = self._body = b""
        if not path.endswith(PATH.encode()):
            self._end(KNOWN.get(path.partition(b"?")[0], UNKNOWN))
            return
        try:
            asked = decode_asked(body)
        except msgspec.DecodeError:
            self._end(INVALID)
            return
        if not asked.stream:
            self._end(CHAT)
            return
        self._left, self._pace, self._due = asked.tokens, pace_of(asked.tokens), self._loop.time()
        self._transport.write(BEGIN)
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self._left < 0:
            return
        if not self._left:
            self._end(END)
            return
        self._left -= 1
        self._transport.write(_piece(b"%b%b%b" % (BEFORE_TOKEN, token().encode(), AFTER_TOKEN)))
        if self._pace:
            self._due += self._pace
            self._loop.call_at(self._due, self._next)
        else:
            self._loop.call_soon(self._next)

    def _end(self, data: bytes) -> None:
        self._transport.write(data)
        if not self._keep:
            self._transport.close()


async def serve(port: int) -> None:
    """Answer until the process is asked to end."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)
    server = await loop.create_server(Connection, HOST, port, backlog=1024)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
