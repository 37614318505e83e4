"""Events of a stream that differ in nothing but a token's text, read without reading them.

A server repeats the bytes around the text: its id, the model, the members that are null. Once an event was read as
plain text, what stands before and after the text is remembered, and an event with the same bytes around another text
is an event with that text. Whatever is not quite like that is read in full.
"""

from __future__ import annotations

import sys

from anywire_engine_openai.answers import plain_text

TRIES = 8
"""Events in a row that are remembered in vain before no further one is: the server repeats nothing."""
_PROBE = "?probe?"
_FIELD = b"data: "


class UsualEvents:
    """Of one stream. ``may_be``: its events may be like one another. For ``keep`` see `answers`."""

    def __init__(self, *, keep: bool = False) -> None:
        self.may_be = True
        self._keep = keep
        self._tries = TRIES
        self._before = self._after = b""
        self._least = sys.maxsize

    def text_of(self, lines: bytes) -> str:
        """The text of an event, given as it is sent but without the empty line at its end, if it is like the remembered
        one; empty for any other."""
        if len(lines) <= self._least or not lines.startswith(self._before) or not lines.endswith(self._after):
            return ""
        try:
            text = lines[len(self._before) : len(lines) - len(self._after)].decode()
        except UnicodeDecodeError:
            return ""
        # Such a text stands for itself in JSON, and ends no line.
        if not text.isprintable() or '"' in text or "\\" in text:
            return ""
        self._tries = TRIES
        return text

    def remember(self, data: bytes, text: str) -> None:
        """Take ``data`` as an example: an event's data that was read as ``text`` and nothing else."""
        sent = _FIELD + data
        if len(sent) >= self._least and sent.startswith(self._before) and sent.endswith(self._after):
            return  # like the remembered one, but for a text that has to be read
        if not self._tries:
            self.may_be = False
            return
        self._tries -= 1
        said = text.encode()
        place = data.rfind(b'"%b"' % said) + 1
        if not place or b"\n" in data:
            return
        before, after = data[:place], data[place + len(said) :]
        # Whether that was the text, and not something else that reads the same.
        if plain_text(before + _PROBE.encode() + after, keep=self._keep) == _PROBE:
            self._before, self._after = _FIELD + before, after
            self._least = len(self._before) + len(after)
