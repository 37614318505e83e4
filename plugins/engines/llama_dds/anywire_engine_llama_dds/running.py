"""Requests under way at a server, and what has come back of each."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque

from anywire.engine import Delta
from anywire.errors import (
    AnywireError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelStopped,
    PayloadTooLarge,
)
from anywire_dds.llama_types import ChatCompletionRequest, ChatCompletionResponse, read_error

_CLIENTS_FAULT = {InvalidRequest: 400, ModelNotFound: 404, ModelStopped: 409, PayloadTooLarge: 413}
"""The errors that the request is to blame for, and their HTTP status."""


class Running:
    """One request, asked once or several times, each time with an id of its own in ``request_ids``. ``owner`` is the
    writer of its first response, and ``answered_as`` the id that this has: nothing else is heard. ``is_written``
    tells that it waits for the server, and no more for room to be written. ``ended``: no more comes."""

    def __init__(self, request: ChatCompletionRequest) -> None:
        self.request = request
        self.request_ids: list[str] = []
        self.is_written = False
        self.owner = 0
        self.answered_as = ""
        self.ended = False
        self._responses: deque[ChatCompletionResponse] = deque()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._error: AnywireError | None = None
        self._changed = asyncio.Event()

    def push(self, response: ChatCompletionResponse, content: bytes = b"") -> None:
        """``content`` are the bytes of the response's text where they are no text: its characters may begin in one
        response and end in the next."""
        if content and self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if self._decoder is not None:
            response.content = self._decoder.decode(content or response.content.encode(), response.is_final)
        self._responses.append(response)
        self.ended = response.is_final
        self._changed.set()

    def fail(self, error: AnywireError) -> None:
        self._error = error
        self.ended = True
        self._changed.set()

    async def next(self) -> ChatCompletionResponse:
        """Raises what `fail` was told, after what came before."""
        while not self._responses:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._responses.popleft()


def last_delta(response: ChatCompletionResponse, begun: bool) -> Delta:
    """The delta of a final response. Raises what it says, or `EngineFailed` for an answer without any token."""
    found = read_error(response)
    if found is not None:
        code, message = found
        status = next((status for kind, status in _CLIENTS_FAULT.items() if kind.code == code), 0)
        if status:
            raise InvalidRequest(message, status=status, detail_code=code, origin="engine")
        raise EngineFailed(f"the server says {code}: {message}" if code else f"the server says: {message}")
    if not begun and not response.content and not response.completion_tokens:
        raise EngineFailed("the server's answer has no token")
    total = response.prompt_tokens + response.completion_tokens
    usage = (
        f'{{"prompt_tokens":{response.prompt_tokens},"completion_tokens":{response.completion_tokens},'
        f'"total_tokens":{total}}}'
        if total
        else ""
    )
    return Delta(response.content, finish_reason=response.finish_reason or "stop", usage=usage)
