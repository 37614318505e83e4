"""Searches streams for messages of which it is not known whether they were published."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import nats.js.errors

from anywire_service_nats.broker import JetStream
from anywire_service_nats.envelopes import ID_HEADER
from anywire_service_nats.outbox_tables import Unsettled
from anywire_service_nats.streams import NoStream, Streams

log = logging.getLogger(__name__)

MOST_SKEW = 300.0
"""Seconds by which the clocks of orchestrators and servers may differ."""


async def found_in_streams(
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
