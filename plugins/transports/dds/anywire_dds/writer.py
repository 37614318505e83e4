"""Writing packed samples to DDS, several of them in one datagram when they come together."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cyclonedds._clayer import ddspy_dispose, ddspy_unregister_instance, ddspy_write
from cyclonedds.core import DDSException, Entity
from cyclonedds.pub import DataWriter

from anywire_dds.faults import OK, TIMEOUT, mapped
from anywire_dds.library import ddsc
from anywire_dds.older_binding import IS_OLD, packed_key

LARGE = 8 * 1024 * 1024
"""Bytes of a sample that takes its time: a thread writes it, and its reader takes it in one turn of the event loop and
reads it in the next."""

if TYPE_CHECKING:
    from anywire_dds.seal import WriterSeal

ddsc.dds_write_flush.argtypes = [ctypes.c_int32]
ddsc.dds_wait_for_acks.argtypes = [ctypes.c_int32, ctypes.c_int64]
ddsc.dds_write.argtypes = [ctypes.c_int32, ctypes.c_void_p]
if not IS_OLD:
    ddsc.dds_qset_writer_batching.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    ddsc.dds_qset_writer_batching.restype = None


class _Packed(ctypes.Structure):
    """What the library's Python types take for a sample: packed bytes. `ddspy_write` makes the same, but keeps the
    interpreter's lock while Cyclone copies and sends."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


class BatchingWriter(DataWriter[Any]):  # type: ignore[misc]
    """A writer that keeps samples until it is flushed or a datagram is full: one system call for many."""

    def _create_writer(self, publisher: Any, topic: Any, cqos: Any, listener: Any) -> int:
        if not IS_OLD:  # before version 11 each sample goes out by itself
            ddsc.dds_qset_writer_batching(cqos, True)
        handle: int = super()._create_writer(publisher, topic, cqos, listener)
        return handle


def of_priority(writers: Sequence[Writer], priority: int) -> Writer:
    """Of writers in falling order of priority the first that is not above ``priority``, or else the last."""
    return next((writer for writer in writers if writer.priority <= priority), writers[-1])


class Writer:
    """A DDS writer of packed samples.

    The samples of one turn of the event loop go out together at its end, in as few datagrams as they fit into. With a
    latency ``budget`` (seconds) samples are kept for as long, and go out together. Where they ``expire``, the first
    of a turn goes out at once, whatever keeps the loop after it. ``priority`` is its transport priority.
    """

    def __init__(
        self, entities: list[Entity], handle: int, *, priority: int = 0, budget: float = 0.0, expire: bool = False
    ) -> None:
        self.handle, self.priority = handle, priority
        self._budget, self._expire = budget, expire
        self._entities = entities
        self._loop = asyncio.get_running_loop()
        self._kept = False

    def write(self, sample: bytes) -> bool:
        """True when Cyclone took it, False when it must wait for acknowledgements first. Raises `AnywireError`."""
        if not _taken(ddspy_write(self.handle, sample), "writing to DDS"):
            return False
        if self._kept:
            return True
        self._kept = True
        if self._budget:
            self._loop.call_later(self._budget, self._flush)
            return True
        if self._expire:
            ddsc.dds_write_flush(self.handle)
        self._loop.call_soon(self._flush)
        return True

    def write_hello(self, sample: bytes) -> bool:
        """As `write`, for a HELLO, which never has a tag."""
        return Writer.write(self, sample)

    def write_apart(self, sample: bytes) -> bool:
        """The same at once, for a thread: the interpreter is free meanwhile."""
        packed = _Packed(sample, len(sample))
        if not _taken(ddsc.dds_write(self.handle, ctypes.byref(packed)), "writing to DDS"):
            return False
        ddsc.dds_write_flush(self.handle)
        return True

    def _flush(self) -> None:
        self._kept = False
        ddsc.dds_write_flush(self.handle)

    def dispose(self, key: Any) -> None:
        """Say that this instance will not be again. Best effort: the end of its writer says so too, later."""
        ddspy_dispose(self.handle, packed_key(key))

    def unregister(self, key: bytes) -> bool:
        """Say that this writer writes no more of the instance with the packed ``key``; False and errors as `write`."""
        if not _taken(ddspy_unregister_instance(self.handle, key), "ending an instance of DDS"):
            return False
        if not self._kept:
            self._kept = True
            self._loop.call_soon(self._flush)
        return True

    def wait_acknowledged(self, seconds: float) -> bool:
        """Block until the readers have everything; False when the time is over or the writer was deleted."""
        ddsc.dds_write_flush(self.handle)
        return bool(ddsc.dds_wait_for_acks(self.handle, round(seconds * 1e9)) == OK)

    def delete(self) -> None:
        for entity in self._entities:
            entity.__del__()
        self._entities = []


class SealingWriter(Writer):
    """A writer of a link whose samples carry tags: see `anywire_dds.seal`."""

    def __init__(self, seal: WriterSeal, entities: list[Entity], handle: int, **settings: Any) -> None:
        super().__init__(entities, handle, **settings)
        self._seal = seal

    def write(self, sample: bytes) -> bool:
        taken = super().write(self._seal.sealed(sample))
        if taken:
            self._seal.written()
        return taken

    def write_apart(self, sample: bytes) -> bool:
        taken = super().write_apart(self._seal.sealed(sample))
        if taken:
            self._seal.written()
        return taken


def _taken(status: int, doing: str) -> bool:
    """Whether Cyclone took it; False when it must wait for acknowledgements first. Raises `AnywireError`."""
    if status >= OK:
        return True
    if status == TIMEOUT:
        return False
    fault = DDSException(status)
    raise mapped(fault, doing) from fault
