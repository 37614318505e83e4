"""Chunks of an answer as the events of a streamed message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from anywire.errors import AnywireError, StreamCorrupted
from anywire.messages import Chunk
from anywire_gateway_openai.anthropic.answer import Ending, add_chunk, message_head, stop_of, usage_of
from anywire_gateway_openai.anthropic.blocks import Event, MessageBlocks
from anywire_gateway_openai.anthropic.error_form import ANTHROPIC_FORM
from anywire_gateway_openai.sse import sse_event, stages_comment

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
"""What keeps a silent stream alive in this API."""

_encode = msgspec.json.Encoder().encode


class MessageEvents:
    """Makes the events of one streamed message; ``ended`` once the last one is made."""

    def __init__(self, task_id: str, stop_sequences: Sequence[str]) -> None:
        self.ended = False
        self._task_id, self._stop_sequences = task_id, stop_sequences
        self._blocks = MessageBlocks(task_id)
        self._begun = False
        self._ending = Ending()

    def events(self, chunks: Sequence[Chunk], model: str, spans_ms: Mapping[str, float] | None = None) -> bytes:
        """The events of ``chunks``, in order. ``model`` is the one that answers. With the final chunk everything that
        ends the stream, and ``spans_ms`` as a comment before the last event unless they are None. Raises
        `StreamCorrupted`."""
        made: list[Event] = []
        if not self._begun:
            self._begun = True
            made.append({"type": "message_start", "message": message_head(self._task_id, model)})
        closing = b""
        for chunk in chunks:
            if self.ended:
                raise StreamCorrupted("there is something after the final chunk", phase="streaming")
            events, ending = add_chunk(self._blocks, chunk)
            made += events
            self._ending = Ending(ending.reason or self._ending.reason, ending.stop or self._ending.stop)
            if chunk.final:
                self.ended = True
                made += self._blocks.end()
                stop = stop_of(self._blocks, self._ending, self._stop_sequences)
                made.append({"type": "message_delta", "delta": stop, "usage": usage_of(chunk.usage)})
                comment = stages_comment(spans_ms) if spans_ms is not None else b""
                closing = comment + _event({"type": "message_stop"})
        return b"".join([*map(_event, made), closing])


def failed(error: AnywireError) -> bytes:
    """The event that ends a stream that cannot go on."""
    return sse_event(ANTHROPIC_FORM.body(error), "error")


def _event(event: Event) -> bytes:
    return sse_event(_encode(event), event["type"])
