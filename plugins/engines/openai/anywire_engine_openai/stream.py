"""One streamed answer, from the bytes of its event stream to deltas."""

from __future__ import annotations

from collections.abc import Iterator

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire_engine_openai import answers
from anywire_engine_openai.sse import EventTooLarge, SSEParser


class AnswerStream:
    """Reads one stream; ``done`` once its ``[DONE]`` was read. For ``keep`` see `answers`."""

    def __init__(self, *, keep: bool = False) -> None:
        self.done = False
        self._keep = keep
        self._parser = SSEParser()
        self._finished = False  # a finish reason was read
        self._generated = False
        self._held: list[Delta] = []

    def read(self, data: bytes) -> Iterator[Delta]:
        """The deltas that ``data`` completes. Raises `EngineFailed` at an event that is none, after the deltas
        before it."""
        try:
            events = self._parser.feed(data)
        except EventTooLarge as error:
            raise EngineFailed(f"unreadable stream: {error}", phase="streaming") from error
        for event in events:
            if event.data == b"[DONE]":
                self.done = True
                return
            delta = answers.step(event.data, keep=self._keep)
            if delta is None:
                continue
            if delta.finish_reason:
                self._finished = True
            if not self._generated:
                self._generated = answers.generated(delta)
                if not self._generated and delta.extra:
                    # It would begin an answer that may turn out to be none, which is an error from the start.
                    self._held.append(delta)
                    continue
                if self._generated:
                    yield from self._held
            yield delta

    def end(self) -> None:
        """To be called when the stream is over. Raises `EngineFailed` when the answer is not complete or empty."""
        if not (self.done or self._finished):
            raise EngineFailed("the server ended the stream before the answer was complete", phase="streaming")
        if not self._generated:
            raise answers.no_token()
