"""Answers on their way to the wire: joined while they wait, in order, and every one of them to its final response."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable

from anywire.errors import AnywireError
from anywire_dds.llama_flow import Flow
from anywire_dds.llama_text import with_request_id
from anywire_dds.llama_types import ChatCompletionResponse, pack
from anywire_dds.writer import Writer
from anywire_gateway_llama_dds.finals import Final, Finals

log = logging.getLogger(__name__)

WAITING_TEXT = 64 * 1024
"""Characters of one answer that wait before its stream is read no further."""


class Answer:
    """What is to be written for one request. ``client`` is whose it is; ``raw_id`` the bytes of its request_id where
    these are no text."""

    def __init__(self, request_id: str, model: str, client: Hashable, raw_id: bytes = b"") -> None:
        self.request_id, self.model, self.client, self.raw_id = request_id, model, client, raw_id
        self.texts: list[str] = []
        self.waiting = 0
        self.final: tuple[str, int, int] | None = None
        self.begun = self.queued = self.over = False
        self.rest: asyncio.TimerHandle | None = None
        self.changed = asyncio.Event()


class Answers:
    """The one writer of responses. First and final responses go before the chunks between."""

    def __init__(
        self, writer: Writer, pause: float, ack_wait: float, interval: float, alone: Callable[[], bool]
    ) -> None:
        self.flow = Flow(writer, pause, ack_wait, self._pump, alone)
        self._finals = Finals(self._repeat)
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._urgent: deque[Answer | Final] = deque()
        self._chunks: deque[Answer] = deque()

    def add(self, answer: Answer, text: str) -> None:
        """A chunk's text; it may travel with what comes before and after."""
        if not text:
            return
        answer.texts.append(text)
        answer.waiting += len(text)
        if not answer.queued and answer.rest is None:
            self._queue(answer)

    def finish(self, answer: Answer, text: str, reason: str, tokens: tuple[int, int] = (0, 0)) -> None:
        """The last of it: ``reason`` is ``stop``, ``length`` or ``error``, ``tokens`` those of the prompt and of the
        answer."""
        if text:
            answer.texts.append(text)
        answer.final = (reason, *tokens)
        if answer.rest is not None:
            answer.rest.cancel()
        if answer.queued and answer in self._chunks:
            self._chunks.remove(answer)
            answer.queued = False
        if not answer.queued:
            self._queue(answer)

    async def room(self, answer: Answer) -> None:
        """Wait until so much of it is written that its stream should be read on."""
        while answer.waiting > WAITING_TEXT and not answer.over:
            answer.changed.clear()
            await answer.changed.wait()

    async def written(self, answer: Answer) -> None:
        """Wait until its final response is written."""
        while not answer.over:
            answer.changed.clear()
            await answer.changed.wait()

    def drop(self, answer: Answer) -> None:
        """Write nothing more of it: its client is gone."""
        answer.over = True
        if answer.rest is not None:
            answer.rest.cancel()
        answer.changed.set()

    def settle(self, client: Hashable) -> None:
        """The client has read everything that was written for it, or is gone."""
        self._finals.settle(client)
        self.flow.settle(client)

    def close(self) -> None:
        self._finals.close()
        self.flow.close()
        self._urgent.clear()
        self._chunks.clear()

    def _queue(self, answer: Answer) -> None:
        answer.queued = True
        (self._chunks if answer.begun and answer.final is None else self._urgent).append(answer)
        self._pump()

    def _pump(self) -> None:
        while (queue := self._urgent or self._chunks) and self.flow.free:
            first = queue[0]
            if isinstance(first, Final):
                if not first.settled and not self._write_again(first):
                    return
                queue.popleft()
                continue
            if not first.over and not self._write(first):
                return
            queue.popleft()
            first.queued = False

    def _write(self, answer: Answer) -> bool:
        text = "".join(answer.texts)
        reason, prompt_tokens, completion_tokens = answer.final or ("", 0, 0)
        ended = answer.final is not None
        response = ChatCompletionResponse(
            answer.request_id, answer.model, text, reason, ended, prompt_tokens, completion_tokens
        )
        try:
            sample = _packed(response)
            if answer.raw_id:
                sample = with_request_id(sample, answer.raw_id)
            if not self.flow.write(sample, answer.client):
                return False
        except AnywireError as error:
            log.error("a response to request %r could not be written: %s", answer.request_id, error)
            self.drop(answer)
            return True
        self._finals.wrote(self.flow.written, Final(sample, answer.client) if ended else None)
        answer.texts.clear()
        answer.waiting = 0
        answer.begun, answer.over = True, ended
        if not ended and self._interval:
            answer.rest = self._loop.call_later(self._interval, self._rested, answer)
        answer.changed.set()
        return True

    def _repeat(self, final: Final) -> None:
        self._urgent.append(final)
        self._pump()

    def _write_again(self, final: Final) -> bool:
        try:
            if not self.flow.write(final.sample, final.client):
                return False
        except AnywireError as error:
            log.error("a final response could not be written again: %s", error)
            return True
        self._finals.wrote(self.flow.written, final)
        return True

    def _rested(self, answer: Answer) -> None:
        answer.rest = None
        if answer.texts and not answer.queued:
            self._queue(answer)


def _packed(response: ChatCompletionResponse) -> bytes:
    # C and C++ readers end a string at its first NUL.
    if "\0" in response.content:
        response.content = response.content.replace("\0", "\N{REPLACEMENT CHARACTER}")
    try:
        return pack(response)
    except ValueError:
        response.content = response.content.encode(errors="replace").decode()  # half a surrogate pair has no UTF-8
        return pack(response)
