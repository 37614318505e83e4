"""The streams that keep what is published: found by their subjects, and made where nobody has made one."""

from __future__ import annotations

import logging
import re

import msgspec
import nats.js.api
import nats.js.errors

from anywire.errors import TransportUnavailable
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire_service_nats.broker import JetStream
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.subjects import STREAMS, Stream

log = logging.getLogger(__name__)
once = OnceLog(log)

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
"""What the name of a stream has not."""
_TAKEN = (10058, 10065)
"""JetStream's codes for a stream whose name, or whose subjects, another one has."""


class Found(msgspec.Struct):
    """The stream of a subject. ``newest`` is its newest number that is known; ``window`` the seconds in which it knows
    a message again by its id."""

    name: str
    newest: int
    window: float


class NoStream(TransportUnavailable):
    """No stream keeps a subject, and none is made."""


class Streams:
    """What is known of the streams over one connection. A stream that is there is never changed."""

    def __init__(self, config: NatsServiceConfig, jetstream: JetStream) -> None:
        self._config, self._jetstream = config, jetstream
        self.window = config.duplicate_window
        """Seconds in which streams know a message again, as far as is known of all of them."""
        self._found: dict[str, Found] = {}
        self._by_name: dict[str, Found] = {}

    async def of(self, subject: str) -> Found:
        """The stream that keeps ``subject``; made if need be. Raises `NoStream` with what would do, and what the
        connection raises."""
        found = self._found.get(subject)
        if found is None:
            name = await self._name(subject) or await self._made(subject)
            found = self._by_name.get(name)
            if found is None:
                info = await self._jetstream.stream_info(name)
                window = info.config.duplicate_window or 0.0
                if info.config.no_ack:
                    once.warn(
                        name,
                        "the stream %s acknowledges nothing (no_ack): a hundred messages are published in 5 seconds, "
                        "and each is searched for in it. Turn no_ack off",
                        name,
                    )
                found = self._by_name[name] = Found(name, info.state.last_seq, window)
            self._found[subject] = found
        return found

    def forget(self, subject: str) -> None:
        """Look for the stream of ``subject`` again the next time."""
        found = self._found.pop(subject, None)
        if found is not None:
            self._by_name.pop(found.name, None)

    def sharing(self, subject: str) -> list[str]:
        """The known subjects of the stream that has ``subject``, itself too."""
        found = self._found.get(subject)
        return [each for each, other in self._found.items() if other is found] if found is not None else [subject]

    async def _name(self, subject: str) -> str:
        try:
            return str(await self._jetstream.find_stream_name_by_subject(subject))
        except nats.js.errors.NotFoundError:
            return ""

    async def _made(self, subject: str) -> str:
        if not self._config.make_streams:
            raise NoStream(
                f"no stream of the NATS server keeps {subject}: make one, or set services.nats.make_streams to true"
            )
        wanted = [each for each in STREAMS if _covers(each, subject)][:1]
        is_queue = any(each.work_queue for each in wanted)
        own = Stream(f"ANYWIRE_{_NO_NAME.sub('_', subject).upper()}", (subject,), is_queue)
        for stream in (*wanted, own):
            try:
                await self._jetstream.add_stream(self._as_config(stream))
            except nats.js.errors.APIError as error:
                if error.err_code in _TAKEN and stream is not own:
                    continue  # somebody's stream has the name, or some of the subjects
                text = printable(str(error.description or error), 300)
                raise NoStream(
                    f"no stream of the NATS server keeps {subject}, and it makes none ({text}): make one, "
                    "or lower services.nats.stream_bytes"
                ) from error
            log.info("made the stream %s at the NATS server, for %s", stream.name, ", ".join(stream.subjects))
            return stream.name
        raise AssertionError("the loop returns or raises")

    def _as_config(self, stream: Stream) -> nats.js.api.StreamConfig:
        config = self._config
        retention = "WORK_QUEUE" if stream.work_queue else "LIMITS"
        return nats.js.api.StreamConfig(
            name=stream.name,
            subjects=list(stream.subjects),
            retention=getattr(nats.js.api.RetentionPolicy, retention),
            max_bytes=config.stream_bytes,
            max_age=config.stream_age,
            num_replicas=config.stream_replicas,
            duplicate_window=min(config.duplicate_window, config.stream_age),
        )


def _covers(stream: Stream, subject: str) -> bool:
    return any(
        each == subject or (each.endswith(".>") and subject.startswith(each.removesuffix(">")))
        for each in stream.subjects
    )
