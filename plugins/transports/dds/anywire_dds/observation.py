"""The topics that observers and hubs share: their types, their QoS, and readers and writers of them.

An observer must never hold anybody up. Status is read best effort, and thinned out by the reader's time-based filter.
What hubs tell is reliable, because only then does a late observer get the history; but it is KEEP_LAST on both ends, so
that a new sample takes the place of an old one instead of waiting, and Cyclone is told not to wait in a write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from cyclonedds._clayer import ddspy_take
from cyclonedds.core import DDSException, InstanceState, Policy, Qos, SampleState, ViewState
from cyclonedds.pub import Publisher
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.util import duration

from anywire_dds import qos, types
from anywire_dds.cdr import Codec, codec
from anywire_dds.endpoints import BATCH, Endpoints
from anywire_dds.faults import mapped
from anywire_dds.writer import BatchingWriter, Writer

Topic = Literal["observer", "task", "activity", "status"]

HISTORY = 16
"""Samples of one slot that a late observer still gets: of the task in it, and of those before."""

CODECS: dict[Topic, Codec] = {
    "observer": codec(types.ObserverRegistration),
    "task": codec(types.TaskSeen),
    "activity": codec(types.HubSeen),
}

_TYPES: dict[Topic, Any] = {
    "observer": types.ObserverRegistration,
    "task": types.TaskSeen,
    "activity": types.HubSeen,
    "status": types.AgentStatus,
}
_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
_NO_WAIT = duration(nanoseconds=0)


def _kept(depth: int) -> tuple[object, ...]:
    return (
        Policy.Reliability.Reliable(_NO_WAIT),
        Policy.Durability.TransientLocal,
        Policy.History.KeepLast(depth),
    )


_NEWEST = _kept(1)
_RECENT = _kept(HISTORY)
_SERVICE = Policy.DurabilityService(
    cleanup_delay=duration(seconds=0),
    history=Policy.History.KeepLast(HISTORY),
    max_samples=-1,
    max_instances=-1,
    max_samples_per_instance=-1,
)
_UNDISPOSED = Policy.WriterDataLifecycle(autodispose=False)


def reader_qos(topic: Topic, interval_ns: int = 0) -> Qos:
    """``interval_ns`` is for status: of one agent's reports, so much time lies between two that are taken."""
    match topic:
        case "status":
            newest = (Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(1))
            return Qos(*newest, Policy.TimeBasedFilter(interval_ns))
        case "task":
            return Qos(*_RECENT)
    return Qos(*_NEWEST)


def writer_qos(topic: Topic) -> Qos:
    # Not disposed by a writer's end: a hub that died has not said how its tasks ended.
    return Qos(*_RECENT, _SERVICE, _UNDISPOSED) if topic == "task" else Qos(*_NEWEST, _UNDISPOSED)


class ObservationEndpoints(Endpoints):
    """`Endpoints` that also has the topics of observation, all in the fleet's partition."""

    def observe(self, topic: Topic, callback: Callable[[], object], interval_ns: int = 0) -> Callable[[], list[Any]]:
        """Like `Endpoints.read`. Raises `TransportUnavailable`."""
        try:
            subscriber = Subscriber(self._participant, qos.partition_qos(self.partition()))
            reader = DataReader(subscriber, self._observed(topic), reader_qos(topic, interval_ns))
            names = ("Reliability", "Durability", "History", "TimeBasedFilter")
            self._granted[f"{self._plane}/{topic} reader"] = qos.describe(reader.get_qos(), names)
            self._entities += [subscriber, reader]
            self._wakeup.watch(reader._ref, callback)
        except DDSException as error:
            raise mapped(error, f"creating the reader of {self._plane}/{topic}", opening=True) from error
        handle = reader._ref

        def take() -> list[Any]:
            samples = None if self._stopped else ddspy_take(handle, _ANY, BATCH)
            return samples if isinstance(samples, list) else []

        return take

    def publish(self, topic: Topic) -> Writer:
        """A writer. Raises `TransportUnavailable`."""
        try:
            publisher = Publisher(self._participant, qos.partition_qos(self.partition()))
            writer = BatchingWriter(publisher, self._observed(topic), writer_qos(topic))
        except DDSException as error:
            raise mapped(error, f"creating the writer of {self._plane}/{topic}", opening=True) from error
        made = Writer([writer, publisher], writer._ref)
        self._writers.add(made)
        return made

    def _observed(self, topic: Topic) -> Any:
        return self._domain.topic(self._participant, f"{self._plane}/{topic}", _TYPES[topic])
