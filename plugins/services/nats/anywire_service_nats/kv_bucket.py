"""One key-value bucket of JetStream: written with a fence, read, and asked again while the servers are away.

The fence is the revision of a key. A write with it is refused by the server itself once that key has a newer one: so a
process that has lost the key writes nothing any more, however late its writes arrive. JetStream does that since its
version 2.11 (``Nats-Expected-Last-Subject-Sequence-Subject``).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import nats.errors
import nats.js.api
import nats.js.errors

from anywire.errors import ConfigError, PluginFailed, TransportUnavailable
from anywire.printable import printable
from anywire_nats.client import ENDED
from anywire_service_nats.broker import Broker, JetStream
from anywire_service_nats.kv_settings import NatsStoreConfig

log = logging.getLogger(__name__)

LEAST_SERVER = (2, 11)
"""Version of nats-server."""
WRONG_REVISION = (10071, 10164)
NO_BUCKET = 10059
NO_ROOM = (10023, 10047)
"""Codes of JetStream's errors. That a bucket is full has none of its own: it is said in words."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds until what has failed is asked again."""
HEADROOM = 4096
"""Bytes of a message that are not its payload: headers and subject."""
MOST_PIECE, MOST_INLINE = 1024 * 1024, 32 * 1024
"""Bytes of the largest value, and of the largest part of a head."""
LEAST_VALUE = 8192
"""Bytes that an entry of the bucket must be allowed to have."""
NOT_NOW = "deliberations cannot be kept or read now; the orchestrator's log has more"

Result = TypeVar("Result")
Take = Callable[[str, int, bytes], None]
"""Called with the key, the revision and the value of an entry; the value of one that was deleted is empty."""


class Refused(Exception):
    """A key has another revision than expected: another process has written it."""


class Gone(Exception):
    """The bucket is not there any more."""


class Value(NamedTuple):
    revision: int
    data: bytes


class Bucket:
    """Calls wait for the servers for ``patience`` seconds; then they raise `PluginFailed`, and a write may be done or
    not. They raise `Refused` and `Gone` at once."""

    def __init__(self, broker: Broker, config: NatsStoreConfig) -> None:
        self._broker, self._config = broker, config
        self._stream, self._begin = f"KV_{config.bucket}", f"$KV.{config.bucket}."
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends_changes = broker.changed(lambda _: self._change())
        self._fails = False
        self._stopped = ""
        self._direct = True
        self._most = MOST_PIECE

    @property
    def piece(self) -> int:
        """Bytes of the largest value."""
        return max(512, min(self._broker.max_payload or MOST_PIECE, self._most) - HEADROOM)

    @property
    def inline(self) -> int:
        return min(MOST_INLINE, self.piece // 4)

    def stop(self, reason: str) -> None:
        """Let all calls fail from now on, also those that wait."""
        self._stopped = self._stopped or reason
        self._ends_changes()
        self._change()

    async def make(self) -> None:
        """Make the bucket where it is missing. Raises `ConfigError` for one, or for a server, that does not serve."""
        await self._do(self._make)

    async def look(self) -> None:
        """Raise `Gone` when the bucket is not there."""

        async def look(jetstream: JetStream) -> None:
            try:
                await jetstream.stream_info(self._stream)
            except nats.js.errors.NotFoundError as error:
                raise Gone from error

        await self._do(look)

    async def put(self, key: str, data: bytes, fence: str, revision: int) -> int:
        """Write while the key ``fence`` has that revision; the revision of what is written."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(revision),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._begin + fence,
        }
        return await self._publish(key, data, headers)

    async def swap(self, key: str, data: bytes, revision: int) -> int:
        """Write while ``key`` itself has that revision; 0 while it is not there. `Refused` may also mean that this
        write was done, and its acknowledgement lost."""
        return await self._publish(key, data, {"Nats-Expected-Last-Subject-Sequence": str(revision)})

    async def delete(self, key: str, fence: str, revision: int) -> int:
        """Write that ``key`` is no more, with a fence as `put`; `remove` it then."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(revision),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._begin + fence,
            "KV-Operation": "DEL",
        }
        return await self._publish(key, b"", headers)

    async def get(self, key: str) -> Value | None:
        async def get(jetstream: JetStream) -> Value | None:
            try:
                found = await jetstream.get_msg(self._stream, subject=self._begin + key, direct=self._direct)
            except nats.js.errors.NotFoundError as error:
                if error.err_code == NO_BUCKET:
                    raise
                return None
            return Value(int(found.seq), found.data or b"")

        return await self._do(get)

    async def remove(self, keys: str, before: int = 0) -> None:
        """Free the room of ``keys`` (a filter), of entries with a revision less than ``before`` where it is given."""

        async def remove(jetstream: JetStream) -> None:
            await jetstream.purge_stream(self._stream, seq=before or None, subject=self._begin + keys)

        await self._do(remove)

    async def read_all(self, keys: str, until: int, take: Callable[[], Take]) -> None:
        """Give all entries of ``keys`` (a filter), in the order of their revisions, up to that with the revision
        ``until``, which must be one of them. ``take`` is asked for whom to give them to, anew with each try."""

        async def read(jetstream: JetStream) -> None:
            give = take()
            subscription = await jetstream.subscribe(self._begin + keys, stream=self._stream, ordered_consumer=True)
            try:
                revision = 0
                while revision < until:
                    message = await subscription.next_msg(timeout=self._config.patience)
                    revision = message.metadata.sequence.stream
                    give(message.subject.removeprefix(self._begin), revision, message.data)
            finally:
                await subscription.unsubscribe()

        await self._do(read, patience=10 * self._config.patience)

    # Inside

    async def _publish(self, key: str, data: bytes, headers: dict[str, str]) -> int:
        async def publish(jetstream: JetStream) -> int:
            # nats-py adds to them.
            found = await jetstream.publish(self._begin + key, data, stream=self._stream, headers=dict(headers))
            return int(found.seq)

        return await self._do(publish)

    async def _make(self, jetstream: JetStream) -> None:
        if is_too_old(self._broker.server_version):
            raise ConfigError(
                f"services.deliberation.store: nats-server {self._broker.server_version} cannot refuse the writes of "
                f"an orchestrator that has lost the bucket: use {'.'.join(map(str, LEAST_SERVER))} or a newer one"
            )
        try:
            info = await jetstream.stream_info(self._stream)
        except nats.js.errors.NotFoundError:
            config = self._config
            await jetstream.create_key_value(
                bucket=config.bucket,
                description="Deliberations of Anywire",
                history=1,
                max_bytes=config.max_bytes,
                replicas=config.replicas,
                storage=nats.js.api.StorageType.FILE,
                direct=True,
            )
            return
        found = info.config
        if unfit := _unfit(found):
            raise ConfigError(f"services.deliberation.store: the bucket {self._config.bucket} cannot be used: {unfit}")
        self._direct = bool(found.allow_direct)  # nats-py makes buckets without it
        self._most = min(MOST_PIECE, found.max_msg_size) if (found.max_msg_size or 0) > 0 else MOST_PIECE
        if found.storage == nats.js.api.StorageType.MEMORY:
            log.warning("deliberations are lost when the NATS servers end: the bucket is in their memory alone")

    async def _do(self, call: Callable[[JetStream], Awaitable[Result]], patience: float = 0.0) -> Result:
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + (patience or self._config.patience), FIRST_PAUSE
        cause: BaseException | None = None
        while not self._stopped:
            left = until - loop.time()
            if left <= 0:
                raise self._failed(cause)
            changed = self._changed
            if not self._broker.connected:
                await asyncio.wait((changed,), timeout=left)
                continue
            doing = asyncio.ensure_future(call(self._broker.jetstream))
            try:
                await asyncio.wait((doing, changed), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not doing.done():
                    doing.cancel()
                    doing.add_done_callback(_forget)
            if not doing.done() or doing.cancelled():  # nobody will answer it any more
                continue
            cause = doing.exception()
            if cause is None:
                self._worked()
                return doing.result()
            self._raise_final(cause)
            await asyncio.wait((changed,), timeout=min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        raise PluginFailed(self._stopped)

    def _raise_final(self, error: BaseException) -> None:
        """Raise what asking again does not mend."""
        code = getattr(error, "err_code", None)
        if code in WRONG_REVISION:
            raise Refused from error
        if code == NO_BUCKET:
            raise Gone from error
        temporary = isinstance(error, (nats.js.errors.ServiceUnavailableError, nats.js.errors.ServerError))
        if temporary and code not in NO_ROOM and "maximum" not in str(getattr(error, "description", "")):
            return
        if isinstance(error, nats.js.errors.APIError):
            raise self._failed(error) from error
        if not isinstance(error, (*ENDED, TimeoutError, TransportUnavailable)):
            raise error

    def _failed(self, error: BaseException | None) -> PluginFailed:
        if not self._fails:
            reason = self._broker.away or str(getattr(error, "description", "") or error or "they do not answer")
            log.error(
                "deliberations cannot be kept or read now in the bucket %s of the NATS servers: %s",
                self._config.bucket,
                printable(reason, 300),
            )
        self._fails = True
        return PluginFailed(NOT_NOW)

    def _worked(self) -> None:
        if self._fails:
            self._fails = False
            log.info("deliberations can be kept again in the bucket %s of the NATS servers", self._config.bucket)

    def _change(self) -> None:
        changed, self._changed = self._changed, self._changed.get_loop().create_future()
        if not changed.done():
            changed.set_result(None)


def _unfit(config: nats.js.api.StreamConfig) -> str:
    """Why a bucket that others have made does not serve, with what would do; empty where it does."""
    if config.max_age:
        return "its entries expire: use one without a ttl"
    bounded = any((bound or 0) > 0 for bound in (config.max_bytes, config.max_msgs))
    if bounded and config.discard != nats.js.api.DiscardPolicy.NEW:
        return "it drops its oldest entries when it is full: use one that refuses new ones (discard: new)"
    if config.deny_purge or config.sealed:
        return "nothing can be removed from it: use one without deny_purge, and that is not sealed"
    if 0 < (config.max_msg_size or 0) < LEAST_VALUE:
        return f"its largest value has {config.max_msg_size} bytes: use one of {LEAST_VALUE} or more"
    return ""


def is_too_old(version: str) -> bool:
    """Of a nats-server. One whose version says nothing is taken as new enough."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < LEAST_SERVER


def _forget(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()
