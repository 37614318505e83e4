"""What a server answers to one request."""

from __future__ import annotations

from anywire_engine_openai.http.codings import decoders
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
            self._connection, self._decoder = connection, make()
            self.read = self._read_decoded

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        """Without its parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()

    async def _read_decoded(self, limit: float) -> bytes:
        while True:
            try:
                piece = self._decoder.take()
            except Exception as error:
                raise NoHttp(f"its answer is not encoded as it says: {error}") from error
            if piece:
                return piece
            data = await self._connection.read(limit)
            if data:
                self._decoder.give(data)
            elif self._decoder.has_ended:
                return b""
            else:
                raise NoHttp("the encoding of its answer has no end")
