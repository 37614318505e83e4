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
    """Raises `PayloadTooLarge` for more than ``limit`` bytes of payload, and what `payload_bytes` raises.

    Returns what was counted: bytes, or characters where these few are within the limit in any case. So small messages
    cost nothing to speak of: text is encoded to be measured only when it might be too long.
    """
    if type(message) is Chunk:
        size = len(message.extra) + len(message.usage) + len(message.error)
        for text in message.deltas:
            size += len(text)
    else:
        size = sum(map(len, _texts(message)))
    # A character has 4 bytes at most.
    if size * 4 > limit:
        size = payload_bytes(message)
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
