"""How a request that came by message is served: begun, answered, told, each remembered, whatever ends in between.

::

    begun      its start is on the disk; killed here, JetStream delivers it again and it is begun again
    elsewhere  another service has it on its disk: the message is acknowledged, the end is awaited
    answered   the answer is on the disk here; killed here, the next process gives it to the outbox
    told       the outbox has it, which publishes it once
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from anywire import errors
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire_service_nats.broker import FAILED, Broker
from anywire_service_nats.config_inbound import InboundConfig
from anywire_service_nats.outgoing import Outgoing, Publisher
from anywire_service_nats.requests.ledger import Ledger
from anywire_service_nats.requests.ledger_file import ANSWERED, BEGUN, Place

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds after which a request is tried again that nobody could take, unless its refusal says when."""
MOST_PUT_OFF, RETRIES_PER_S = 100_000, 50
"""Requests that nobody could take and that are tried again, and how many of them within a second: others are served
between them."""
TWICE_PAUSE = 5.0
"""Seconds after which a request is delivered again that is worked on already, because it was published twice."""
_NOT_YET = (
    errors.QueueFull,
    errors.NoAgent,
    errors.ModelNotFound,
    errors.ModelStopped,
    errors.LimitReached,
    errors.PluginFailed,
)

Work = Callable[[], Awaitable[Outgoing | Place]]
"""Does what is asked: its answer, or who has it from now on. Raises what it was refused with."""
Refused = Callable[[AnywireError], Outgoing]
"""The answer for a request that has failed for good."""


class OtherRequest(Exception):
    """An earlier request with the same key asked for something else."""

    def __init__(self) -> None:
        super().__init__("an earlier request with this id asked for something else: use a new id for each request")


def is_not_yet(error: AnywireError) -> bool:
    """Whether a request that is refused so may be taken later."""
    return isinstance(error, _NOT_YET)


class Serving:
    """Serves requests of one kind, as ``config`` says how often and how long. ``most_open`` bounds those that other
    services run; 0: none are."""

    def __init__(
        self,
        config: InboundConfig,
        ledger: Ledger,
        publisher: Publisher,
        broker: Broker,
        clock: Clock,
        most_open: int = 0,
    ) -> None:
        self._config, self._ledger, self._publisher, self._broker = config, ledger, publisher, broker
        self._clock, self._most_open = clock, most_open
        self.counts: Counter[str] = Counter()
        """Requests by what became of them."""
        self._begun: set[str] = set()
        self._put_off: dict[str, None] = {}
        """Requests that nobody could take when they were tried last."""

    async def serve(
        self, key: str, digest: bytes, work: Work, refused: Refused, reply: str = ""
    ) -> tuple[Place | None, float | None]:
        """Who else has the request, if anybody, and what is to become of its message, as a handler says it. ``digest``
        is of what is asked for: raises `OtherRequest` for another one than at first."""
        if key in self._begun:  # it was published twice: this one waits for what becomes of the other
            return None, TWICE_PAUSE
        self._begun.add(key)
        try:
            return await self._serve(key, digest, work, refused, reply)
        finally:
            self._begun.discard(key)

    async def _serve(
        self, key: str, digest: bytes, work: Work, refused: Refused, reply: str
    ) -> tuple[Place | None, float | None]:
        now = time.time()
        self._put_off.pop(key, None)
        try:
            known = await self._ledger.begin(key, digest, now, self._most_open)
        except (errors.QueueFull, errors.PluginFailed) as error:
            return None, error.retry_after or FIRST_PAUSE
        except asyncio.CancelledError:
            await self._forgive(key)
            raise
        if known.digest != digest:
            self.counts["other_request"] += 1
            raise OtherRequest
        if known.state != BEGUN:
            self.counts["repeated"] += 1
            if known.state == ANSWERED:
                await self.tell(key)
            return None, None
        done: Outgoing | Place
        if known.starts > self._config.max_starts:
            done = refused(
                errors.TaskError(f"the orchestrator was killed {known.starts - 1} times while this was under way")
            )
        else:
            try:
                done = await work()
            except errors.ShuttingDown:
                await self._forgive(key)
                return None, FIRST_PAUSE
            except AnywireError as error:
                if is_not_yet(error) and now - known.received < self._config.keep_trying:
                    await self._forgive(key)
                    return None, self._pause(key, error.retry_after or now - known.received)
                done = refused(error)
            except asyncio.CancelledError:
                await self._forgive(key)
                raise
        if isinstance(done, Place):
            await self._ledger.elsewhere(key, done)
            self.counts["kept"] += 1
            return done, None
        await self.answer(key, done, reply)
        return None, None

    async def answer(self, key: str, answer: Outgoing, reply: str) -> None:
        """Keep and tell the answer of a request, however long the disk and the outbox do not take it."""
        await self._until_done(lambda: self._ledger.answered(key, answer, reply))
        await self.tell(key)

    async def tell(self, key: str) -> None:
        """Give the answer that is kept to the outbox, and to who wants a reply."""
        found = await self._ledger.answer(key)
        if found is None:
            return
        await self._until_done(lambda: self._publisher.put([found.answer]))
        await self._until_done(lambda: self._ledger.told(key, time.time()))
        self.counts[found.answer.subject.rpartition(".")[2]] += 1
        if found.reply:
            await self.reply(found.reply, msgspec.json.encode(found.answer.envelope.payload))

    async def reply(self, subject: str, data: bytes) -> None:
        """Send what a sender waits for. Nobody keeps it: a sender that may be away reads the events."""
        try:
            if len(data) > self._broker.max_payload:
                data = msgspec.json.encode({"error": "the answer is too long for a reply: read the event"})
            await self._broker.client.publish(subject, data)
        except FAILED as error:
            log.debug("a reply was not sent: %r", error)

    def _pause(self, key: str, wished: float) -> float:
        """Seconds until a request is tried again that nobody could take, the more the more of them there are."""
        self._put_off[key] = None
        if len(self._put_off) > MOST_PUT_OFF:
            del self._put_off[next(iter(self._put_off))]
        return max(FIRST_PAUSE, min(wished, LONGEST_PAUSE), len(self._put_off) / RETRIES_PER_S)

    async def _forgive(self, key: str) -> None:
        """Take back a start, also when who awaits this is cancelled: this orchestrator ends in good order."""
        await asyncio.shield(asyncio.ensure_future(self._ledger.forgive(key)))

    async def _until_done(self, do: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await do()
                return
            except (errors.QueueFull, errors.PluginFailed) as error:
                log.debug("the answer of a request is not told yet: %s", error)
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
