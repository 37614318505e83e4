"""The size of a message: one definition for every transport, whatever its encoding adds."""

from __future__ import annotations

from typing import Any

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import MAX_DELTAS, Chunk, Command, CommandResult, Progress, TaskRequest


def payload_bytes(message: Any) -> int:
    """Bytes of the texts of a message in UTF-8: of a `TaskRequest` its body, its hints and what it resumes, of a
    `Chunk` its deltas, ``extra``, ``usage`` and ``error``, of a `Command` its arguments, of a `CommandResult` its data
    and error, of a `Progress` its detail. Names and ids do not count; 0 for every other message, which are small.

    Raises `TransportError` for text that is no valid Unicode, and for what is no text.
    """
    try:
        return sum(len(text) if text.isascii() else len(text.encode()) for text in _texts(message))
    except UnicodeEncodeError as error:
        raise TransportError(f"text of a {type(message).__name__} is no valid Unicode: {error}") from error
    except (AttributeError, TypeError) as error:
        raise _no_text(message, error) from error


def check_payload(message: Any, limit: int) -> int:
    """The message's `payload_bytes`. Raises `PayloadTooLarge` for more than ``limit``, or for a `Chunk` of more than
    `MAX_DELTAS` deltas, and what `payload_bytes` raises.

    Text in ASCII, which most is, costs a look at its length.
    """
    size = 0
    try:
        if (
            type(message) is Chunk
            and len(message.deltas) == 1
            and not (message.extra or message.usage or message.error)
        ):
            only = message.deltas[0]  # most of all messages
            if only.isascii() and len(only) <= limit:
                return len(only)
        for text in _texts(message):
            if not text.isascii():
                size = payload_bytes(message)
                break
            size += len(text)
    except (AttributeError, TypeError) as error:
        raise _no_text(message, error) from error
    if size > limit:
        check_payload_bytes(size, limit)
    return size


def check_payload_bytes(size: int, limit: int) -> None:
    """As `check_payload`, for a message that has been measured."""
    if size > limit:
        raise PayloadTooLarge(
            f"the message has {size} bytes of payload, the limit is {limit}: raise max_message_bytes at both ends"
        )


def _no_text(message: Any, error: Exception) -> TransportError:
    return TransportError(f"a {type(message).__name__} has something else where its text should be: {error}")


def _texts(message: Any) -> tuple[str, ...]:
    if isinstance(message, Chunk):
        if len(message.deltas) > MAX_DELTAS:
            raise PayloadTooLarge(f"the chunk has {len(message.deltas)} deltas, the limit is {MAX_DELTAS}")
        return (*message.deltas, message.extra, message.usage, message.error)
    if isinstance(message, TaskRequest):
        return (message.body, message.resume, message.hints)
    if isinstance(message, CommandResult):
        return (message.data, message.error)
    if isinstance(message, Command):
        return (message.arguments,)
    return (message.detail,) if isinstance(message, Progress) else ()
