"""One message of a durable consumer, from its delivery until it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from anywire_nats.client import ENDED

_GONE = (*ENDED, TimeoutError)


class Held:
    """What was delivered. Acknowledging it may fail with its connection: it is delivered again then, and whoever
    handles it must know it by its `key` or by what it says."""

    def __init__(self, message: Any) -> None:
        metadata = message.metadata
        self.subject: str = message.subject
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self.stream: str = metadata.stream
        self.sequence: int = metadata.sequence.stream
        self.at: float = metadata.timestamp.timestamp()
        """Unix time in seconds at which the stream took it."""
        self.pending: int = metadata.num_pending
        """How many further messages waited for this consumer."""
        self._message: Any = message

    @property
    def key(self) -> tuple[str, int]:
        return self.stream, self.sequence

    def delivered_again(self, message: Any) -> None:
        """Acknowledge it by this delivery: the one before has run out."""
        self._message = message

    async def acknowledge(self) -> None:
        with suppress(*_GONE):
            await self._message.ack()

    async def give_back(self, seconds: float = 0.0) -> None:
        """Have it delivered again, after ``seconds``."""
        with suppress(*_GONE):
            await self._message.nak(seconds or None)

    async def keep(self) -> None:
        """Say that it is being worked on, so that nobody else gets it."""
        with suppress(*_GONE, nats.errors.MsgAlreadyAckdError):
            await self._message.in_progress()


def status_of(message: Msg) -> str:
    """What the server says about a request for messages; empty for a message of a stream."""
    return str((message.headers or {}).get("Status", "")) if not message.data else ""
