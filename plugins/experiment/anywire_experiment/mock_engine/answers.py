"""Requests and answers of the mock engine as bytes."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

MODEL = "mock"
WORDS = (
    *("north", "south", "river", "stone", "light", "early", "small", "green"),
    *("seven", "quiet", "table", "water", "wheel", "paper", "house", "cloud"),
)
PATH = b"/v1/chat/completions"
MOST_TOKENS = 1_000_000
_DEFAULT_TOKENS = 20
_CHARS_PER_TOKEN = 4
_CREATED = 1_700_000_000


class _Message(msgspec.Struct):
    content: Any = ""


class _Options(msgspec.Struct):
    include_usage: bool | None = False


class Asked(msgspec.Struct):
    """What of a request counts here."""

    messages: list[_Message] = []
    model: str = MODEL
    stream: bool | None = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: _Options | None = None


decode = msgspec.json.Decoder(Asked).decode
_encode = msgspec.json.encode


class Text:
    """What is answered to one request: words that follow from its last message, and their events."""

    def __init__(self, asked: Asked) -> None:
        self._model = asked.model
        self._with_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        self.tokens = asked.max_tokens or asked.max_completion_tokens or _DEFAULT_TOKENS
        last = asked.messages[-1].content if asked.messages else ""
        text = last if isinstance(last, str) else _encode(last).decode()
        self._first = zlib.crc32(text.encode(errors="replace"))
        self._prompt_tokens = sum(len(str(each.content)) for each in asked.messages) // _CHARS_PER_TOKEN + 1
        self._given = 0

    @property
    def is_new(self) -> bool:
        """Whether no token was given yet."""
        return not self._given

    @property
    def is_over(self) -> bool:
        """Whether all tokens were given."""
        return self._given == self.tokens

    def begin(self) -> bytes:
        """The head of a stream, and its first event."""
        return _BEGIN + piece(self._event({"role": "assistant", "content": ""}))

    def token(self) -> bytes:
        """The event of the next token."""
        return piece(self._event({"content": self._word()}))

    def end(self) -> bytes:
        """What follows the last token."""
        pieces = piece(self._event({}, "length"))
        if self._with_usage:
            told = self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage()}
            pieces += piece(b"data: %b\n\n" % _encode(told))
        return pieces + piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def whole(self) -> bytes:
        """The answer to a request for no stream."""
        message = {"role": "assistant", "content": "".join(self._word() for _ in range(self.tokens))}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
        return json_answer(self._head("chat.completion") | {"choices": [choice], "usage": self._usage()})

    def _word(self) -> str:
        word = WORDS[(self._first + 7 * self._given) % len(WORDS)]
        self._given += 1
        return word if self.is_over else word + " "

    def _event(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"data: %b\n\n" % _encode(self._head("chat.completion.chunk") | {"choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self._first:08x}", "object": kind, "created": _CREATED, "model": self._model}

    def _usage(self) -> dict[str, int]:
        asked, given = self._prompt_tokens, self.tokens
        return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": asked + given}


def json_answer(body: dict[str, Any], status: str = "200 OK") -> bytes:
    payload = _encode(body)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def error(status: int, reason: str, message: str) -> bytes:
    return json_answer({"error": {"message": message, "type": "invalid_request_error"}}, f"{status} {reason}")


def piece(data: bytes) -> bytes:
    """One piece of a body in chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_BEGIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_LISTED = {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "anywire", "max_model_len": 1_048_576}
_EMPTY = json_answer({})
KNOWN = {
    b"/v1/models": json_answer({"object": "list", "data": [_LISTED]}),
    b"/version": json_answer({"version": "0.11.0"}),
    **dict.fromkeys((b"/get_model_info", b"/model_info"), json_answer({"model_path": MODEL, "is_generation": True})),
    **dict.fromkeys(
        (b"/get_server_info", b"/server_info"), json_answer({"model_path": MODEL, "tp_size": 1, "dp_size": 1})
    ),
    **dict.fromkeys((b"/", b"/health", b"/health_generate", b"/ping"), _EMPTY),
}
"""What gateways ask before they send a request, and from time to time."""
UNKNOWN = error(404, "Not Found", f"there is {PATH.decode()}, /v1/models and /health")
