"""Events of a stream that differ in nothing but a token's text, read without reading them.

A server repeats the bytes around the text: its id, the model, the members that are null. Once an event was read as
plain text, what stands before and after the text is remembered, and an event with the same bytes around another text
is an event with that text. Whatever is not quite like that is read in full.
"""

from __future__ import annotations

import sys

import msgspec

from anywire_engine_openai.answers import plain_text

TRIES = 8
"""Events in a row that are like no other one before the rest of a stream is read without looking for such."""
_PROBE = "?probe?"
_FIELD = b"data: "

_read_text = msgspec.json.Decoder(str).decode


class UsualEvents:
    """Of one stream. For ``keep`` see `answers`."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._tries = TRIES
        self._before = self._after = b""
        self._least = sys.maxsize

    def may_be(self) -> bool:
        """Whether events may be like one another, as far as they were read."""
        return self._tries > 0

    def text_of(self, lines: bytes) -> str:
        """The text of an event, given as it is sent but without the empty line at its end, if it is like the remembered
        one; empty for any other."""
        if len(lines) <= self._least or not lines.startswith(self._before) or not lines.endswith(self._after):
            self.missed()
            return ""
        try:
            # With the quotes around it. Nothing else may stand there, and no line end.
            text = _read_text(lines[len(self._before) - 1 : len(lines) - len(self._after) + 1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""
        self._tries = TRIES
        return text

    def missed(self) -> None:
        """Note that something was read which is no event like another one."""
        self._tries -= 1

    def remember(self, data: bytes, text: str) -> None:
        """Take ``data`` as an example: an event's data that was read as ``text`` and nothing else."""
        said = text.encode()
        place = data.rfind(b'"%b"' % said) + 1
        if not place or b"\n" in data:
            return
        before, after = data[:place], data[place + len(said) :]
        # Whether that was the text, and not something else that reads the same.
        if plain_text(before + _PROBE.encode() + after, keep=self._keep) == _PROBE:
            self._before, self._after = _FIELD + before, after
            self._least = len(self._before) + len(after)
