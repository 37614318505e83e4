"""What a server answers to one request."""

from __future__ import annotations

import asyncio

from anywire_engine_openai.http.codings import Decoder, decoders
from anywire_engine_openai.http.connection import Connection, Head
from anywire_engine_openai.http.faults import NoHttp


class Answer:
    """Its status and ``headers`` (names in lower case), and its body as it arrives: ``read`` is `Connection.read`, of
    what the server's ``Content-Encoding`` stands for. To be left once it was read (`Connection.leave`), or closed."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.status, self.headers = head.status, head.fields
        self.leave, self.close = connection.leave, connection.close
        self.read = connection.read
        make = decoders().get(self.header("content-encoding").strip().lower())
        if make is not None:
            self.read = _Decoded(connection, make()).read

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        """Without its parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()


class _Decoded:
    """The body of an answer in a coding. Beside the answer, which would be in a cycle with its own method."""

    def __init__(self, connection: Connection, decoder: Decoder) -> None:
        self._connection, self._decoder = connection, decoder
        self._may_have_more, self._is_empty = False, True

    async def read(self, limit: float) -> bytes:
        while True:
            if self._may_have_more:  # few bytes may stand for many, and others are to get their turns between these
                await asyncio.sleep(0)
            try:
                piece = self._decoder.take()
            except Exception as error:
                raise NoHttp(f"its answer is not encoded as it says: {error}") from error
            self._may_have_more = bool(piece)
            if piece:
                return piece
            data = await self._connection.read(limit)
            if data:
                self._is_empty = False
                self._decoder.give(data)
            elif self._decoder.has_ended or self._is_empty:
                return b""
            else:
                raise NoHttp("the encoding of its answer has no end")
