"""Takes the messages of one durable consumer, as many at once as may be, and acknowledges what was handled."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from anywire.errors import TransportUnavailable
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire_nats.client import ENDED
from anywire_service_nats.broker import FAILED, Broker, JetStream
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.listening.held import ACKNOWLEDGED, IN_PROGRESS, Held, Key, again, status_of
from anywire_service_nats.streams import NoStream, Streams

log = logging.getLogger(__name__)

EXPIRES = 30.0
"""Seconds for which the server keeps one request for messages."""
STOPPED_PAUSE = 1.0
"""Seconds until a message is delivered again that came when nothing more was begun here."""
ANSWER_TIME = 5.0
"""Seconds by which an answer to it may be late."""
FAULT_PAUSE, LONGEST_FAULT_PAUSE = 5.0, 600.0
"""Seconds until a message is delivered again whose handling has failed with no word of when, for each time that it was
delivered, and at most."""
LAST_SECONDS = 1.0
"""Seconds that the server has at the end to take what is said of messages."""
CONFIRM_TIME = 2.0
"""Seconds in which the server says that it has an acknowledgement."""
MOST_UNREAD = 256 * 1024 * 1024
"""Bytes of messages that may wait to be read; no more are asked for than can be handled."""

MOST_UNSAID = 10_000
"""Acknowledgements that wait for a connection."""

Handle = Callable[[Held], Awaitable[float | None]]
"""Handles one message: None acknowledges it, a number has it delivered again after as many seconds."""


class Durable(NamedTuple):
    """A consumer called ``name`` of those messages of a stream that have a subject like ``subject``. It is made where
    there is none, and not changed where there is one. A message of which nothing is said for ``redelivery`` seconds is
    delivered again. While ``most_put_off`` are handled or given back for later, no others are delivered."""

    name: str
    subject: str
    redelivery: float
    most_put_off: int = 1000


class Source(NamedTuple):
    """Where messages come from: a connection, and how a stream is made that is missing."""

    broker: Broker
    config: NatsServiceConfig


class Listener:
    """Hands each message to ``handle``, ``at_once`` of them at most. One that is delivered again while it is handled is
    still that one. A message that takes long is kept: nobody else gets it meanwhile. An acknowledgement that a lost
    connection has taken with it is said again over the next one."""

    def __init__(self, source: Source, durable: Durable, handle: Handle, at_once: int) -> None:
        self._broker, self._config = source
        self._durable, self._handle, self._at_once = durable, handle, at_once
        self._running: dict[Key, tuple[Held, asyncio.Task[None]]] = {}
        self._unsaid: dict[Key, str] = {}
        """Where to say that messages were handled, which nobody could be told."""
        self._freed = asyncio.Event()
        self._stopped = False
        self._keeping: asyncio.Task[None] | None = None
        self._once = OnceLog(log)
        self._waiting: int | None = None
        self._newest = 0.0
        """The time at which the stream took the newest message that was delivered."""
        self._subscription: Any = None
        self._beat = durable.redelivery / 3
        self.redelivered = 0
        """Messages that came again while they were being handled."""

    @property
    def running(self) -> int:
        """Messages that are being handled."""
        return len(self._running)

    @property
    def handled_until(self) -> float:
        """The Unix time by the stream's clock up to which all its messages were handled, as far as the server has
        said: 0 while it has said nothing, infinite where nothing waits."""
        if not self._broker.connected or self._waiting is None:
            return 0.0
        newest = self._newest if self._waiting else math.inf
        return min([newest, *(held.at for held, _ in self._running.values())])

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep())
        self._broker.each_connection(self._listen)

    def stop(self) -> None:
        """Begin nothing new: what is delivered from now on is given back."""
        self._stopped = True
        self._freed.set()

    async def close(self) -> None:
        """End what is handled, and give it back. Safe to call twice, and without `start`."""
        self.stop()
        with suppress(*FAILED):
            async with asyncio.timeout(LAST_SECONDS):
                if self._subscription is not None:
                    await self._subscription.drain()  # what is given back is not to come here again
        tasks = [task for _, task in self._running.values()]
        if self._keeping is not None:
            tasks.append(self._keeping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks and self._broker.connected:
            with suppress(*FAILED):  # what is given back is on its way before the connection ends
                await self._broker.client.flush(LAST_SECONDS)

    # Inside

    async def _listen(self, jetstream: JetStream) -> None:
        """Take messages over this connection until it ends, or nothing more is to be begun."""
        self._waiting, self._newest = None, 0.0
        info = await self._consumer(jetstream)
        client = self._broker.client
        unsaid, self._unsaid = self._unsaid, {}
        for reply in unsaid.values():
            await client.publish(reply, ACKNOWLEDGED)
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, pending_bytes_limit=MOST_UNREAD)
        self._subscription = subscription
        try:
            if not info.num_pending and not info.num_ack_pending:
                self._waiting = 0
            asking = f"$JS.API.CONSUMER.MSG.NEXT.{info.stream_name}.{info.name}"
            while not self._stopped:
                room = self._at_once - len(self._running)
                if room <= 0:
                    self._freed.clear()
                    await self._freed.wait()
                    continue
                asked = {"batch": room, "expires": int(EXPIRES * 1e9)}
                await client.publish(asking, msgspec.json.encode(asked), reply=inbox)
                await self._take(subscription, room)
        finally:
            self._waiting = self._subscription = None
            with suppress(*ENDED):
                await subscription.unsubscribe()

    async def _take(self, subscription: Any, count: int) -> None:
        """Begin what comes of one request for ``count`` messages, until it is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + EXPIRES + ANSWER_TIME
        while count and (left := until - loop.time()) > 0:
            try:
                message = await subscription.next_msg(timeout=left)
            except (TimeoutError, nats.errors.TimeoutError):
                return
            match status_of(message):
                case "":
                    self._begin(message)
                    count -= 1
                case "404" | "408":
                    self._waiting = 0
                    return
                case "100":
                    pass
                case status:  # the consumer is gone, its server is another one now
                    raise TransportUnavailable(f"JetStream ended a request for messages: {status}")

    async def _consumer(self, jetstream: JetStream) -> ConsumerInfo:
        durable = self._durable
        try:
            stream = (await Streams(self._config, jetstream).of(durable.subject)).name
        except NoStream as error:
            self._once.warn("stream", "nothing of %s is heard: %s", durable.subject, error)
            raise
        try:
            info: ConsumerInfo = await jetstream.consumer_info(stream, durable.name)
        except nats.js.errors.NotFoundError:
            config = ConsumerConfig(
                name=durable.name,
                durable_name=durable.name,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=durable.redelivery,
                max_ack_pending=max(durable.most_put_off, 2 * self._at_once),
                filter_subject=durable.subject,
            )
            try:
                info = await jetstream.add_consumer(stream, config=config)
            except nats.js.errors.APIError as error:
                text = printable(str(error.description or error), 300)
                self._once.warn(
                    "refused",
                    "nothing of %s is heard: the stream %s takes no consumer: %s",
                    durable.subject,
                    stream,
                    text,
                )
                raise
        if fault := _fault(info.config, durable.subject):
            text = (
                f"nothing of {durable.subject} is heard: the consumer {durable.name} of the stream {stream} {fault}: "
                "remove it, or name another one in the settings of services.nats"
            )
            self._once.warn("fault", "%s", text)
            raise TransportUnavailable(text)
        self._beat = min(self._beat, (info.config.ack_wait or durable.redelivery) / 3)
        self._once.reset()
        return info

    def _begin(self, message: Any) -> None:
        held = Held(message)
        self._waiting, self._newest = held.pending, max(self._newest, held.at)
        found = self._running.get(held.key)
        if found is not None:
            self.redelivered += 1
            found[0].reply = held.reply
            return
        self._unsaid.pop(held.key, None)
        task = asyncio.create_task(self._run(held))
        self._running[held.key] = held, task

    async def _run(self, held: Held) -> None:
        try:
            delay: float | None = STOPPED_PAUSE
            if not self._stopped:
                try:
                    delay = await self._handle(held)
                except Exception:
                    log.exception("a message of the subject %s could not be handled", self._durable.subject)
                    delay = min(FAULT_PAUSE * held.deliveries, LONGEST_FAULT_PAUSE)
            if delay is None:
                await self._acknowledge(held)
            else:
                await self._say(held, again(delay))
        except asyncio.CancelledError:
            await self._say(held, again(0.0))
            raise
        finally:
            del self._running[held.key]
            self._freed.set()

    async def _acknowledge(self, held: Held) -> None:
        try:
            await self._broker.client.request(held.reply, ACKNOWLEDGED, timeout=CONFIRM_TIME)
        except TimeoutError:  # the server answers nothing where it does not wait for that
            log.debug("the server does not say that a message is acknowledged")
        except FAILED as error:
            log.debug("a message is acknowledged over the next connection: %r", error)
            self._unsaid[held.key] = held.reply
            if len(self._unsaid) > MOST_UNSAID:
                del self._unsaid[next(iter(self._unsaid))]  # it is delivered again

    async def _say(self, held: Held, word: bytes) -> None:
        """What is lost of this, ends with the message's time."""
        with suppress(*FAILED):
            await self._broker.client.publish(held.reply, word)

    async def _keep(self) -> None:
        """Say of all that is handled that it is, often enough."""
        while True:
            await asyncio.sleep(self._beat)
            for held, _ in list(self._running.values()):
                await self._say(held, IN_PROGRESS)


def _fault(config: ConsumerConfig, subject: str) -> str:
    """Why a consumer that somebody has made is none for this subject; empty where it is one."""
    if config.deliver_subject:
        return "pushes its messages"
    if config.ack_policy not in (None, AckPolicy.EXPLICIT):
        return "waits for no acknowledgement of each message"
    heard = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
    if heard and subject not in heard and not _are_some_of(heard, subject):
        return f"is for {printable(', '.join(heard), 200)}"
    return ""


def _are_some_of(heard: list[str], subject: str) -> bool:
    """Whether all these subjects are like ``subject``, of which ``>`` or ``*`` may be the end."""
    return subject.endswith((".>", ".*")) and all(each.startswith(subject[:-1]) for each in heard)
