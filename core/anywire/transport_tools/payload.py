"""The size of a message: one definition for every transport, whatever its encoding adds."""

from __future__ import annotations

from typing import Any

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import Chunk, TaskRequest


def payload_bytes(message: Any) -> int:
    """Bytes of the texts of a message in UTF-8: of a `TaskRequest` its body and what it resumes, of a `Chunk` its
    deltas, ``extra``, ``usage`` and ``error``; 0 for every other message, which are small.

    Raises `TransportError` for text that is no valid Unicode.
    """
    try:
        return sum(len(text) if text.isascii() else len(text.encode()) for text in _texts(message))
    except UnicodeEncodeError as error:
        raise TransportError(f"text of a {type(message).__name__} is no valid Unicode: {error}") from error


def check_payload(message: Any, limit: int) -> int:
    """The message's `payload_bytes`. Raises `PayloadTooLarge` for more than ``limit``, and what `payload_bytes` raises.

    Text in ASCII, which most is, costs a look at its length.
    """
    size = 0
    for text in _texts(message):
        if not text.isascii():
            size = payload_bytes(message)
            break
        size += len(text)
    if size > limit:
        check_payload_bytes(size, limit)
    return size


def check_payload_bytes(size: int, limit: int) -> None:
    """As `check_payload`, for a message that has been measured."""
    if size > limit:
        raise PayloadTooLarge(
            f"the message has {size} bytes of payload, the limit is {limit}: raise max_message_bytes at both ends"
        )


def _texts(message: Any) -> tuple[str, ...]:
    if isinstance(message, Chunk):
        return (*message.deltas, message.extra, message.usage, message.error)
    return (message.body, message.resume) if isinstance(message, TaskRequest) else ()
