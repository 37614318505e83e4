"""One streamed answer, from the bytes of its event stream to deltas."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed, InvalidRequest
from anywire.extra import split
from anywire_engine_openai import answers
from anywire_engine_openai.sse import EventTooLarge, SSEParser
from anywire_engine_openai.usual_events import EVENT_END, UsualEvents

MAX_HELD = 1000
"""Deltas before the first that is of an answer."""


class AnswerStream:
    """Reads one stream; ``done`` once nothing more is wanted of it: its ``[DONE]`` was read, or what came after the
    whole answer was a fault. For ``keep`` see `answers`. ``choices`` is how many the answer should have.
    ``begun``: its beginning was delivered before."""

    def __init__(self, *, keep: bool = False, choices: int = 1, begun: bool = False) -> None:
        self.done = False
        self._keep, self._choices = keep, choices
        self._parser = SSEParser()
        self._finished: set[int] = set()
        """The choices whose finish reason was read."""
        self._usage: dict[str, int] = {}
        self._answered = begun
        self._held: list[Delta] = []
        self._usual = UsualEvents(keep=keep)

    @property
    def complete(self) -> bool:
        """Whether the whole answer was read, whatever happens to the connection now: at most its usage is missing."""
        return self.done or len(self._finished) >= self._choices

    def read(self, data: bytes) -> Iterator[Delta]:
        """The deltas that ``data`` completes. Raises as `answers.step` does at an event that is none, after the deltas
        before it; a fault after the whole answer ends the stream instead."""
        usual = self._usual
        if not usual.may_be():
            yield from self._read_all(data)
            return
        is_between, together, at = self._parser.is_between_events, True, 0
        while at < len(data):
            if is_between:
                texts, at = usual.texts_at(data, at, together)
                if texts:
                    together = together and len(texts) > 1
                    yield Delta("".join(texts), parts=texts) if len(texts) > 1 else Delta(texts[0])
                    continue
            end = data.find(EVENT_END, at) + len(EVENT_END)
            if end < len(EVENT_END):
                if not at:
                    usual.missed()
                break
            yield from self._read_all(data[at:end], usual if is_between else None)
            if self.done:
                return
            is_between, at = True, end
            if not usual.may_be():
                break
        if at < len(data):
            yield from self._read_all(data[at:] if at else data)

    def _read_all(self, data: bytes, usual: UsualEvents | None = None) -> Iterator[Delta]:
        """The deltas of ``data``, read in full; ``usual`` remembers those that are text."""
        try:
            events = self._parser.feed(data)
        except EventTooLarge as error:
            if self.complete:
                self.done = True
                return
            raise EngineFailed(f"unreadable stream: {error}", phase="streaming") from error
        for event in events:
            if event.data == b"[DONE]":
                self.done = True
                return
            try:
                delta = answers.step(event.data, keep=self._keep)
            except (EngineFailed, InvalidRequest):
                if not self.complete:
                    raise
                self.done = True
                return
            if delta is None:
                continue
            if delta.finish_reason or self._choices > 1:
                delta = self._note_ends(delta)
            if not self._answered:
                self._answered = answers.is_answer(delta)
                if not self._answered:
                    # It would begin an answer that may turn out to be none, which is an error from the start.
                    if len(self._held) >= MAX_HELD:
                        raise EngineFailed("the server begins an answer and says nothing", phase="streaming")
                    self._held.append(delta)
                    continue
                yield from self._held
                self._held.clear()
            yield delta
            if usual is not None and answers.is_text(delta):
                usual.remember(event.data, delta.text)

    def end(self) -> None:
        """To be called when the stream is over. Raises `EngineFailed` when the answer is not complete or empty."""
        if not (self.done or self._finished):
            raise EngineFailed("the server ended the stream before the answer was complete", phase="streaming")
        if not self._answered:
            raise answers.no_token()

    def _note_ends(self, delta: Delta) -> Delta:
        """``delta``; where each of several choices ends with a usage of its own (llama.cpp), with the sum so far."""
        ended = {0} if delta.finish_reason else set()
        if delta.extra and self._choices > 1:
            ended |= {each.get("index", 0) for each in split(delta.extra)[0] if each.get("finish_reason")}
        self._finished |= ended
        if not (ended and delta.usage and self._choices > 1):
            return delta
        usage = msgspec.json.decode(delta.usage)
        for name, number in self._usage.items() if isinstance(usage, dict) else ():
            told = usage.get(name, 0)
            usage[name] = number + told if type(told) is int else told
        self._usage = {name: number for name, number in usage.items() if type(number) is int}
        return msgspec.structs.replace(delta, usage=msgspec.json.encode(usage).decode())
