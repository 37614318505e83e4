"""Chunks as server-sent events in OpenAI's form.

What does not change within a stream is encoded once; a token costs the escaping of its text and a join.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from anywire.errors import AnywireError, StreamCorrupted
from anywire.messages import Chunk, Kind, Progress
from anywire_gateway_openai.answers import ID_PREFIX, LARGE_CHARS, checked_json, encodable, members_after, split
from anywire_gateway_openai.errors import error_json

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
MAX_EVENT_PARTS = 200_000
"""Lists, objects or commas of one event that an engine made."""
MAX_PROGRESS_DETAIL = 256
"""Characters of what an agent says that it does."""


class _Delta(Struct):
    role: str | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


_choices = msgspec.json.Decoder(list[_Choice])
_raw_choices = msgspec.json.Decoder(list[dict[str, Raw]])
_raw_object = msgspec.json.Decoder(dict[str, Raw])

# Some clients split lines at every line break Unicode knows, not only where the standard says.
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def sse_event(data: bytes, event: str = "", id: str = "") -> bytes:  # noqa: A002
    """One server-sent event. ``data`` is JSON; ``event`` and ``id`` are free of line breaks."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return b"".join((head.encode(), b"data: ", _compact(data), b"\n\n"))


def _compact(json: bytes) -> bytes:
    """JSON on one line: outside of its strings line breaks mean nothing, and inside they are escaped."""
    if b"\n" in json or b"\r" in json:
        json = json.replace(b"\n", b" ").replace(b"\r", b" ")
    return one_line(json)


def one_line(data: bytes) -> bytes:
    """JSON whose strings hold no line break that a client could split it at, the encoder's own escapes besides."""
    if not data.isascii():
        for raw, escaped in _LINE_BREAKS:
            data = data.replace(raw, escaped)
    return data


class EventEncoder:
    """Makes the events of one stream; ``ended`` once the final chunk is encoded."""

    def __init__(self, kind: Kind, task_id: str, model: str, include_usage: bool) -> None:
        self.ended = False
        self._chat = kind == "chat"
        self._include_usage = include_usage
        head = {
            "id": ID_PREFIX[kind] + task_id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._start = b"data: " + one_line(_encode(head)[:-1]) + b',"choices":['
        # With include_usage OpenAI sets usage to null on every event but the last.
        self._end = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        before, after = (b'"delta":{"content":', b"}") if self._chat else (b'"text":', b"")
        self._before = self._start + b'{"index":0,' + before
        self._after = after + b',"logprobs":null,"finish_reason":null}' + self._end
        self._between = self._after + self._before
        self._introduced: set[int] = set()
        """The choices whose role has been sent."""
        self._beside_usage: dict[str, Raw] = {}
        """Members of an event that had no choices."""
        self._finished = False
        """Whether choice 0 has its finish_reason."""

    def events(self, chunks: Sequence[Chunk], spans_ms: Mapping[str, float] | None = None) -> bytes:
        """The events of ``chunks``, in order; with the final one everything that ends the stream, and ``spans_ms`` as a
        comment in the last event unless they are None. Raises `StreamCorrupted` when what the agent sent as JSON is
        none."""
        out: list[bytes] = []
        texts: list[str] = []
        for chunk in chunks:
            if not (chunk.extra or chunk.finish_reason or chunk.final):
                texts.extend(chunk.deltas)
                continue
            if chunk.extra:
                self._flush(texts, out)
                out.append(self._extra(chunk.extra))
            else:
                texts.extend(chunk.deltas)
            if (chunk.finish_reason or chunk.final) and not self._finished:
                self._flush(texts, out)
                out.append(self._finish(chunk.finish_reason or "stop"))
            if chunk.final:
                self.ended = True
                out.append(self._closing(chunk, spans_ms))
        self._flush(texts, out)
        return out[0] if len(out) == 1 else b"".join(out)

    def _flush(self, texts: list[str], out: list[bytes]) -> None:
        if "" in texts:
            texts[:] = filter(None, texts)
        if not texts:
            return
        if self._chat and 0 not in self._introduced:
            out.append(self._role())
        try:
            data = self._between.join(map(_encode, texts))
        except UnicodeEncodeError:
            data = self._between.join([_encode(encodable(text)) for text in texts])
        out.append(b"".join((self._before, one_line(data), self._after)))
        texts.clear()

    def _role(self) -> bytes:
        self._introduced.add(0)
        return (
            self._start
            + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
            + self._end
        )

    def _finish(self, reason: str) -> bytes:
        self._finished = True
        out = self._role() if self._chat and 0 not in self._introduced else b""
        delta = b'"delta":{}' if self._chat else b'"text":""'
        return b"".join(
            (out, self._start, b'{"index":0,', delta, b',"logprobs":null,"finish_reason":', _encode(reason), b"}",
             self._end)
        )  # fmt: skip

    def _extra(self, extra: str) -> bytes:
        """An event whose choices the engine gave, as they are but for the role: in the first delta of each choice,
        and only there."""
        if len(extra) > LARGE_CHARS and max(extra.count(mark) for mark in "[{,") > MAX_EVENT_PARTS:
            raise StreamCorrupted(
                f"the agent sent an event with more than {MAX_EVENT_PARTS} lists, objects or commas", phase="streaming"
            )
        raw, others = split(extra)
        encoded = bytes(raw)
        try:
            choices = _choices.decode(encoded)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise StreamCorrupted(f"the agent sent choices that cannot be read: {error}", phase="streaming") from error
        self._finished |= any(choice.index == 0 and choice.finish_reason for choice in choices)
        if not choices:
            # Clients expect an event without choices only where they asked for usage.
            self._beside_usage |= others
            return b""
        if self._chat:
            roles = [choice.delta.role if choice.delta is not None else None for choice in choices]
            wanted = [None if choice.index in self._introduced else "assistant" for choice in choices]
            if roles != wanted:
                encoded = _with_roles(encoded, wanted)
            self._introduced.update(choice.index for choice in choices)
        # The engine's text brings its own brackets.
        return b"".join((self._start[:-1], _compact(encoded), _compact(members_after(others)), self._end[1:]))

    def _closing(self, chunk: Chunk, spans_ms: Mapping[str, float] | None) -> bytes:
        usage = b""
        if self._include_usage and chunk.usage:
            encoded = _encode(checked_json(chunk.usage, "{", "usage"))
            beside = members_after(self._beside_usage)
            usage = b"".join((self._start, b'],"usage":', _compact(encoded + beside), b"}\n\n"))
        if spans_ms is None:
            return usage + DONE
        return usage + stages_comment(spans_ms) + DONE


def _with_roles(encoded: bytes, wanted: Sequence[str | None]) -> bytes:
    choices = _raw_choices.decode(encoded)
    for choice, role in zip(choices, wanted, strict=True):
        delta = _raw_object.decode(choice["delta"]) if "delta" in choice else {}
        delta.pop("role", None)
        if role is not None:
            delta = {"role": Raw(_encode(role)), **delta}
        choice["delta"] = Raw(_encode(delta))
    return _encode(choices)


def error_event(error: AnywireError) -> bytes:
    """The event that ends a stream that cannot go on; no ``[DONE]`` follows it."""
    return b"data: " + one_line(error_json(error, origin=True)) + b"\n\n"


def stages_comment(spans_ms: Mapping[str, float]) -> bytes:
    """Stage times as a comment in the event before which it stands."""
    stages = {name: round(span, 3) for name, span in spans_ms.items()}
    return b": anywire " + _encode({"stages": stages}) + b"\n"


def progress_comment(progress: Progress) -> bytes:
    """What a task's agent does, as a comment, which every client of an event stream passes over."""
    return f": progress {progress.state} {_detail(progress)}".rstrip().encode(errors="replace") + b"\n\n"


def progress_json(progress: Progress) -> bytes:
    """The same for a client that gets no events."""
    return _encode({"progress": {"state": progress.state, "detail": encodable(_detail(progress))}})


def _detail(progress: Progress) -> str:
    detail = progress.detail[:MAX_PROGRESS_DETAIL]
    return detail if detail.isprintable() else "".join([each if each.isprintable() else " " for each in detail])
