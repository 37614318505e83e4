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

EVENT_END = b"\n\n"

_read_text = msgspec.json.Decoder(str).decode
_read_texts = msgspec.json.Decoder(tuple[str, ...]).decode


class UsualEvents:
    """Of one stream. For ``keep`` see `answers`."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._tries = TRIES
        self._before = self._after = self._end = self._between = b""
        self._least = sys.maxsize

    def may_be(self) -> bool:
        """Whether events may be like one another, as far as they were read."""
        return self._tries > 0

    def texts_at(self, data: bytes, at: int, together: bool) -> tuple[tuple[str, ...], int]:
        """The texts of events like the remembered one that begin at ``at``, and where they end: of all up to the last
        one in ``data``, or else of one alone, and with ``together`` false always. No texts, and ``at`` as it was, where
        there is none."""
        if not self._before or not data.startswith(self._before, at):
            self.missed()
            return (), at
        if together:
            end = data.rfind(self._end, at)
            said = data[at + len(self._before) : end].split(self._between) if end > 0 else []
            texts = _all_of(said)
            if texts:
                self._tries = TRIES
                return texts, end + len(self._end)
        end = data.find(EVENT_END, at)
        text = self.text_of(data[at:end]) if end > 0 else ""
        return ((text,), end + len(EVENT_END)) if text else ((), at)

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
            self._end = after + EVENT_END
            self._between = self._end + self._before
            self._least = len(self._before) + len(after)


def _all_of(said: list[bytes]) -> tuple[str, ...]:
    """The texts that stand in these events between the quotes; none unless each is one, and not empty.

    All are read in one step. A quote within one would make it two, and each has two of its own that count, unless it
    ends with a backslash: so with as many texts as there are events, each text is that of one event.
    """
    joined = b'","'.join(said)
    if not joined or b'\\","' in joined or joined.endswith(b"\\"):
        return ()
    try:
        texts = _read_texts(b'["%b"]' % joined)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return texts if len(texts) == len(said) and "" not in texts else ()
