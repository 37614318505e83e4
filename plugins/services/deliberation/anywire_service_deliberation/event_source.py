"""Reads server-sent events as they come over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from anywire.route import ServerSentEvent

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Bytes of one event; a longer one is none of a deliberation."""


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of a ``text/event-stream``. Comments, and an event that breaks off, are passed over. Raises ValueError
    for one that is longer than `MAX_EVENT_BYTES`."""
    rest, name, number, data, size = b"", "", "", list[str](), 0
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) + size > MAX_EVENT_BYTES:
            raise ValueError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            size += len(line)
            field, _, value = line.removesuffix(b"\r").decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            match field:
                case "event":
                    name = value
                case "id":
                    number = value
                case "data":
                    data.append(value)
                case "" if not line.strip():
                    if data:
                        yield ServerSentEvent("\n".join(data), name, number)
                    name, number, data, size = "", "", [], 0
