"""The head of an HTTP message that came last: most peers write the same again, but for the length of the body."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

MOST_BYTES = 2048
"""Of a head that is kept."""
MOST_DIGITS = 15
"""Of a length that is not read by a parser."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)

Read = TypeVar("Read")


class KnownHead(Generic[Read]):
    """Knows the head that was read last, and what was ``read`` from it. What has the same bytes, with other digits in
    its length at most, means the same, and need not be read."""

    __slots__ = ("_after", "_before", "_least", "_length", "_raw", "read")

    def __init__(self) -> None:
        self._raw = self._before = self._after = b""
        self._length = 0
        self._least = 0
        """Bytes of a head with a length of one digit; 0 where the length must be the same."""
        self.read: Read | None = None

    def length_of(self, raw: bytes) -> int | None:
        """How long the body is that stands behind ``raw``, a head with the empty line at its end; None where that is
        not like the known one, and must be read."""
        if raw == self._raw:
            return self._length if self.read is not None else None
        digits = raw[len(self._before) : len(raw) - len(self._after)]
        if (
            not self._least
            or not self._least <= len(raw) < self._least + MOST_DIGITS
            or not digits.isdigit()
            or not raw.startswith(self._before)
            or not raw.endswith(self._after)
            or (digits[0] == ord("0") and len(digits) > 1)
        ):
            return None
        return int(digits)

    def remember(self, raw: bytes, length: int, read: Read) -> None:
        """Take ``raw`` for the known one, from which ``read`` was read, and that a body of ``length`` bytes follows."""
        found = _LENGTH.search(raw)
        if len(raw) > MOST_BYTES or int(found[1] if found else 0) != length:
            return
        self._raw, self._length, self._least, self.read = raw, length, 0, read
        if found is not None:
            self._before, self._after = raw[: found.start(1)], raw[found.end(1) :]
            self._least = len(self._before) + len(self._after) + 1
