"""What is to be published, and who takes it: the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from anywire_service_nats.envelopes import Envelope


class Outgoing(msgspec.Struct, frozen=True):
    """``envelope`` is published to ``subject``, with ``envelope.id`` as its ``Nats-Msg-Id``.

    Those of one ``order`` (a task's or deliberation's id) arrive in the order in which they were given; others may
    overtake them. ``instead`` (a subject and an envelope) is published in its place where the server does not take a
    message as large as it is; without it such a message is refused.
    """

    subject: str
    envelope: Envelope
    order: str = ""
    instead: tuple[str, Envelope] | None = None


class Publisher(Protocol):
    """Publishes each message once, however often it is given: ``envelope.id`` is what counts."""

    async def put(self, messages: Sequence[Outgoing]) -> None:
        """Keep them, all or none: when this returns they are on the disk, and are published as soon as JetStream can
        be reached, also by the next process. One whose id waits already, or was published lately, is passed over.
        Raises `anywire.errors.QueueFull` when the outbox has no room (nothing is kept then),
        `anywire.errors.PluginFailed` when the disk fails, and ValueError for what the form of messages cannot hold."""
        ...
