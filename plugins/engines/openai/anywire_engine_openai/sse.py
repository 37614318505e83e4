"""Server-sent events, read as they come: bytes in, complete events out.

Follows the WHATWG event stream grammar for every way to cut the bytes: any of the three line ends, comments,
data over several lines, a byte order mark. ``id`` and ``retry`` belong to reconnecting, which nobody does here,
and are skipped. Payloads stay bytes, so a character cut in two by the network needs no care.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; ``type`` is empty when the stream named none (the grammar's ``message``)."""

    data: bytes
    type: str = ""


class EventTooLarge(ValueError):
    """An event, or a single line, is over the parser's bound."""


class SSEParser:
    """One stream's parser. After `EventTooLarge` it is of no further use."""

    def __init__(self, max_event_bytes: int = 8 * 1024 * 1024) -> None:
        self.max_event_bytes = max_event_bytes
        self._begun = False  # whether a byte order mark can no longer follow
        self._after_cr = False  # the last byte was CR: an LF that follows belongs to it
        self._line: list[bytes] = []  # pieces of the unfinished line, joined once it ends
        self._data: list[bytes] = []
        self._type = ""
        self._line_size = 0
        self._data_size = 0

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event was read, so that the next byte is the first of one."""
        return self._begun and not (self._after_cr or self._line or self._data or self._type)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed by ``chunk``, in order. Raises `EventTooLarge`."""
        if not self._begun:
            chunk = self._skip_mark(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk[-1] == 13
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        if lines:
            if self._line:
                self._line.append(lines[0])
                lines[0] = b"".join(self._line)
                self._line.clear()
                self._line_size = 0
            self._take(lines, events)
        if rest:
            self._line.append(rest)
            self._line_size += len(rest)
            self._check()
        return events

    def _take(self, lines: list[bytes], events: list[Event]) -> None:
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._data_size += len(value) + 1
                self._check()
            elif not line:
                if data:
                    events.append(Event(data[0] if len(data) == 1 else b"\n".join(data), self._type))
                    data.clear()
                    self._data_size = 0
                self._type = ""
            elif line == b"data":
                data.append(b"")
                self._data_size += 1
            elif line.startswith(b"event:"):
                self._type = line[6:].removeprefix(b" ").decode(errors="replace")
            elif line == b"event":
                self._type = ""

    def _check(self) -> None:
        if self._line_size + self._data_size > self.max_event_bytes:
            raise EventTooLarge(f"an event of the stream is over {self.max_event_bytes} bytes")

    def _skip_mark(self, chunk: bytes) -> bytes:
        chunk = b"".join((*self._line, chunk))
        self._line.clear()
        self._line_size = 0
        if len(chunk) < len(BOM) and BOM.startswith(chunk):
            self._line.append(chunk)
            self._line_size = len(chunk)
            return b""
        self._begun = True
        return chunk.removeprefix(BOM)
