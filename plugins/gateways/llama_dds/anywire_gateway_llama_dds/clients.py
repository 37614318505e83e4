"""The clients known now: whose a request is, and whether somebody reads the answer.

A request names its writer only. Its client is the DDS participant of that writer, and is there as long as that
participant has a reader of responses.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Hashable

from anywire_dds.llama_ends import Endpoint, LlamaEnds
from anywire_dds.llama_types import REQUEST_TOPIC, RESPONSE_TOPIC


class Clients:
    """``gone(client)`` is called when the last reader of responses of a client went."""

    def __init__(self, ends: LlamaEnds, gone: Callable[[uuid.UUID], None]) -> None:
        self._gone = gone
        self._writers: dict[int, Endpoint] = {}
        self._readers: dict[int, uuid.UUID] = {}
        self._came = asyncio.Event()
        self._look_for_writers = ends.watch("writers", REQUEST_TOPIC, self._writer)
        self._look_for_readers = ends.watch("readers", RESPONSE_TOPIC, self._reader)

    def writer(self, handle: int) -> tuple[Hashable, uuid.UUID | None]:
        """What names the writer of a sample in all its life, and its client; the latter None when the writer is gone
        again."""
        if handle not in self._writers:
            self._look_for_writers()
        found = self._writers.get(handle)
        return (found.key, found.participant) if found is not None else (handle, None)

    def readers(self, client: uuid.UUID) -> int:
        """How many readers of responses it has."""
        return sum(each == client for each in self._readers.values())

    @property
    def count(self) -> int:
        """How many clients there are."""
        return len(set(self._readers.values()))

    async def reading(self, client: uuid.UUID) -> None:
        """Wait until it has a reader of responses: that one may be heard of later than its request."""
        if not self.readers(client):
            self._look_for_readers()
        while not self.readers(client):
            self._came.clear()
            await self._came.wait()

    def _writer(self, endpoint: Endpoint) -> None:
        if endpoint.alive:
            self._writers[endpoint.handle] = endpoint
        else:
            self._writers.pop(endpoint.handle, None)

    def _reader(self, endpoint: Endpoint) -> None:
        if endpoint.participant is not None:
            self._readers[endpoint.handle] = endpoint.participant
            self._came.set()
            return
        client = self._readers.pop(endpoint.handle, None)
        if client is not None and not self.readers(client):
            self._gone(client)
