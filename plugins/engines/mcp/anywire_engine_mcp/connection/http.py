"""Streamable HTTP to a server at a URL, with answers of bounded size."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2
from mcp.client._transport import TransportStreams  # the package has no public name for it
from mcp.client.streamable_http import streamable_http_client

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes of one answer that is no stream of events; of an event, the SDK takes 1 MiB."""
CONNECT_TIMEOUT = 10.0  # seconds

log = logging.getLogger(__name__)


@asynccontextmanager
async def http_streams(url: str, headers: Mapping[str, str], timeout: float) -> AsyncGenerator[TransportStreams]:
    """``timeout`` is in seconds: how long the server may be silent while an answer is awaited."""
    local = httpx2.URL(url).host in ("localhost", "::1") or httpx2.URL(url).host.startswith("127.")
    async with (
        httpx2.AsyncClient(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(CONNECT_TIMEOUT, read=timeout),
            trust_env=not local,
            event_hooks={"response": [_bound]},
        ) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


async def _bound(response: httpx2.Response) -> None:
    if (encoding := response.headers.get("content-encoding", "identity")).lower() != "identity":
        # A few bytes would become a gigabyte.
        log.warning("%s compresses its answers, unasked: they are not read", response.url.host)
        raise httpx2.DecodingError(f"the server compresses ({encoding[:32]}), unasked", request=response.request)
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        response.stream = _Bounded(response)


class _Bounded(httpx2.AsyncByteStream):
    """The stream of a response, which breaks where it gets too long."""

    def __init__(self, response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream, self._request = response.stream, response.request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise httpx2.ReadError(f"the answer has more than {MAX_ANSWER_BYTES} bytes", request=self._request)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
