"""Random and mutated requests for the OpenAI gateway: what a connection sends, all drawn from one seed."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from typing import Any, NamedTuple

MAX_BODY_BYTES = 16 * 1024
PADDING = b"x" * (MAX_BODY_BYTES + 9000)
"""Completes any body that was announced and is not too large. What is left of it is no HTTP and ends the connection."""

_CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello get_weather"}],
    "max_tokens": 4,
}
_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SEEDS: dict[str, list[dict[str, Any]]] = {
    "/chat/completions": [
        _CHAT,
        _CHAT | {"stream": True},
        _CHAT | {"stream": True, "stream_options": {"include_usage": True}, "n": 2},
        _CHAT | {"tools": [_TOOL], "tool_choice": "required", "logprobs": False},
        _CHAT | {"logprobs": True, "top_logprobs": 3, "temperature": 0.5, "stop": ["a", "b"], "seed": 7},
        _CHAT
        | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        _CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, _PICTURE]}]},
        _CHAT | {"models": ["m", "other"], "metadata": {"a": "b"}, "prompt_cache_key": "k", "logit_bias": {"5": 1}},
    ],
    "/completions": [
        {"model": "m", "prompt": "once upon", "max_tokens": 4},
        {"model": "m", "prompt": ["a", "b"], "max_tokens": 4, "n": 2, "echo": True, "logprobs": 1, "stream": True},
        {"model": "m", "prompt": [1, 2, 3], "max_tokens": 4, "best_of": 2},
    ],
    "/embeddings": [
        {"model": "m", "input": "hello"},
        {"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"},
        {"model": "m", "input": [[1, 2], [3]]},
    ],
    "/responses": [
        {"model": "m", "input": "hello", "max_output_tokens": 4, "metadata": {"a": "b"}, "stream": True},
        {
            "model": "m",
            "instructions": "be brief",
            "input": [
                {"role": "developer", "content": "x"},
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": "u"}],
                },
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "x"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
                {"role": "user", "content": "and?"},
            ],
        },
        {
            "model": "m",
            "input": "get_weather",
            "tools": [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": True}],
            "tool_choice": {"type": "function", "name": "get_weather"},
            "reasoning": {"effort": "low"},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
        },
        {
            "model": "m",
            "input": "x",
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
            "truncation": "auto",
            "store": False,
        },
    ],
    "/rerank": [
        {"model": "m", "query": "a cat", "documents": ["a", {"text": "cat"}], "top_n": 1, "return_documents": True},
    ],
    "/tokenize": [
        {"model": "m", "prompt": "hello", "add_special_tokens": True, "return_token_strs": True},
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "tools": [_TOOL]},
        {"content": "hello", "add_special": False, "with_pieces": True},
    ],
    "/detokenize": [{"model": "m", "tokens": [1, 2, 3]}],
    "/audio/speech": [{"model": "m", "input": "hello", "voice": "alloy", "response_format": "wav", "speed": 1.0}],
    "/images/generations": [{"model": "m", "prompt": "a cat", "n": 1, "size": "1024x1024"}],
}
_NASTY_TEXTS = (
    "", " ", "\x00", "\x1b]0;x\x07", "\r\nx: y", "\u2028", "\ud800", "😀", "m" * 300, "none", "auto", "json_schema",
    "a" * 5000, "%s%n", "../..", "null",
)  # fmt: skip
_NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.1, 1e308, 1e-320, [], {}, [[]], [None],
    {"": ""}, {"type": "function"}, {"$ref": "#"}, [[1, "a"]],
)  # fmt: skip
_NASTY_BYTES = (
    b"1e400", b"NaN", b"-Infinity", b"9" * 5000, b"\\ud800", b"\\u0000", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80",
    b"[" * 3000, b'{"a":' * 3000,
    b'"' * 50, b"\\", b",", b":", b"}", b"]", b"\xef\xbb\xbf", b"/*x*/", b"1.", b"01", b"+1", b"\\x41",
)  # fmt: skip
_TYPES = (
    "application/json", "application/json; charset=utf-8", "application/json;charset=latin-1", "text/plain", "", "\x7f",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "APPLICATION/JSON",
    "application/json,text/html", "a" * 9000,
)  # fmt: skip
_CODINGS = ("gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "nonsense", "", "x-gzip")
_METHODS = (
    "GET",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "post",
    "NONSENSE",
    "A" * 300,
    "PRI",
    "POST ",
)
_BASES = ("/v1", "/api/v1", "", "/v2", "/v1/", "//v1", "/V1")
_ENDS = (
    "/models", "/models/m", "/models/%00", "/models/a%2fb", "/agents", "/agents/register", "/stats", "/health",
    "/version", "/metrics", "/tasks", "/tasks/x", "/tasks/%ff", "/chat", "/chat/completions/",
    "/chat/completions?x=%00&y", "/ws/chat",
    "/%2e%2e/etc", "/" + "a" * 9000, "/\x01", "*", "http://x/v1/models", "/chat/completions_stream",
)  # fmt: skip
_HEADERS = (
    "x-anywire-timeout", "x-anywire-priority", "x-anywire-session", "x-anywire-parent", "x-anywire-prefer",
    "x-anywire-avoid", "x-anywire-hints", "x-anywire-policy", "x-anywire-attempts", "x-anywire-progress", "traceparent",
    "tracestate", "x-request-id", "Origin", "Authorization", "Cookie", "Expect", "Accept", "Range", "Upgrade",
)  # fmt: skip
_HEADER_VALUES = (
    "", "0", "-1", "1", "true", "nan", "inf", "1e9", "9" * 5000, "a=b, c=1", '{"a":1}', '{"a":' * 500, "{", "http://evil",
    "null", "100-continue", "agent-1", "x" * 7000, "\x80\xff", "a,b," * 200, "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
)  # fmt: skip


class Sent(NamedTuple):
    """What a connection sends: ``requests`` requests in ``data``, which ends so that the server closes it."""

    data: bytes
    requests: int


class Requests:
    """Draws what connections send."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def connection(self) -> Sent:
        """One to six requests, pipelined. The last asks for the end of the connection, or is followed by no HTTP."""
        count = self.rng.choice((1, 1, 1, 2, 6))
        sent = [self.request() for _ in range(count)]
        data = b"".join(sent)
        if self.rng.random() < 0.2:
            return Sent(self.mutated(data) + PADDING, count)
        return Sent(data + b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + PADDING, count + 1)

    def request(self) -> bytes:
        rng = self.rng
        path = rng.choice(list(SEEDS))
        body = self.body(path)
        method, target = "POST", rng.choice(("/v1", "/v1", "/v1", "/api/v1")) + path
        headers = [("Host", "x"), ("Content-Type", "application/json")]
        if rng.random() < 0.1:
            method = rng.choice(_METHODS)
        if rng.random() < 0.15:
            target = rng.choice(_BASES) + rng.choice(_ENDS)
            method = rng.choice((method, "GET"))
        if rng.random() < 0.1:
            headers[1] = ("Content-Type", rng.choice(_TYPES))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            headers.append((rng.choice(_HEADERS), rng.choice(_HEADER_VALUES)))
        if rng.random() < 0.02:
            headers += [(f"x-{at}", "y" * 50) for at in range(rng.choice((50, 400)))]
        if rng.random() < 0.1:
            coding = rng.choice(_CODINGS)
            headers.append(("Content-Encoding", coding))
            body = rng.choice((body, gzip.compress(body), zlib.compress(body), gzip.compress(body)[:-5]))
            if rng.random() < 0.05:
                body = gzip.compress(b"0" * 1_000_000)
        if rng.random() < 0.15:
            headers.append(("Transfer-Encoding", rng.choice(("chunked", "chunked", "chunked", "gzip, chunked", "x"))))
            body = self.chunks(body)
        elif rng.random() < 0.05:
            length = rng.choice((str(len(body) + 7), str(max(0, len(body) - 7)), "-1", "1e3", "9" * 30, "", "0x10"))
            headers.append(("Content-Length", length))
        else:
            headers.append(("Content-Length", str(len(body))))
        version = "HTTP/1.1" if rng.random() < 0.97 else rng.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "XTTP/1.1"))
        head = f"{method} {target} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        return head.encode("latin-1", "replace") + b"\r\n" + body

    def body(self, path: str) -> bytes:
        """A body that is right, wrong in its values, or in its bytes."""
        rng = self.rng
        value = json.loads(json.dumps(rng.choice(SEEDS[path])))
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            value = self._changed(value)
        try:
            text = json.dumps(value, separators=rng.choice(((",", ":"), (", ", ": "))))
        except (ValueError, RecursionError):
            text = "{}"
        body = text.encode()
        if rng.random() < 0.05:
            body = b'{"model":"m","x":' + rng.choice(_NASTY_BYTES) + b"," + body[1:]
        if rng.random() < 0.05:
            body = body[:-1] + b', "model": "again"}'
        return self.mutated(body) if rng.random() < 0.3 else body

    def mutated(self, data: bytes) -> bytes:
        rng = self.rng
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(out) + 1)
            match rng.randrange(5):
                case 0:
                    out[at : at + 1] = bytes((rng.randrange(256),))
                case 1:
                    del out[at : at + rng.choice((1, 3, 20))]
                case 2:
                    out[at:at] = rng.choice(_NASTY_BYTES)
                case 3:
                    out[at:at] = out[: rng.randrange(60)]
                case _:
                    del out[at:]
        return bytes(out)

    def chunks(self, body: bytes) -> bytes:
        rng = self.rng
        out, at = b"", 0
        while at < len(body):
            size = rng.randrange(1, 200)
            piece = body[at : at + size]
            length = f"{len(piece):x}" if rng.random() < 0.98 else rng.choice(("zz", "-1", "f" * 20, "", " 5", "5;a=b"))
            out += length.encode() + b"\r\n" + piece + rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n"))
            at += size
        return out + (
            b"0\r\n\r\n" if rng.random() < 0.9 else rng.choice((b"", b"0\r\n", b"0\r\nx: y\r\n\r\n", b"\r\n"))
        )

    def handshake(self) -> bytes:
        rng = self.rng
        path = rng.choice(("/v1/ws/chat", "/api/v1/ws/chat", "/v1/chat/completions"))
        key = base64.b64encode(rng.randbytes(16)).decode() if rng.random() < 0.95 else "no key"
        version = "13" if rng.random() < 0.97 else rng.choice(("8", "x", ""))
        return (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n"
        ).encode()

    def frames(self) -> bytes:
        """Requests in frames, some of which are none, and a close frame at the end."""
        rng = self.rng
        out = b""
        for _ in range(rng.choice((1, 2, 5))):
            body = self.body("/chat/completions")[: MAX_BODY_BYTES - 100]
            kind = rng.random()
            if kind < 0.6:
                out += self._frame(1, body)
            elif kind < 0.75:
                half = len(body) // 2
                out += self._frame(1, body[:half], final=False) + self._frame(0, body[half:])
            elif kind < 0.9:
                out += self._frame(rng.choice((2, 9, 10)), body[:100])
            else:
                out += self._frame(rng.randrange(16), body[:200], final=rng.random() < 0.5, masked=rng.random() < 0.5)
        return out + self._frame(8, (1000).to_bytes(2, "big") if rng.random() < 0.9 else rng.randbytes(3))

    def _frame(self, code: int, data: bytes, *, final: bool = True, masked: bool = True) -> bytes:
        size = len(data)
        head = bytes((code | (128 if final else 0),))
        mark = 128 if masked else 0
        if size < 126:
            head += bytes((mark | size,))
        elif size < 65536:
            head += bytes((mark | 126,)) + size.to_bytes(2, "big")
        else:
            head += bytes((mark | 127,)) + size.to_bytes(8, "big")
        if not masked:
            return head + data
        mask = self.rng.randbytes(4)
        padded = (mask * (size // 4 + 1))[:size]
        return head + mask + (int.from_bytes(data, "big") ^ int.from_bytes(padded, "big")).to_bytes(size, "big")

    def _changed(self, value: Any) -> Any:
        """``value`` with one of its parts replaced, added or left out."""
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.9:
            name = rng.choice(list(value))
            match rng.randrange(6):
                case 0:
                    return {each: part for each, part in value.items() if each != name}
                case 1:
                    return value | {rng.choice(_NASTY_TEXTS): self._nasty()}
                case 2:
                    return value | {rng.choice(list(_OPTIONS)): self._nasty()}
                case _:
                    return value | {name: self._changed(value[name])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]] * rng.choice((1, 1, 1, 20))
        return self._nasty()

    def _nasty(self) -> Any:
        return self.rng.choice((self.rng.choice(_NASTY_VALUES), self.rng.choice(_NASTY_TEXTS)))


_OPTIONS = tuple(
    {name for bodies in SEEDS.values() for body in bodies for name in body} | {"suffix", "functions", "modalities"}
)
