"""Messages that nobody here understands: acknowledged, counted, told, and kept under a subject of their own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable

from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.metric import Metric
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire_service_nats.envelopes import Envelope
from anywire_service_nats.listening.held import Held
from anywire_service_nats.outgoing import Outgoing, Publisher
from anywire_service_nats.subjects import DEAD_LETTER

log = logging.getLogger(__name__)

MAX_RAW_BYTES = 64 * 1024
"""Bytes of a message that are kept of it."""
MAX_REASON_CHARS = 500
PAUSE = 5.0
"""Seconds after which one is delivered again that cannot be kept now."""
EVENT = "message.not_understood"


class DeadLetters:
    """``source`` is the service's name, for events."""

    def __init__(self, publisher: Publisher, events: EventBus, producer: str, source: str) -> None:
        self._publisher, self._events, self._producer, self._source = publisher, events, producer, source
        self._counts: Counter[str] = Counter()
        self._once = OnceLog(log)

    async def keep(self, held: Held, reason: str, part: str) -> float | None:
        """What is to become of the message, as a handler says it. ``part`` is who has read it."""
        reason = printable(reason, MAX_REASON_CHARS)
        try:
            await self._publisher.put([self._outgoing(held, reason)])
        except AnywireError as error:
            log.debug("a message that is not understood cannot be kept yet: %s", error)
            return PAUSE
        self._counts[part] += 1
        subject = printable(held.subject, 200)
        self._once.warn((part, reason), "a message to %s is not understood, and is passed over: %s", subject, reason)
        told = {"part": part, "subject": subject, "stream": held.stream, "sequence": held.sequence, "reason": reason}
        self._events.publish_plugin(self._source, EVENT, told)
        return None

    def metrics(self) -> Iterable[Metric]:
        for part, count in self._counts.items():
            text = "Messages that were not understood, and passed over."
            yield Metric("not_understood", text, count, {"part": part}, counter=True)

    def _outgoing(self, held: Held, reason: str) -> Outgoing:
        # A stream of the same name that was made anew counts from the beginning: the time tells them apart.
        message_id = f"deadletter:{held.stream}:{held.sequence}:{round(held.at * 1000)}"
        raw = held.data[:MAX_RAW_BYTES].decode(errors="replace")
        payload = {"topic": held.subject, "reason": reason, "raw": raw}
        envelope = Envelope(
            type=DEAD_LETTER,
            id=message_id,
            correlation=message_id,
            time=time.time(),
            payload=payload,
            producer=self._producer,
        )
        return Outgoing(DEAD_LETTER, envelope)
