"""Frames: messages on a stream of bytes, each behind its length in 4 bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from anywire.errors import TransportError

HEAD = 4
_size_at = struct.Struct(">I").unpack_from


def frame(data: bytes) -> bytes:
    """``data`` with its length in front. It has at least one byte and fewer than 2**32."""
    return len(data).to_bytes(HEAD, "big") + data


class Unpacker:
    """Takes frames from a stream, however it is cut. ``limit`` is the largest frame, in bytes without its length.

    The work is linear in the bytes fed. A frame over the limit is refused when its length has come, before anything
    of it is kept; no more is kept than what has come of one frame.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0  # of the frame that is being read; 0 while its length is
        self._partial = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that ``data`` completes; read them all before the next call.

        Raises `TransportError` for a length that is 0 or over the limit, after the frames before it. What follows in
        the stream means nothing then.
        """
        at, end = 0, len(data)
        # Mostly whole frames come.
        while not self._size and not self._partial and end - at >= HEAD:
            size = self._checked(_size_at(data, at)[0])
            at += HEAD
            if end - at < size:
                self._size = size
            else:
                yield data[at : at + size]
                at += size
        while at < end:
            wanted = (self._size or HEAD) - len(self._partial)
            piece = data[at : at + wanted]
            at += len(piece)
            if len(piece) < wanted or self._partial:
                self._partial += piece
                if len(piece) < wanted:
                    return
                piece = bytes(self._partial)
                self._partial = bytearray()
            if self._size:
                self._size = 0
                yield piece
            else:
                self._size = self._checked(int.from_bytes(piece, "big"))

    def _checked(self, size: int) -> int:
        if not 0 < size <= self.limit:
            raise TransportError(f"a frame of {size} bytes: it may have 1 to {self.limit} (max_message_bytes)")
        return size
