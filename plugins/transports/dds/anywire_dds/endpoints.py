"""The DDS endpoints of one hub or agent: readers that wake the event loop, writers, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from cyclonedds._clayer import ddspy_take
from cyclonedds.core import DDSException, Entity, InstanceState, SampleState, ViewState
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic

from anywire.transport import Plane
from anywire_dds import qos, types
from anywire_dds.cdr import Codec, codec
from anywire_dds.config import DdsConfig
from anywire_dds.domain import acquire, release
from anywire_dds.faults import mapped
from anywire_dds.wakeup import Wakeup
from anywire_dds.writer import BatchingWriter, Writer

TopicName = Literal["register", "hub", "status", "request", "control", "response"]

_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
ALIVE: int = InstanceState.Alive
FAREWELL = 0.5
"""Seconds a closing end waits for its peers to acknowledge what they were sent."""

BATCH = 256
"""The most samples one take gives; fewer mean that the reader is empty."""

DISPOSED: int = InstanceState.NotAliveDisposed

_MESSAGES: dict[Plane, tuple[Any, Any]] = {
    "agent": (types.TaskRequest, types.TaskResponse),
    "client": (types.ClientRequest, types.ClientResponse),
}
_TYPES: dict[Plane, dict[TopicName, Any]] = {
    plane: {
        "register": types.AgentRegistration,
        "hub": types.HubRegistration,
        "status": types.AgentStatus,
        "request": request,
        "control": types.Control,
        "response": response,
    }
    for plane, (request, response) in _MESSAGES.items()
}
_KINDS: dict[TopicName, qos.Kind] = {
    "register": "announcement",
    "hub": "announcement",
    "status": "status",
    "request": "message",
    "control": "message",
    "response": "message",
}
CODECS: dict[TopicName, Codec] = {name: codec(cls) for name, cls in _TYPES["agent"].items()}
"""The same on both planes: their types differ in nothing but their names."""

_T = TypeVar("_T")


class Endpoints:
    """Readers and writers of one hub or agent on one plane. Used from its event loop only. ``name`` is its id."""

    def __init__(self, config: DdsConfig, plane: Plane, name: str, lease_ms: int) -> None:
        """Raises `TransportUnavailable`."""
        self.lease_ns = round(config.lease * 1e9) if config.lease is not None else max(lease_ms, 1) * 1_000_000
        """What the peers are told: silence for so long is the end. Cyclone notices at `qos.DETECTION` of it."""
        self._config, self._plane = config, plane
        self._entities: list[Entity] = []
        self._writers: set[Writer] = set()
        self._retired: deque[Writer] = deque()
        self._retiring: asyncio.Task[None] | None = None
        self._stopped = False
        self._granted: dict[str, str] = {}
        self._domain = acquire(config)
        try:
            self._participant = self._domain.participant(self.lease_ns, config.participant)
            self._wakeup = Wakeup(asyncio.get_running_loop())
        except BaseException as error:
            release(config)
            if isinstance(error, DDSException):
                raise mapped(error, f"joining DDS domain {config.domain}", opening=True) from error
            raise

    def partition(self, *of: tuple[str, str, int]) -> str:
        """The fleet's partition, or within it that of one ``(role, id, incarnation)``."""
        return "/".join([self._config.fleet, *(f"{role}/{_escape(name)}/{life}" for role, name, life in of)])

    def read(self, topic: TopicName, partition: str, callback: Callable[[], object]) -> Callable[[], list[Any]]:
        """Create a reader; ``callback`` is called on the loop whenever the returned function, which takes up to
        `BATCH` samples as ``(data, info)``, has something to give."""
        try:
            subscriber = Subscriber(self._participant, qos.partition_qos(partition))
            reader = DataReader(subscriber, self._topic(topic), qos.reader_qos(_KINDS[topic]))
            self._granted[f"{self._plane}/{topic} reader"] = qos.describe(reader.get_qos())
            self._entities += [subscriber, reader]
            self._wakeup.watch(reader._ref, callback)
        except DDSException as error:
            raise mapped(error, f"creating the reader of {self._plane}/{topic}", opening=True) from error
        handle = reader._ref

        def take() -> list[Any]:
            if self._stopped:
                return []
            samples = ddspy_take(handle, _ANY, BATCH)
            return samples if isinstance(samples, list) else []

        return take

    def writer(self, topic: TopicName, partition: str, lease_ns: int = 0) -> Writer:
        try:
            publisher = Publisher(self._participant, qos.partition_qos(partition))
            kind = _KINDS[topic]
            make = BatchingWriter if kind == "message" else DataWriter
            writer = make(publisher, self._topic(topic), qos.writer_qos(kind, lease_ns))
            granted = qos.describe(writer.get_qos())
        except DDSException as error:
            raise mapped(error, f"creating the writer of {self._plane}/{topic}", opening=True) from error
        self._granted[f"{self._plane}/{topic} writer"] = granted
        made = Writer([writer, publisher], writer._ref)
        self._writers.add(made)
        return made

    def retire(self, *writers: Writer) -> None:
        """Delete writers whose reader is gone, on a thread: one with much in its history takes milliseconds."""
        self._writers.difference_update(writers)
        self._retired.extend(writers)
        if self._retiring is None or self._retiring.done():
            self._retiring = asyncio.ensure_future(self._bury())

    async def _bury(self) -> None:
        while self._retired:
            await on_thread(self._retired.popleft().delete)

    async def say_goodbye(self, writers: Sequence[Writer], registration: Writer, key: Any) -> None:
        """Wait, for `FAREWELL` seconds at most, until peers have what was sent to them; then dispose of our
        registration, so that they need not wait for a lease."""

        def work() -> None:
            until = time.monotonic() + FAREWELL
            for writer in writers:
                writer.wait_acknowledged(max(until - time.monotonic(), 0.0))
            registration.dispose(key)
            registration.wait_acknowledged(max(until - time.monotonic(), FAREWELL / 10))

        await on_thread(work)

    def stop(self) -> None:
        """No callback and no sample from now on; idempotent."""
        self._stopped = True
        self._wakeup.stop()

    def abandon(self) -> None:
        """Undo everything at once, after an opening that failed half way."""
        self.stop()
        self._delete()
        self._release()

    async def close(self) -> None:
        """Delete everything, on a thread: a deletion waits for what Cyclone's threads are doing."""
        self.stop()
        if self._retiring is not None:
            await self._retiring
        await on_thread(self._delete)
        self._release()

    def settings(self) -> Mapping[str, str]:
        lease = f"{self.lease_ns / 1e9:g} s"
        return {f"{self._plane}/lease": lease, **self._granted, **_in_force(self._config, self._domain.facts)}

    def _topic(self, name: TopicName) -> Topic[Any]:
        return self._domain.topic(self._participant, f"{self._plane}/{name}", _TYPES[self._plane][name])

    def _delete(self) -> None:
        for writer in (*self._retired, *self._writers):
            writer.delete()
        for entity in reversed(self._entities):
            entity.__del__()
        self._entities.clear()

    def _release(self) -> None:
        self._wakeup.release()
        release(self._config)


def _in_force(config: DdsConfig, facts: Mapping[str, str]) -> dict[str, str]:
    return {
        "domain": str(config.domain),
        "fleet": config.fleet,
        "interfaces": facts.get("interfaces", "unknown: CYCLONEDDS_URI redirects the log"),
        "multicast": facts.get("General/AllowMulticast", config.multicast),
        "fragment size": facts.get("General/FragmentSize", "unknown"),
        "implementation": "Eclipse Cyclone DDS",
    }


def _escape(name: str) -> str:
    """``name`` as part of a partition, in which ``*``, ``?`` and ``[`` would match others."""
    return "".join(
        each if (each.isascii() and each.isalnum()) or each in "_.-" else "".join(f"%{b:02X}" for b in each.encode())
        for each in name
    )


_numbers = itertools.count(1)


async def on_thread(work: Callable[[], _T]) -> _T:
    """Run ``work`` on a thread that ends with it. Goes on to its end when the caller is cancelled."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"anywire-dds-{next(_numbers)}", daemon=True).start()
    return await done
