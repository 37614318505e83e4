"""Writing packed samples to DDS, several of them in one datagram when they come together."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from typing import Any

from cyclonedds._clayer import ddspy_dispose, ddspy_unregister_instance, ddspy_write
from cyclonedds.core import DDSException, Entity
from cyclonedds.pub import DataWriter

from anywire_dds.faults import OK, TIMEOUT, mapped
from anywire_dds.library import ddsc

ddsc.dds_write_flush.argtypes = [ctypes.c_int32]
ddsc.dds_wait_for_acks.argtypes = [ctypes.c_int32, ctypes.c_int64]
ddsc.dds_qset_writer_batching.argtypes = [ctypes.c_void_p, ctypes.c_bool]
ddsc.dds_qset_writer_batching.restype = None


class BatchingWriter(DataWriter[Any]):  # type: ignore[misc]
    """A writer that keeps samples until it is flushed or a datagram is full: one system call for many."""

    def _create_writer(self, publisher: Any, topic: Any, cqos: Any, listener: Any) -> int:
        ddsc.dds_qset_writer_batching(cqos, True)
        handle: int = super()._create_writer(publisher, topic, cqos, listener)
        return handle


def of_priority(writers: Sequence[Writer], priority: int) -> Writer:
    """Of writers in falling order of priority the first that is not above ``priority``, or else the last."""
    return next((writer for writer in writers if writer.priority <= priority), writers[-1])


class Writer:
    """A DDS writer of packed samples.

    The first sample of a turn of the event loop goes out at once, the others of that turn together at its end. With a
    latency ``budget`` (seconds) samples are kept for as long, and go out together. ``priority`` is its transport
    priority.
    """

    def __init__(self, entities: list[Entity], handle: int, *, priority: int = 0, budget: float = 0.0) -> None:
        self.handle, self.priority = handle, priority
        self._budget = budget
        self._entities = entities
        self._loop = asyncio.get_running_loop()
        self._written = self._kept = False

    def write(self, sample: bytes) -> bool:
        """True when Cyclone took it, False when it must wait for acknowledgements first. Raises `AnywireError`."""
        status: int = ddspy_write(self.handle, sample)
        if status < OK:
            if status == TIMEOUT:
                return False
            fault = DDSException(status)
            raise mapped(fault, "writing to DDS") from fault
        if self._written:
            self._kept = True
        elif self._budget:
            self._written = self._kept = True
            self._loop.call_later(self._budget, self._turn_is_over)
        else:
            self._written = True
            ddsc.dds_write_flush(self.handle)
            self._loop.call_soon(self._turn_is_over)
        return True

    def _turn_is_over(self) -> None:
        self._written = False
        if self._kept:
            self._kept = False
            ddsc.dds_write_flush(self.handle)

    def dispose(self, key: Any) -> None:
        """Say that this instance will not be again. Best effort: the end of its writer says so too, later."""
        data = key.serialize_key()
        ddspy_dispose(self.handle, data.ljust(len(data) + 3 & ~3, b"\0"))

    def unregister(self, key: bytes) -> bool:
        """Say that this writer writes no more of the instance with the packed ``key``; False and errors as `write`."""
        status: int = ddspy_unregister_instance(self.handle, key)
        if status < OK:
            if status == TIMEOUT:
                return False
            fault = DDSException(status)
            raise mapped(fault, "ending an instance of DDS") from fault
        self._kept = True
        if not self._written:
            self._turn_is_over()
        return True

    def wait_acknowledged(self, seconds: float) -> bool:
        """Block until the readers have everything; False when the time is over or the writer was deleted."""
        ddsc.dds_write_flush(self.handle)
        return bool(ddsc.dds_wait_for_acks(self.handle, round(seconds * 1e9)) == OK)

    def delete(self) -> None:
        for entity in self._entities:
            entity.__del__()
        self._entities = []
