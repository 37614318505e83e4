"""An OpenAI-compatible server that costs next to nothing: bytes made beforehand, written as they stand.

    python benchmarks/raw_engine.py

It prints its port and answers until its standard input ends. A request for a stream gets as many tokens as its
``max_tokens`` says, in events and chunks of HTTP as vLLM writes them: all in one write, or one each ``pace_ms``
milliseconds where the body has that member.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from functools import cache
from typing import cast

import msgspec

_NAMES = {"id": "chatcmpl-5f2a9d6c0c7e4a7e8f5a", "created": 1764547200, "model": "model"}
_CHUNK = _NAMES | {"object": "chat.completion.chunk"}
_HEAD = b"HTTP/1.1 200 OK\r\ndate: Mon, 30 Nov 2026 07:00:00 GMT\r\nserver: uvicorn\r\n"


class _Asked(msgspec.Struct):
    stream: bool = False
    max_tokens: int = 20
    pace_ms: float = 0.0


def _whole(content: object) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    return _HEAD + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(body), body)


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 75, "completion_tokens": tokens, "total_tokens": 75 + tokens}


@cache
def _answer(tokens: int) -> bytes:
    message = {"role": "assistant", "content": " token" * tokens}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    return _whole(_NAMES | {"object": "chat.completion", "choices": [choice], "usage": _usage(tokens)})


@cache
def _stream(tokens: int) -> Sequence[bytes]:
    """The head with the first event, and an event each."""

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event(_CHUNK | {"choices": [choice]})

    head = _HEAD + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    texts = [event({"content": f" token{number}"}) for number in range(tokens)]
    texts[-1] += event({}, "length") + _event(_CHUNK | {"choices": [], "usage": _usage(tokens)})
    texts[-1] += b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    return [head + event({"role": "assistant", "content": ""}), *texts]


def _event(content: object) -> bytes:
    event = b"data: %b\n\n" % json.dumps(content, separators=(",", ":")).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


_MODELS = _whole({"object": "list", "data": [{"id": "model", "object": "model", "owned_by": "vllm"}]})
_decode = msgspec.json.Decoder(_Asked).decode


class _Server(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if head.startswith(b"GET"):
                self._buffer = rest
                self._transport.write(_MODELS)
                continue
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
            if len(rest) < size:
                return
            self._buffer = rest[size:]
            asked = _decode(rest[:size])
            if not asked.stream:
                self._transport.write(_answer(asked.max_tokens))
            elif not asked.pace_ms:
                self._transport.write(b"".join(_stream(asked.max_tokens)))
            else:
                self._go_on(list(reversed(_stream(asked.max_tokens))), asked.pace_ms / 1e3, self._loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self, left: list[bytes], pace: float, due: float) -> None:
        self._transport.write(left.pop())
        self._timer = self._loop.call_at(due + pace, self._go_on, left, pace, due + pace) if left else None


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
