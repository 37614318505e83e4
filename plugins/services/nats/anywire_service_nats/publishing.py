"""Gives JetStream what waits in the outbox: each message once, those of one order one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec
import nats.errors
import nats.js.errors

from anywire.clock import Clock
from anywire.errors import TransportUnavailable
from anywire.metric import Metric
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire_service_nats.broker import Broker, JetStream
from anywire_service_nats.envelopes import ID_HEADER
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.outbox_tables import Unsettled, Waiting
from anywire_service_nats.part import Part
from anywire_service_nats.streams import NoStream, Streams

log = logging.getLogger(__name__)

MOST_TOGETHER, MOST_BYTES = 512, 4 * 1024 * 1024
"""Messages, and their bytes, that are given to JetStream before their acknowledgements are written down."""
MOST_UNSETTLED = 10_000
"""Messages that are searched for at once."""
MOST_SKEW = 300.0
"""Seconds by which the clocks of orchestrators and servers may differ."""
AT_ONCE = 128
"""Messages that are under way at once."""
FIRST_HOLD, LONGEST_HOLD = 0.5, 30.0
"""Seconds until a stream that takes nothing is tried again: at first, and at most."""
LAST_SECONDS = 1.0
"""Seconds that what waits has for being published at the end; what is left then is published by the next process."""

TOO_LARGE = 10054
"""JetStream's code for a message over ``max_msg_size``."""

Fate = Literal["acknowledged", "large", "never", "later", "denied", "unknown"]
Wave = list[Waiting]


class Hold(msgspec.Struct):
    """A stream takes nothing until ``until`` (of the clock)."""

    until: float
    pause: float


class Publishing(Part):
    """Publishes what is in ``outbox`` over each connection of ``broker``. ``make_streams`` makes what is known of the
    streams of a connection; ``refused`` is told the id and subject of each message that can never be published, and
    why.

    A message is written down as sent before it is, and removed once JetStream has acknowledged it. Where a connection
    ends in between, the next one looks first whether the stream has it: it is not sent again then, however long ago
    that was. What the stream has dropped in the meantime cannot be found, and is sent again.
    """

    def __init__(
        self,
        outbox: Outbox,
        broker: Broker,
        clock: Clock,
        make_streams: Callable[[JetStream], Streams],
        refused: Callable[[str, str, str], object],
    ) -> None:
        self._outbox, self._broker, self._clock = outbox, broker, clock
        self._make_streams, self._refused = make_streams, refused
        self._done: list[Waiting | Unsettled] = []  # acknowledged, and not yet written down
        self._holds: dict[str, Hold] = {}  # by subject
        self._empty = asyncio.Event()
        self._once = OnceLog(log)
        self.published: dict[str, int] = defaultdict(int)
        """Messages that JetStream has acknowledged, by subject."""
        self.failed = 0
        """Messages that can never be published."""
        self.found = 0
        """Messages of which it was not known whether they were published, and that their stream had."""

    async def start(self) -> None:
        self._broker.each_connection(self._publish)

    async def close(self) -> None:
        """Give what waits a moment to be published."""
        if self._broker.connected and self._outbox.messages:
            self._empty.clear()
            self._outbox.filled.set()
            try:
                async with asyncio.timeout(LAST_SECONDS):
                    await self._empty.wait()
            except TimeoutError:
                log.info("%d messages are published by the next process", self._outbox.messages)

    def metrics(self) -> Iterator[Metric]:
        outbox = self._outbox
        text = "Messages in the outbox that JetStream has not acknowledged."
        yield Metric("waiting_messages", text, outbox.messages)
        yield Metric("waiting_bytes", "Bytes of those messages.", outbox.bytes)
        yield Metric("behind_seconds", "Seconds since the outbox was empty.", outbox.behind)
        yield Metric("held_subjects", "Subjects whose stream takes nothing now.", len(self._held()))
        for subject, count in self.published.items():
            text = "Messages that JetStream has acknowledged."
            yield Metric("published_messages", text, count, {"subject": subject}, counter=True)
        text = "Messages of which it was not known whether they were published, and that their stream had."
        yield Metric("found_messages", text, self.found, counter=True)
        yield Metric("failed_messages", "Messages that can never be published.", self.failed, counter=True)

    # Over one connection

    async def _publish(self, jetstream: JetStream) -> None:
        streams = self._make_streams(jetstream)
        self._holds.clear()
        await self._outbox.doubt(streams.window / 2)
        self._outbox.uncertain = True
        while True:
            self._outbox.filled.clear()
            if self._outbox.uncertain:
                await self._settle(jetstream, streams)
            held = self._held()
            batch = await self._step(held, MOST_TOGETHER, MOST_BYTES)
            if batch:
                await self._send(batch, jetstream, streams)
                continue
            if not self._outbox.messages:
                self._empty.set()
            await self._wait(held)

    async def _step(self, held: Sequence[str], most: int, most_bytes: int) -> list[Waiting]:
        """Write down what is done, and get what is next. It stays known as done until it is written: this may be
        cancelled with the connection."""
        done = list(self._done)
        batch = await self._outbox.step(done, held, most, most_bytes)
        del self._done[: len(done)]
        return batch

    async def _wait(self, held: Sequence[str]) -> None:
        """Until something was put, or one of the subjects that were held is to be tried again."""
        until = min((self._holds[subject].until for subject in held), default=None)
        try:
            async with asyncio.timeout(None if until is None else max(0.01, until - self._clock.now())):
                await self._outbox.filled.wait()
        except TimeoutError:
            pass

    async def _send(self, batch: Sequence[Waiting], jetstream: JetStream, streams: Streams) -> None:
        ready = await self._ready(batch, streams)
        if not ready:
            return
        places = {each.subject: await streams.of(each.subject) for each in ready}
        numbers = {subject: (found.name, found.newest) for subject, found in places.items()}
        await self._outbox.mark(ready, numbers, time.time())
        left = {each.number for each in ready}
        blocked: set[str] = set()
        unknown: BaseException | None = None
        for wave in _waves(ready):
            held = self._held()  # by what was sent before it, too
            blocked |= {each.ordered for each in wave if each.ordered and each.subject in held}
            going = [each for each in wave if each.subject not in held and each.ordered not in blocked]
            results = await asyncio.gather(*(_publish(jetstream, each) for each in going), return_exceptions=True)
            for message, result in zip(going, results, strict=True):
                fate = _fate(result)
                if fate == "unknown" and isinstance(result, TimeoutError) and self._broker.denies(message.subject):
                    fate = "denied"
                if fate == "unknown":
                    unknown = result if isinstance(result, BaseException) else None
                elif fate == "acknowledged":
                    left.discard(message.number)
                    found = places[message.subject]
                    found.newest = max(found.newest, getattr(result, "seq", 0))
                    self._published(message)
                else:
                    waits = await self._not_taken(message, fate, str(result), streams)
                    if waits and message.ordered:
                        blocked.add(message.ordered)
            if unknown is not None:
                raise unknown
        left -= {each.number for each in self._done}
        if left:
            await self._outbox.unmark(sorted(left))

    async def _ready(self, batch: Sequence[Waiting], streams: Streams) -> list[Waiting]:
        """Those that have a stream, each as the server takes it."""
        ready = []
        limit = self._broker.max_payload
        if not limit:
            raise TransportUnavailable(self._broker.away)  # the connection has just ended
        for each in batch:
            message = each
            if message.content.size > limit:
                smaller = self._smaller(message)
                if smaller is None or smaller.content.size > limit:
                    self._give_up(message, f"it has {message.content.size} bytes, and the server takes {limit}")
                    continue
                await self._outbox.replace(smaller)
                message = smaller
            if message.subject in self._held():
                continue
            try:
                await streams.of(message.subject)
            except NoStream as error:
                self._hold(message.subject, str(error), streams)
            else:
                ready.append(message)
        held = self._held()
        return [each for each in ready if each.subject not in held]

    async def _not_taken(self, message: Waiting, fate: Fate, why: str, streams: Streams) -> bool:
        """JetStream has said that it does not keep it. Whether it waits, and what is to come after it too."""
        smaller = self._smaller(message) if fate == "large" else None
        if smaller is not None:
            await self._outbox.replace(smaller)
        elif fate in ("large", "never"):
            self._give_up(message, why)
            return False
        elif fate == "denied":
            # Each further try would cost all others the time in which no answer comes.
            why = f"the NATS server does not let this service publish to {message.subject} (permissions violation)"
            self._holds[message.subject] = Hold(self._clock.now() + LONGEST_HOLD, LONGEST_HOLD)
            self._once.warn(why, "%s; what is for it waits", why)
        else:
            self._hold(message.subject, f"the stream of {message.subject} takes nothing now ({why})", streams)
            streams.forget(message.subject)
        return True

    @staticmethod
    def _smaller(message: Waiting) -> Waiting | None:
        if message.instead is None:
            return None
        subject = message.instead.subject
        return msgspec.structs.replace(message, subject=subject, content=message.instead, instead=None)

    def _published(self, message: Waiting) -> None:
        self._done.append(message)
        self.published[message.subject] += 1
        if self._holds and self._holds.pop(message.subject, None) is not None:
            self._once.reset()
            log.info("the stream of %s takes messages again", message.subject)

    def _give_up(self, message: Waiting, why: str) -> None:
        self._done.append(message)
        self.failed += 1
        why = printable(why, 300)
        self._once.warn(message.subject, "a message to %s is not published: %s", message.subject, why)
        self._refused(message.id, message.subject, why)

    def _hold(self, subject: str, why: str, streams: Streams) -> None:
        """Try nothing more with the stream of ``subject`` for a while."""
        self._once.warn(why, "%s; what is for it waits", printable(why, 500))
        before = self._holds.get(subject)
        pause = FIRST_HOLD if before is None else min(2 * before.pause, LONGEST_HOLD)
        for each in streams.sharing(subject):
            self._holds[each] = Hold(self._clock.now() + pause, pause)

    def _held(self) -> list[str]:
        now = self._clock.now()
        return [subject for subject, hold in self._holds.items() if hold.until > now]

    # Of what is not known whether it was published

    async def _settle(self, jetstream: JetStream, streams: Streams) -> None:
        """Find out of what was sent without an acknowledgement, or by another process, whether the stream has it."""
        known = {each.number for each in self._done}
        self._outbox.uncertain = False
        while unsettled := await self._outbox.unsettled(MOST_UNSETTLED):
            groups: dict[tuple[str, str], list[Unsettled]] = defaultdict(list)
            for each in unsettled:
                groups[each.stream, each.subject].append(each)
            absent: list[int] = []
            for (stream, subject), messages in groups.items():
                wanted = {each.id for each in messages if each.number not in known}
                found = await _found(jetstream, streams, stream, subject, messages, wanted) if wanted else set()
                for each in messages:
                    if each.id in found:
                        self.found += 1
                        self.published[subject] += 1
                        self._done.append(each)
                    elif each.number not in known:
                        absent.append(each.number)
            await self._step((), 0, 0)
            await self._outbox.unmark(absent)


async def _publish(jetstream: JetStream, message: Waiting) -> Any:
    content = message.content
    return await jetstream.publish(content.subject, content.body, headers=dict(content.heads))


def _fate(result: Any) -> Fate:
    """What came of a message: ``unknown`` where the connection has ended, or nothing was heard."""
    match result:
        case nats.errors.MaxPayloadError():
            return "large"
        case nats.js.errors.APIError():
            return "large" if result.err_code == TOO_LARGE else "later"
        case nats.js.errors.NoStreamResponseError():
            return "later"
        case nats.errors.BadSubjectError() | nats.errors.BadHeaderError() | UnicodeError():
            return "never"
        case BaseException():
            return "unknown"
    return "acknowledged"


def _waves(messages: Iterable[Waiting]) -> Iterator[Wave]:
    """The messages in their order, so that no wave has two of one order, or more than `AT_ONCE`."""
    left = list(messages)
    while left:
        wave: Wave = []
        later: list[Waiting] = []
        taken: set[str] = set()
        for each in left:
            if len(wave) == AT_ONCE or (each.ordered and each.ordered in taken):
                later.append(each)
            else:
                wave.append(each)
            taken.add(each.ordered)
        yield wave
        left = later


async def _found(
    jetstream: JetStream,
    streams: Streams,
    stream: str,
    subject: str,
    messages: Sequence[Unsettled],
    wanted: set[str],
) -> set[str]:
    """Which of the ids ``wanted`` the stream has. ``messages`` are all of one stream, or of none that is known."""
    if stream:
        return await _look(jetstream, stream, subject, min(each.floor for each in messages), wanted)
    try:
        stream = (await streams.of(subject)).name
    except NoStream:
        return set()
    floor = await _before(jetstream, stream, min(each.sent for each in messages) - MOST_SKEW)
    return await _look(jetstream, stream, subject, floor, wanted)


async def _before(jetstream: JetStream, stream: str, time: float) -> int:
    """A number of the stream whose message, and all before it, came before ``time``; found by halving."""
    try:
        state = (await jetstream.stream_info(stream)).state
        low, high = state.first_seq, state.last_seq + 1
        while low < high:
            middle = (low + high) // 2
            try:
                message = await jetstream.get_msg(stream, seq=middle, subject=">", next=True)
            except nats.js.errors.NotFoundError:
                high = middle
                continue
            if message.time.timestamp() >= time:
                high = middle
            else:
                low = message.seq + 1
    except (nats.js.errors.ServiceUnavailableError, nats.js.errors.ServerError):
        raise  # it may answer later
    except nats.js.errors.APIError:
        return 0
    return max(0, int(low) - 1)


async def _look(jetstream: JetStream, stream: str, subject: str, floor: int, wanted: set[str]) -> set[str]:
    """Which of the ids ``wanted`` a stream has after the number ``floor``."""
    found: set[str] = set()
    try:
        info = await jetstream.stream_info(stream)
        last = info.state.last_seq
        if info.config.subject_transform:
            subject = ">"  # it keeps them under another one
        number = floor + 1 if last >= floor else 1  # it was made anew
        while number <= last and found != wanted:
            message = await jetstream.get_msg(stream, seq=number, subject=subject, next=True)
            found |= {str((message.headers or {}).get(ID_HEADER, ""))} & wanted
            number = message.seq + 1
    except nats.js.errors.NotFoundError:
        pass  # there is no such stream any more, or no further message
    except (nats.js.errors.ServiceUnavailableError, nats.js.errors.ServerError):
        raise  # it may answer later
    except nats.js.errors.APIError as error:
        log.warning(
            "it cannot be found out which messages the stream %s has, so some may be in it twice: %s", stream, error
        )
    return found
