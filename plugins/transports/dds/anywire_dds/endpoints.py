"""The DDS endpoints of one hub or agent: readers that wake the event loop, writers, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cyclonedds.core import DDSException, Entity, InstanceState, Policy, Qos, SampleState, ViewState
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from anywire.protocol import PROTOCOL
from anywire.transport import Plane
from anywire_dds import older_binding, qos, shared_memory, types, user_data
from anywire_dds.addresses import AddressWatch
from anywire_dds.busy_poll import BusyPoll
from anywire_dds.cdr import NOTHING_USUAL, Codec, Usual, codec
from anywire_dds.config import DdsConfig, datagram_bytes, stays_here
from anywire_dds.contract import TopicName
from anywire_dds.domain import acquire, release
from anywire_dds.faults import mapped
from anywire_dds.hearing import Hearing
from anywire_dds.outbox import Outbox
from anywire_dds.pauses import Pauses
from anywire_dds.wakeup import Wakeup
from anywire_dds.writer import LARGE, BatchingWriter, SealingWriter, Writer

if TYPE_CHECKING:
    from anywire_dds.seal import Seal

log = logging.getLogger(__name__)

_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
ALIVE: int = InstanceState.Alive
FINAL_MESSAGES_TIMEOUT = 0.5
"""Seconds a closing end waits for its peers to acknowledge what they were sent."""

RETURN_TURNS = 8
"""Turns of the event loop between the opening of an end and its first callback. One that opens it within a task, or
with `asyncio.gather`, has it after two or three."""

WRITERS_REMEMBERED = 8192
"""Writers of others of which it is remembered whose they are."""

MAX_BATCHES = 256
"""Batches read at once before a loss is reported: more than a link's window."""

BATCH = 256
"""The most samples one take gives; fewer mean that the reader is empty."""

DISPOSED: int = InstanceState.NotAliveDisposed

_MESSAGES: dict[Plane, tuple[Any, Any, Any]] = {
    "agent": (types.TaskRequest, types.TaskResponse, types.TaskStream),
    "client": (types.ClientRequest, types.ClientResponse, types.ClientStream),
}
_TYPES: dict[Plane, dict[TopicName, Any]] = {
    plane: {
        "register": types.AgentRegistration,
        "hub": types.HubRegistration,
        "status": types.AgentStatus,
        "request": request,
        "control": types.Control,
        "response": response,
        "stream": stream,
    }
    for plane, (request, response, stream) in _MESSAGES.items()
}


class Samples(list[Any]):
    """Taken samples as ``(data, info)``. ``more``: there may be further ones, take again."""

    more = False

    def hold_back(self, left: list[Any], after: int = 0) -> None:
        """Move the first large one behind ``after``, and all that follow, to ``left``."""
        for at in range(after, len(self)):
            if len(self[at][0]) > LARGE:
                left += self[at:]
                del self[at:]
                self.more = True
                return


_BATCHING: frozenset[TopicName] = frozenset(("request", "control", "response", "stream"))
_IDS = ("hub_id", "task_id")
_RESPONSE = Usual(_IDS, ("hub_id", "finish_reason"), ("extra", "finish_reason", "error", "more"))
_USUAL: dict[TopicName, Usual] = {
    "request": Usual((*_IDS, "kind", "model"), ("hub_id", "kind", "model"), ("resume", "trace"), "tenant"),
    "response": _RESPONSE,
    "stream": _RESPONSE,
}
CODECS: dict[TopicName, Codec] = {
    name: codec(cls, _USUAL.get(name, NOTHING_USUAL)) for name, cls in _TYPES["agent"].items()
}
"""The same on both planes: their types differ in nothing but their names."""

_INFINITE: int = duration(infinite=True)
_COMPARE = "compare `qos` and `latency_budget` of the two ends; one of them must change"

_T = TypeVar("_T")


class Finding(NamedTuple):
    """Something that is not as it should be, and what would do."""

    what: str
    remedy: str


class Source(NamedTuple):
    """The participant of a writer, the life of an agent of which it reports, if it does, and the proof and signature of
    what it registers, if it shows one."""

    participant: str | None
    life: tuple[str, int] | None
    proof: str = ""
    signature: str = ""


NOBODY = Source(None, None)


def _mismatch(label: str, policy: str, peers: int) -> str:
    if policy == "TYPE_CONSISTENCY":
        return f"{label} is not connected to {peers} of its peers: the types of the two ends differ"
    return f"{label} is not connected to {peers} of its peers: what one requests of {policy} the other does not offer"


def _remedy(policy: str) -> str:
    return "use one version of anywire on both" if policy == "TYPE_CONSISTENCY" else _COMPARE


class Endpoints:
    """Readers and writers of one hub or agent on one plane. Used from its event loop only."""

    def __init__(
        self, config: DdsConfig, plane: Plane, lease_ms: int, protocol: str = PROTOCOL, *, held: bool = False
    ) -> None:
        """``protocol`` is the version of its messages. With ``held`` no callback is made before `start_soon`. Raises
        `TransportUnavailable`."""
        self.lease_ns = round(config.lease * 1e9) if config.lease is not None else max(lease_ms, 1) * 1_000_000
        """What the peers are told: silence for so long is the end."""
        self.protocol = protocol
        self._config, self._plane = config, plane
        self._entities: list[Entity] = []
        self._writers: set[Writer] = set()
        self._retired: deque[Writer] = deque()
        self._retiring: asyncio.Task[None] | None = None
        self._stopped = False
        self._hearing: Hearing | None = None
        self._address: AddressWatch | None = None
        self._readers: dict[TopicName, DataReader[Any]] = {}
        self._sources: dict[int, Source] = {}
        self._granted: dict[str, str] = {}
        self._differences: dict[str, list[str]] = {}
        self._mismatches: Counter[tuple[str, str]] = Counter()
        self._qos = qos.profiles(config.qos)
        self.pauses = Pauses(self.lease_ns / 1e9)
        self.poll = BusyPoll(config.busy_poll / 1e6) if config.busy_poll else None
        """Told of each message, where the event loop is to look for the next one."""
        self._domain = acquire(config)
        try:
            self._participant = self._domain.participant(self.lease_ns, config.participant, protocol)
            self._wakeup = Wakeup(asyncio.get_running_loop())
            if held:
                self._wakeup.hold()
            self.unheard = self._domain.unheard(self._participant)
            if (address := self._domain.facts.get("address")) and not stays_here(config):
                self._address = AddressWatch(address, self._domain.address_gone)
        except BaseException as error:
            release(config)
            if isinstance(error, DDSException):
                raise mapped(error, f"joining DDS domain {config.domain}", opening=True) from error
            raise

    def start_soon(self) -> None:
        """Call back from a few turns of the event loop on: what has opened this end has been given it then."""
        loop = asyncio.get_running_loop()

        def wait(turns: int) -> None:
            if turns:
                loop.call_soon(wait, turns - 1)
            else:
                self._wakeup.go_on()
                if not self._stopped:
                    self.pauses.start()

        wait(RETURN_TURNS)

    def partition(self, *of: tuple[str, str, int]) -> str:
        """The fleet's partition, or within it that of one ``(role, id, incarnation)``."""
        return "/".join(
            [self._config.fleet_name, *(f"{role}/{user_data.escape(name)}/{life}" for role, name, life in of)]
        )

    def read(
        self,
        topic: TopicName,
        partition: str,
        callback: Callable[[], object],
        *more: Any,
        missed: Callable[[], None] | None = None,
    ) -> Callable[[], Samples]:
        """Create a reader; ``callback`` is called on the loop whenever the returned function, which takes up to
        `BATCH` samples, has something to give. ``more`` are policies over those of the profile; ``missed`` is called
        when instances missed their deadline."""
        asked = self._qos.reader(topic, *self._budget(topic), *more)
        label = f"{self._plane}/{topic} reader"
        try:
            subscriber = Subscriber(self._participant, qos.partition_qos(partition))
            reader = DataReader(subscriber, self._topic(topic), asked)
            self._entities += [subscriber, reader]
            handle = reader._ref
            self._note(label, asked, reader.get_qos())
            self._domain.monitor.watch(handle, "reader", functools.partial(self._mismatch, label), missed)
            self._wakeup.watch(handle, callback)
        except DDSException as error:
            raise mapped(error, f"creating the reader of {self._plane}/{topic}", opening=True) from error
        self._readers[topic] = reader

        left: list[Any] = []

        def take() -> Samples:
            if self._stopped:
                return Samples()
            if left:
                samples = Samples(left)
                left.clear()
                samples.hold_back(left, after=1)
                return samples
            taken = older_binding.take(handle, _ANY, BATCH)
            samples = Samples(taken if isinstance(taken, list) else ())
            samples.more = len(samples) == BATCH
            samples.hold_back(left)
            return samples

        return take

    def writer(self, topic: TopicName, partition: str, *more: Any, seal: Seal | None = None) -> Writer:
        """``more`` are policies over those of the profile; ``seal`` is of the link whose samples it writes, if they
        carry tags. Raises `TransportUnavailable`."""
        asked = self._qos.writer(topic, *self._budget(topic), *self._lifespan(topic), *more)
        label = f"{self._plane}/{topic} writer"
        try:
            publisher = Publisher(self._participant, qos.partition_qos(partition))
            make = BatchingWriter if topic in _BATCHING else DataWriter
            writer = make(publisher, self._topic(topic), asked)
            granted = writer.get_qos()
            priority = granted[Policy.TransportPriority].priority
            label += f", priority {priority}" if priority else ""
            self._note(label, asked, granted)
            self._domain.monitor.watch(writer._ref, "writer", functools.partial(self._mismatch, label))
        except DDSException as error:
            raise mapped(error, f"creating the writer of {self._plane}/{topic}", opening=True) from error
        budget = granted[Policy.LatencyBudget].budget / 1e9
        entities = [writer, publisher]
        settings: dict[str, Any] = {"priority": priority, "budget": budget, "expire": bool(self._lifespan(topic))}
        if seal is None:
            made = Writer(entities, writer._ref, **settings)
        else:
            made = SealingWriter(seal.writer(topic), entities, writer._ref, **settings)
        self._writers.add(made)
        return made

    def writers(
        self, topic: TopicName, partition: str, priorities: Iterable[int], *more: Any, seal: Seal | None = None
    ) -> list[Writer]:
        """One for each priority and one for all others, the highest first. Raises `TransportUnavailable`."""
        levels = sorted({0, *priorities}, reverse=True)
        return [
            self.writer(topic, partition, *([Policy.TransportPriority(level)] if level else []), *more, seal=seal)
            for level in levels
        ]

    def often_alive(self) -> Any:
        """The policy of a writer that offers a tenth of the lease: it makes Cyclone assert the participant's liveliness
        each 0.08 leases, and nothing else here looks at it. A process that stops is given up after 0.92 leases at the
        least, and after one that is busy until then."""
        return Policy.Liveliness.Automatic(self.lease_ns // 10)

    def lifespan_ns(self, topic: TopicName, publication: int) -> int:
        """How long the samples of this writer, matched with our reader, count by its QoS; 0: for ever."""
        endpoint = older_binding.publication(self._readers[topic], publication)
        if endpoint is None or Policy.Lifespan not in endpoint.qos:
            return 0
        lifespan: int = endpoint.qos[Policy.Lifespan].lifespan
        return 0 if lifespan == _INFINITE else lifespan

    def source_of(self, topic: TopicName, writer: int) -> Source:
        """Whose the writer with this handle (``publication_handle`` of a sample) is. Nobody's when the writer is gone,
        and was not asked about before."""
        known = self._sources.get(writer)
        if known is None:
            endpoint = older_binding.publication(self._readers[topic], writer)
            if endpoint is None:
                return NOBODY
            life = user_data.life(user_data.entry(endpoint.qos, user_data.LIFE))
            proof, signature = (user_data.entry(endpoint.qos, each) for each in (user_data.PROOF, user_data.SIGNATURE))
            known = self._sources[writer] = Source(str(endpoint.participant_key), life, proof, signature)
            while len(self._sources) > WRITERS_REMEMBERED:
                del self._sources[next(iter(self._sources))]
        return known

    def participant_of(self, topic: TopicName, writer: int) -> str | None:
        """The DDS participant of the writer with this handle; None as in `source_of`."""
        return self.source_of(topic, writer).participant

    def protocol_of(self, participant: str | None) -> str:
        """The version that this participant tells; our own when it is not known, until a HELLO tells it."""
        told = self._domain.protocol_of(participant) if participant is not None else None
        return self.protocol if told is None else told

    def watch_hearing(self, unheard: Callable[[str], None]) -> Hearing:
        """Call ``unheard(participant)`` for each participant that says it does not hear this end's. Raises
        `TransportUnavailable`."""
        try:
            self._hearing = Hearing(self._participant, self.unheard, unheard, self._wakeup.watch)
        except DDSException as error:
            raise mapped(error, "watching the participants", opening=True) from error
        self._entities.append(self._hearing.reader)
        return self._hearing

    def findings(self) -> list[Finding]:
        """What is not as it was asked for, and with whom this end cannot connect."""
        return (
            [
                Finding(f"{label} was not granted what it asked for: {difference}", "change it in the file of `qos`")
                for label, differences in self._differences.items()
                for difference in differences
            ]
            + [
                Finding(_mismatch(label, policy, peers), _remedy(policy))
                for (label, policy), peers in self._mismatches.items()
            ]
            + ([Finding(self._domain.unreachable, "restart the process")] if self._domain.unreachable else [])
        )

    def _budget(self, topic: TopicName) -> list[Any]:
        seconds = self._config.latency_budget
        return [Policy.LatencyBudget(round(seconds * 1e9))] if seconds and topic in ("response", "stream") else []

    def _lifespan(self, topic: TopicName) -> list[Any]:
        seconds = self._config.lifespan
        return [Policy.Lifespan(round(seconds * 1e9))] if seconds is not None and topic == "request" else []

    def _note(self, label: str, asked: Qos, granted: Qos) -> None:
        self._granted[label] = qos.describe(granted)
        if differences := qos.differences(asked, granted):
            self._differences[label] = differences
            log.warning("%s was not granted what it asked for: %s", label, "; ".join(differences))

    def _mismatch(self, label: str, policy: str, peers: int) -> None:
        if not self._stopped:
            self._mismatches[label, policy] += peers
            log.warning("%s: %s", _mismatch(label, policy, peers), _remedy(policy))

    def retire(self, *writers: Writer) -> None:
        """Delete writers whose reader is gone, on a thread: one with much in its history takes milliseconds."""
        self._writers.difference_update(writers)
        self._retired.extend(writers)
        if self._retiring is None or self._retiring.done():
            self._retiring = asyncio.ensure_future(self._delete_retired())

    async def _delete_retired(self) -> None:
        while self._retired:
            writer = self._retired.popleft()
            await on_thread(writer.delete)
            self._domain.monitor.forget(writer.handle)

    async def say_goodbye(self, writers: Sequence[Writer], registration: Writer, key: Any) -> None:
        """Wait, for `FINAL_MESSAGES_TIMEOUT` seconds at most, until peers have what was sent to them; then dispose of
        our registration, so that they need not wait for a lease."""

        def work() -> None:
            until = time.monotonic() + FINAL_MESSAGES_TIMEOUT
            for writer in writers:
                writer.wait_acknowledged(max(until - time.monotonic(), 0.0))
            registration.dispose(key)
            registration.wait_acknowledged(max(until - time.monotonic(), FINAL_MESSAGES_TIMEOUT / 10))

        await on_thread(work)

    def stop(self) -> None:
        """No callback and no sample from now on; idempotent."""
        self._stopped = True
        if self._hearing is not None:
            self._hearing.close()
        if self._address is not None:
            self._address.close()
        if self.poll is not None:
            self.poll.stop()
        self.pauses.stop()
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
        found = {f"{label} not matched by {policy}": f"{n} peers" for (label, policy), n in self._mismatches.items()}
        qos_file = {"qos": self._qos.source or "as shipped"}
        in_force = _in_force(self._config, self._domain.facts)
        return {f"{self._plane}/lease": lease, **qos_file, **self._granted, **found, **in_force}

    def _topic(self, name: TopicName) -> Topic[Any]:
        return self._domain.topic(self._participant, f"{self._plane}/{name}", _TYPES[self._plane][name])

    def _delete(self) -> None:
        forget = self._domain.monitor.forget
        for writer in (*self._retired, *self._writers):
            writer.delete()
            forget(writer.handle)
        for entity in reversed(self._entities):
            entity.__del__()
            forget(entity._ref)
        self._entities.clear()

    def _release(self) -> None:
        self._wakeup.release()
        release(self._config)


def _in_force(config: DdsConfig, facts: Mapping[str, str]) -> dict[str, str]:
    return {
        "domain": str(config.domain),
        "fleet": config.fleet_name,
        "interfaces": facts.get("interfaces", "unknown: CYCLONEDDS_URI redirects the log"),
        "multicast": facts.get("General/AllowMulticast", config.multicast),
        "shared memory": shared_memory.in_force(config),
        **({"busy_poll": f"{config.busy_poll} us"} if config.busy_poll else {}),
        **({"DDS Security": "on"} if config.security is not None else {}),
        "datagram_bytes": facts.get("General/MaxMessageSize", str(datagram_bytes(config))).removesuffix(" B"),
        "fragment size": facts.get("General/FragmentSize", "unknown"),
        "implementation": "Eclipse Cyclone DDS",
        "max_message_bytes": str(config.max_message_bytes),
        "buffer_bytes": str(config.buffer_bytes),
    }


async def flush(outboxes: Iterable[Outbox]) -> bool:
    """Wait, for `FINAL_MESSAGES_TIMEOUT` seconds at most, until these have written what was accepted; False when they
    have not."""
    try:
        async with asyncio.timeout(FINAL_MESSAGES_TIMEOUT):
            for outbox in outboxes:
                await outbox.empty()
    except TimeoutError:
        return False
    return True


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
