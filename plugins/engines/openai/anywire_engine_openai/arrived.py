"""What has arrived of a response, whatever became of its connection."""

from __future__ import annotations

import aiohttp
import msgspec


def left(content: aiohttp.StreamReader) -> bytes:
    """What had arrived of a response when its connection broke, which its reader does not give by itself any more."""
    fault = content.exception()
    if fault is None:
        return b""
    content.set_exception(None)  # type: ignore[arg-type]
    try:
        return content.read_nowait()
    finally:
        content.set_exception(fault)


def is_whole(body: bytes) -> bool:
    """Whether a body that broke off is JSON to its end."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
