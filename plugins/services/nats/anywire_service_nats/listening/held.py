"""One message of a durable consumer, from its delivery until it is acknowledged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

ACKNOWLEDGED, IN_PROGRESS = b"+ACK", b"+WPI"
"""What is said of a message to the subject that its delivery names."""


Key: TypeAlias = tuple[str, int, float]
"""What tells a message from all others: a stream that was made anew counts from the beginning."""


def again(seconds: float) -> bytes:
    """That it is to be delivered again after ``seconds``."""
    return b"-NAK " + json.dumps({"delay": int(seconds * 1e9)}).encode() if seconds > 0 else b"-NAK"


class Held:
    """What was delivered. Acknowledging it may fail with its connection: it may be delivered again then, and whoever
    handles it must know it by what it says."""

    def __init__(self, message: Any) -> None:
        metadata = message.metadata
        self.subject: str = message.subject
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self.stream: str = metadata.stream
        self.sequence: int = metadata.sequence.stream
        self.at: float = metadata.timestamp.timestamp()
        """Unix time in seconds at which the stream took it."""
        self.deliveries: int = metadata.num_delivered or 1
        """How often it was delivered, this time too."""
        self.pending: int = metadata.num_pending
        """How many further messages waited for this consumer."""
        self.reply: str = message.reply
        """The subject for what is said of it; another one once it was delivered again."""

    @property
    def key(self) -> Key:
        return self.stream, self.sequence, self.at


def status_of(message: Any) -> str:
    """What the server says about a request for messages; empty for a message of a stream, whatever headers its sender
    gave it: such a message alone has a subject to which it is acknowledged."""
    return "" if message.reply else str((message.headers or {}).get("Status", "")) or "unknown"
