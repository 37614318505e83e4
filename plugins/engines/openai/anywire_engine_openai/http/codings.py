"""Undoing the ``Content-Encoding`` of an answer, a bounded piece at a time.

gzip and deflate are always there, zstd and br where a library for them is installed.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

OUT_STEP = 64 * 1024
"""Bytes of a piece."""
MAX_EMPTY = 16
"""Members, or frames, in a row that stand for nothing."""


class Decoder(Protocol):
    """Of one body."""

    def give(self, data: bytes) -> None:
        """Further bytes of the body; only once `take` has nothing more."""
        ...

    def take(self) -> bytes:
        """At most `OUT_STEP` decoded bytes; empty when more of the body is needed, or it is over. Raises any exception
        for what is no such coding."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the coding's own end was read."""
        ...


class _Zlib:
    """gzip, of which several members may follow one another, or deflate: zlib's format as the standard says, or the
    bare one, which some servers send."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS if gzip else zlib.MAX_WBITS)
        self._begun = False
        self._data = b""
        self._has_more = False
        self._empty = 0

    def give(self, data: bytes) -> None:
        self._data, self._has_more = data, True
        if not self._begun:
            self._begun = True
            if not self._gzip and data[0] & 0x0F != 8:
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    def take(self) -> bytes:
        while self._has_more:
            if self._decoder.eof:
                if not self._gzip or not self._data:
                    break
                self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self._empty = _one_more(self._empty)
            piece = self._decoder.decompress(self._data, OUT_STEP)
            self._data = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            # A full piece may not be all of it, although all of the input was taken.
            self._has_more = bool(self._data) or len(piece) == OUT_STEP
            if piece:
                self._empty = 0
                return piece
        return b""

    @property
    def has_ended(self) -> bool:
        return self._decoder.eof


class _Zstd:
    def __init__(self, zstd: Any) -> None:
        self._make = zstd.ZstdDecompressor
        self._decoder = self._make()
        self._data = b""
        self._has_more = False
        self._empty = 0

    def give(self, data: bytes) -> None:
        self._data, self._has_more = data, True

    def take(self) -> bytes:
        while self._has_more:
            if self._decoder.eof:
                if not self._data:
                    break
                self._decoder = self._make()
                self._empty = _one_more(self._empty)
            piece: bytes = self._decoder.decompress(self._data, max_length=OUT_STEP)
            self._data = self._decoder.unused_data if self._decoder.eof else b""
            self._has_more = bool(self._data) or not (self._decoder.eof or self._decoder.needs_input)
            if piece:
                self._empty = 0
                return piece
        return b""

    @property
    def has_ended(self) -> bool:
        return bool(self._decoder.eof)


def _one_more(empty: int) -> int:
    """The count of members without content, as they cost the most to read. Raises ``ValueError`` for too many."""
    if empty >= MAX_EMPTY:
        raise ValueError(f"more than {MAX_EMPTY} parts in a row without content")
    return empty + 1


class _Brotli:
    def __init__(self, brotli: Any) -> None:
        self._decoder = brotli.Decompressor()
        self._data: bytes | None = None

    def give(self, data: bytes) -> None:
        self._data = data

    def take(self) -> bytes:
        while self._data is not None and not self._decoder.is_finished():
            data, self._data = self._data, b""
            piece: bytes = self._decoder.process(data, output_buffer_limit=OUT_STEP)
            if self._decoder.can_accept_more_data():
                self._data = None
            if piece:
                return piece
        return b""

    @property
    def has_ended(self) -> bool:
        return bool(self._decoder.is_finished())


@functools.cache
def decoders() -> dict[str, Callable[[], Decoder]]:
    """By the names that a server may answer with, in the order in which they are asked for."""
    found: dict[str, Callable[[], Decoder]] = {
        "gzip": functools.partial(_Zlib, gzip=True),
        "deflate": functools.partial(_Zlib, gzip=False),
    }
    brotli = _module("brotli")
    if brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data"):  # else its output has no bound
        found["br"] = functools.partial(_Brotli, brotli)
    zstd = _module("compression.zstd") or _module("backports.zstd")
    if zstd is not None:
        found["zstd"] = functools.partial(_Zstd, zstd)
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
