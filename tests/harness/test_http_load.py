"""The load client ends with what a server refuses, and does not wait for a stream that never comes."""

from __future__ import annotations

import asyncio

import pytest
from tests.patience import PATIENCE

from http_load import load


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_ends_the_load(stream: bool) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(PATIENCE):
                await load(f"http://127.0.0.1:{port}", clients=1, requests=1, stream=stream, key="k-1")
    assert "401 Unauthorized" in str(caught.value.exceptions[0])
    assert b"Authorization: Bearer k-1\r\n" in asked[0]
