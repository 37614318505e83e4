"""What is to be published, and who takes it: the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from anywire_service_nats.envelopes import Envelope


class Outgoing(msgspec.Struct, frozen=True):
    """``envelope`` is published to ``subject``, with ``envelope.id`` as its ``Nats-Msg-Id``. Those of one ``order`` (a
    task's or deliberation's id) arrive in the order in which they were given; others may overtake them."""

    subject: str
    envelope: Envelope
    order: str = ""


class Publisher(Protocol):
    """Publishes each message once, however often it is given: ``envelope.id`` is what counts."""

    async def put(self, messages: Sequence[Outgoing]) -> None:
        """Keep them, all or none: when this returns they are on the disk, and are published as soon as JetStream can
        be reached, also by the next process. Raises `anywire.errors.QueueFull` when the outbox has no room (nothing is
        kept then), and `anywire.errors.PluginFailed` when the disk fails."""
        ...
