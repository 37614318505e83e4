"""Undoing the ``Content-Encoding`` of a request: what is sent is bounded, and so is what comes out of it.

gzip and deflate are always there, zstd and br where a library for them is installed. A body is decoded in steps,
between which the event loop runs.
"""

from __future__ import annotations

import asyncio
import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from anywire.errors import InvalidRequest
from anywire_gateway_openai.errors import HttpError

IN_STEP, OUT_STEP = 64 * 1024, 1024 * 1024
"""Bytes that are read and written in one step; together a few milliseconds."""
MAX_CODINGS = 3
"""Codings one over the other; one is usual, more than two are an attack."""
ZSTD_WINDOW_LOG = 23
"""8 MiB: what RFC 9659 lets a sender use."""


class Decoder(Protocol):
    """Of one gzip member, zstd frame or whole body. ``rest`` is what came behind its end."""

    ended: bool
    rest: bytes

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """At most `OUT_STEP` bytes, and what of ``data`` is to be given again. Raises any exception for what is no such
        coding."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._decoder = zlib.decompressobj(window)
        self.ended, self.rest = False, b""

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._decoder.decompress(data, OUT_STEP)
        self.ended, self.rest = self._decoder.eof, self._decoder.unused_data
        return piece, self._decoder.unconsumed_tail


class _Deflate(_Zlib):
    """zlib's format as the standard says, or the bare one, which some clients send."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._begun = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        if not self._begun and data:
            self._begun = True
            if data[0] & 0x0F != 8 or (len(data) > 1 and int.from_bytes(data[:2]) % 31):
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().decode(data)


class _Zstd:
    def __init__(self, zstd: Any) -> None:
        limit = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._decoder = zstd.ZstdDecompressor(options=limit)
        self.ended, self.rest = False, b""

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._decoder.decompress(data, max_length=OUT_STEP)
        self.ended, self.rest = self._decoder.eof, self._decoder.unused_data
        return piece, b""


class _Brotli:
    def __init__(self, brotli: Any) -> None:
        self._decoder = brotli.Decompressor()
        self.ended, self.rest = False, b""

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        if not self._decoder.can_accept_more_data():
            return self._decoder.process(b"", output_buffer_limit=OUT_STEP), data
        piece = self._decoder.process(data, output_buffer_limit=OUT_STEP)
        self.ended = self._decoder.is_finished()
        return piece, b""


def _found() -> dict[str, Callable[[], Decoder]]:
    gzip = lambda: _Zlib(16 + zlib.MAX_WBITS)  # noqa: E731
    found: dict[str, Callable[[], Decoder]] = {"gzip": gzip, "x-gzip": gzip, "deflate": _Deflate}
    for name in ("compression.zstd", "backports.zstd"):
        zstd = _module(name)
        if zstd is not None:
            found["zstd"] = lambda zstd=zstd: _Zstd(zstd)  # type: ignore[misc]
            break
    brotli = _module("brotli")
    if brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data"):  # else its output has no bound
        found["br"] = lambda: _Brotli(brotli)
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


DECODERS = _found()
ACCEPTED = ", ".join(sorted(DECODERS.keys() - {"x-gzip"}))


def codings(header: str) -> list[str]:
    """The codings to undo, in that order. Raises `HttpError` for one that is not known, and for too many."""
    names = [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    unknown = next((name for name in names if name not in DECODERS), None)
    if unknown is not None or len(names) > MAX_CODINGS:
        what = f"{unknown[:64]!r} is not known here" if unknown else f"{len(names)} codings are too many"
        raise HttpError(
            415,
            "unsupported_content_encoding",
            f"Content-Encoding: {what}; send {ACCEPTED}, or none",
            headers={"Accept-Encoding": ACCEPTED},
        )
    return names[::-1]


async def undo(name: str, body: bytes, take: Callable[[bytes], None]) -> None:
    """Give ``take`` what ``body`` holds, piece by piece; what it raises goes on. Raises `InvalidRequest` for a body
    that is not what the coding says, or ends too early."""
    decoder, rest, at = DECODERS[name](), b"", 0
    while True:
        data = rest or body[at : at + IN_STEP]
        if not rest:
            at += len(data)
        try:
            piece, rest = decoder.decode(data)
        except Exception as error:
            raise InvalidRequest(f"the body is not what Content-Encoding: {name} says: {error}") from error
        if piece:
            take(piece)
            await asyncio.sleep(0)
        if decoder.ended:
            rest = decoder.rest
            if not rest and at >= len(body):
                return
            if name in ("deflate", "br"):
                raise InvalidRequest(f"the body goes on after the end of its {name} coding")
            decoder = DECODERS[name]()  # a further gzip member, or zstd frame
        elif not piece and not rest and at >= len(body):
            raise InvalidRequest(f"the body is cut off: its {name} coding has no end")
