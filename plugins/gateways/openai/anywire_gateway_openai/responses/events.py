"""Chunks of an answer as the typed events of a response."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from anywire.errors import AnywireError, StreamCorrupted
from anywire.messages import Chunk
from anywire_gateway_openai.responses.answer import add_chunk, failed_response, whole_response
from anywire_gateway_openai.responses.output import Event, ResponseOutput
from anywire_gateway_openai.responses.request import Object
from anywire_gateway_openai.sse import sse_event

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """Makes the events of one streamed response, numbered from 0. Its last event is left to `completed`, so that the
    answer can be kept before it is told to be whole."""

    def __init__(self, head: Object, task_id: str) -> None:
        self._head, self._output = head, ResponseOutput(task_id)
        self._number = 0
        self._finish = ""
        self.response: Object | None = None
        """The whole response, once the final chunk was read."""

    def events(self, chunks: Sequence[Chunk], model: str) -> bytes:
        """The events of ``chunks``, in order. ``model`` is the one that answers. Raises `StreamCorrupted`."""
        made = self._begin(model)
        for chunk in chunks:
            if self.response is not None:
                raise StreamCorrupted("there is something after the final chunk", phase="streaming")
            events, finish = add_chunk(self._output, chunk)
            made += events
            self._finish = finish or self._finish
            if chunk.final:
                made += self._output.end(self._finish)
                self.response = whole_response(self._head, self._output.items, self._finish, chunk.usage)
        return self._encoded(made)

    def completed(self) -> bytes:
        """The last event of an answer that is whole, or was cut off."""
        response = self.response
        assert response is not None
        return self._encoded([{"type": f"response.{response['status']}", "response": response}])

    def failed(self, error: AnywireError) -> bytes:
        """The last event of a response that cannot go on."""
        response = failed_response(self._head, error, self._output.items)
        # There is no event for a cancelled one: for the client that reads it, it has failed.
        response["status"] = "failed"
        response["error"] = response["error"] or {"code": "server_error", "message": error.message}
        return self._encoded([*self._begin(self._head["model"]), {"type": "response.failed", "response": response}])

    def _begin(self, model: str) -> list[Event]:
        """What stands before everything else."""
        if self._number:
            return []
        self._head["model"] = model
        return [{"type": f"response.{each}", "response": self._head} for each in ("created", "in_progress")]

    def _encoded(self, events: Sequence[Event]) -> bytes:
        out = []
        for event in events:
            numbered = {"type": event["type"], "sequence_number": self._number, **event}
            out.append(sse_event(_encode(numbered), event["type"]))
            self._number += 1
        return b"".join(out)
