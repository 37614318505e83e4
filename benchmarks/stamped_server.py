"""An OpenAI server that costs next to nothing, for what passes requests on: `stamped_engine.py`'s answers over HTTP.

    python benchmarks/stamped_server.py

It listens on a free port of the loopback interface and prints it. What it reads is taken for well-formed.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

import msgspec

from stamped_engine import ANSWER, BURST, PACE, PACED, USAGE, stamp
from transport_stack import new_event_loop

_EVENT = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"burst",'
    '"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}\n\n'
)


class _Body(msgspec.Struct):
    model: str = BURST
    max_tokens: int = 20
    stream: bool = False


_decode = msgspec.json.Decoder(_Body).decode


def _answer(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def _framed(event: str) -> bytes:
    return f"{len(event):x}\r\n{event}\r\n".encode()


_MODELS = _answer("200 OK", json.dumps({"object": "list", "data": [{"id": name} for name in (BURST, PACED)]}))
_UNKNOWN = _answer("404 Not Found", '{"error":{"message":"there is nothing here"}}')
_WHOLE = _answer(
    "200 OK",
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"burst","choices":[{"index":0,'
    f'"message":{{"role":"assistant","content":"{ANSWER}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{USAGE}}}',
)
_BEGIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
) + _framed(_EVENT % ('{"role":"assistant","content":""}', "null"))
_END = _framed(_EVENT % ("{}", '"length"')) + _framed("data: [DONE]\n\n") + b"0\r\n\r\n"


class _Connection(asyncio.Protocol):
    """Answers one request after the other; each token of a stream is written by itself."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._transport: asyncio.Transport
        self._left = 0
        self._pace = self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._left = -1

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (head := self._waiting.find(b"\r\n\r\n")) >= 0:
            lower = self._waiting[:head].lower()
            at = lower.find(b"\r\ncontent-length:")
            length = int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            end = head + 4 + length
            if len(self._waiting) < end:
                return
            target, body = self._waiting.split(b" ", 2)[1], self._waiting[head + 4 : end]
            self._waiting = self._waiting[end:]
            self._answer(target, body)

    def _answer(self, target: bytes, body: bytes) -> None:
        if target.endswith(b"/models"):
            self._transport.write(_MODELS)
        elif not target.endswith(b"/chat/completions"):
            self._transport.write(_UNKNOWN)
        elif not (asked := _decode(body)).stream:
            self._transport.write(_WHOLE)
        else:
            self._left, self._pace = asked.max_tokens, PACE if asked.model == PACED else 0.0
            self._due = self._loop.time()
            self._transport.write(_BEGIN)
            self._schedule()

    def _schedule(self) -> None:
        if self._pace:
            self._due += self._pace
            self._loop.call_at(self._due, self._next)
        else:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self._left < 0:
            return
        self._left -= 1
        self._transport.write(_framed(_EVENT % (f'{{"content":"{stamp()}"}}', "null")))
        if self._left:
            self._schedule()
        else:
            self._transport.write(_END)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
