"""The head of a connection's last request: most clients write the same again, but for the length of the body."""

from __future__ import annotations

import re

from multidict import CIMultiDict, CIMultiDictProxy, istr

from anywire_gateway_openai.http1.head import Head

MOST_BYTES = 2048
"""Of a head that is kept."""
MOST_DIGITS = 15
"""Of a length that is not read by the parser."""
_CONTENT_LENGTH = istr("content-length")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)


class KnownHead:
    """Knows the head that was read last. What has the same bytes, with other digits in its length at most, means the
    same, and need not be read."""

    __slots__ = ("_after", "_before", "_head", "_least", "_raw")

    def __init__(self) -> None:
        self._raw = self._before = self._after = b""
        self._least = 0
        """Bytes of a head with a length of one digit; 0 where the length must be the same."""
        self._head: Head | None = None

    def of(self, raw: bytes) -> Head | None:
        """The head that ``raw`` is, with the empty line at its end; None where it must be read."""
        if raw == self._raw:
            return self._head
        digits = raw[len(self._before) : len(raw) - len(self._after)]
        if (
            not self._least
            or not self._least <= len(raw) < self._least + MOST_DIGITS
            or not digits.isdigit()
            or not raw.startswith(self._before)
            or not raw.endswith(self._after)
        ):
            return None
        assert self._head is not None
        headers = CIMultiDict(self._head.headers)
        headers[_CONTENT_LENGTH] = digits.decode()
        return self._head._replace(headers=CIMultiDictProxy(headers), body_bytes=int(digits))

    def remember(self, raw: bytes, head: Head) -> None:
        """Take ``raw``, which was read as ``head``, for the known one."""
        if len(raw) > MOST_BYTES or not head.keep_alive:
            return
        self._raw, self._head, self._least = raw, head, 0
        found = _LENGTH.search(raw)
        if found is not None and found[1].decode() == head.headers.get(_CONTENT_LENGTH):
            self._before, self._after = raw[: found.start(1)], raw[found.end(1) :]
            self._least = len(self._before) + len(self._after) + 1
