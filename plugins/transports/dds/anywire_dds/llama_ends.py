"""Readers and writers on the topics of the llama.cpp DDS service, for whoever plays its server or its client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import pydantic
from cyclonedds.builtin import BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import DDSException, Entity, InstanceState, Qos, SampleState, ViewState
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.sub import DataReader, Subscriber

from anywire_dds import llama_types, older_binding
from anywire_dds.builtin_reader import BuiltinReader
from anywire_dds.config import (
    DATAGRAM_BYTES,
    DOMAIN_MAX,
    INTERFACE,
    LARGEST_DATAGRAM,
    LOOPBACK,
    DdsConfig,
    Interface,
    Multicast,
    is_local,
)
from anywire_dds.domain import acquire, release
from anywire_dds.endpoints import BATCH, on_thread
from anywire_dds.faults import mapped
from anywire_dds.wakeup import Wakeup
from anywire_dds.writer import Writer

_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
NO_WRITERS: int = InstanceState.NotAliveNoWriters
"""State of an instance that nobody alive writes."""

_BUILTIN = {"writers": BuiltinTopicDcpsPublication, "readers": BuiltinTopicDcpsSubscription}


class LlamaDdsOptions(pydantic.BaseModel):
    """Where the peers are. In a domain that a transport of this process has open too, all but ``participant`` and
    ``lease`` must be the same as there. The service has no protection: whoever reaches ``interface`` can use it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    interface: Interface = pydantic.Field(default=LOOPBACK, description=INTERFACE)
    domain: int = pydantic.Field(default=0, ge=0, le=DOMAIN_MAX, description="DDS domain of the C++ peers.")
    participant: str = pydantic.Field(
        default="anywire", description="Name of this process's participant, which DDS tools show."
    )
    # Cyclone's own default. A peer that stands still for longer finds us anew, and gets our last samples a second time.
    lease: float = pydantic.Field(
        default=10.0, ge=1, le=3600, description="Seconds of silence after which peers consider this end lost."
    )
    multicast: Multicast = pydantic.Field(
        default="auto",
        description="Use multicast. `discovery`: only to find peers; `off`: peers on other hosts must be named in"
        " `peers`.",
    )
    peers: list[str] = pydantic.Field(
        default_factory=list, description="Addresses of hosts to look for where multicast does not reach."
    )
    participants_per_host: int = pydantic.Field(
        default=120, ge=1, le=120, description="Processes per host that can be found without multicast."
    )
    datagram_bytes: int | None = pydantic.Field(default=None, ge=512, le=LARGEST_DATAGRAM, description=DATAGRAM_BYTES)

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine can be peers, for certain."""
        return is_local(self.interface)

    def dds_config(self) -> DdsConfig:
        names = (
            "domain", "participant", "lease", "interface", "multicast", "peers", "participants_per_host",
            "datagram_bytes",
        )  # fmt: skip
        # An interface that was not asked for gives way to one of CYCLONEDDS_URI.
        asked = {name: getattr(self, name) for name in names if name != "interface" or name in self.model_fields_set}
        return DdsConfig(**asked)


class Endpoint(NamedTuple):
    """A reader or writer of the domain that came, or went. ``handle`` names a writer in its samples'
    ``publication_handle``; ``participant`` is None of one that went."""

    handle: int
    participant: uuid.UUID | None
    key: uuid.UUID | None
    alive: bool


class Contract(Protocol):
    """The topics of a service: a module such as `anywire_dds.llama_types`."""

    TYPES: dict[str, Any]

    def reader_qos(self, topic: str) -> Qos: ...
    def writer_qos(self, topic: str) -> Qos: ...


class LlamaEnds:
    """Used from its event loop only. Raises `TransportUnavailable` where the domain or an entity cannot be had."""

    def __init__(self, options: LlamaDdsOptions, contract: Contract = llama_types) -> None:
        self._contract = contract
        self._config = options.dds_config()
        self._entities: list[Entity] = []
        self._writers: list[Writer] = []
        self._closed = False
        # Peers in C of an older Cyclone DDS use no multicast on the loopback interface.
        self._domain = acquire(self._config, by_unicast=True)
        try:
            self._participant = self._domain.participant(round(options.lease * 1e9), options.participant)
            self._wakeup = Wakeup(asyncio.get_running_loop())
        except BaseException as error:
            release(self._config)
            if isinstance(error, DDSException):
                raise mapped(error, f"joining DDS domain {options.domain}", opening=True) from error
            raise

    def read(self, topic: str, callback: Callable[[], object]) -> Callable[[], list[tuple[bytes, Any]]]:
        """Create a reader; ``callback`` is called on the loop whenever the returned function, which takes up to
        `BATCH` samples as ``(data, info)``, has something to give."""
        try:
            subscriber = Subscriber(self._participant)
            self._entities.append(subscriber)
            reader = DataReader(subscriber, self._topic(topic), self._contract.reader_qos(topic))
            self._entities.append(reader)
            self._wakeup.watch(reader._ref, callback)
        except DDSException as error:
            raise mapped(error, f"creating the reader of {topic}", opening=True) from error
        handle = reader._ref

        def take() -> list[tuple[bytes, Any]]:
            samples = [] if self._closed else older_binding.take(handle, _ANY, BATCH)
            return samples if isinstance(samples, list) else []

        return take

    def writer(self, topic: str) -> Writer:
        try:
            publisher = Publisher(self._participant)
            writer = DataWriter(publisher, self._topic(topic), self._contract.writer_qos(topic))
        except DDSException as error:
            raise mapped(error, f"creating the writer of {topic}", opening=True) from error
        made = Writer([writer, publisher], writer._ref)
        self._writers.append(made)
        return made

    def watch(
        self, what: Literal["readers", "writers"], topic: str, seen: Callable[[Endpoint], None]
    ) -> Callable[[], None]:
        """Call ``seen`` for every reader or writer of ``topic`` in the domain when it comes, and of any topic when it
        goes. What is returned looks at once, without waiting to be woken."""
        try:
            reader = BuiltinReader(self._participant, _BUILTIN[what])
            self._entities.append(reader)

            def take() -> None:
                if self._closed:
                    return
                for number, sample in enumerate(reader.news(), 1):
                    info = sample.sample_info
                    alive = info.instance_state == InstanceState.Alive
                    if not alive:
                        seen(Endpoint(info.instance_handle, None, None, False))
                    elif getattr(sample, "topic_name", "") == topic:
                        seen(Endpoint(info.instance_handle, sample.participant_key, sample.key, True))
                    if number == BATCH:
                        asyncio.get_running_loop().call_soon(take)
                        return

            self._wakeup.watch(reader._ref, take)
            return take
        except DDSException as error:
            raise mapped(error, f"watching the {what} of {topic}", opening=True) from error

    def retire(self, writer: Writer) -> None:
        """Delete a writer, and with it what peers that come later would have got of its history."""
        self._writers.remove(writer)
        writer.delete()

    async def close(self) -> None:
        """Delete everything, on a thread: a deletion waits for what Cyclone's threads are doing. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._wakeup.stop()
        await on_thread(self._delete)
        self._wakeup.release()
        release(self._config)

    def _topic(self, name: str) -> Any:
        return self._domain.topic(self._participant, name, self._contract.TYPES[name])

    def _delete(self) -> None:
        for writer in self._writers:
            writer.delete()
        for entity in reversed(self._entities):
            entity.__del__()
        self._entities.clear()
