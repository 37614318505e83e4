"""What DDS says of readers and writers apart from data: peers whose QoS does not match, deadlines missed.

Cyclone would tell a listener, on its own threads, by values that no function of the C library takes. Here a thread of
this process waits for it in a wait set, without the GIL, and hands it to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

from cyclonedds.core import DDSException, DDSStatus

from anywire_dds.library import ddsc

_INFINITE = (1 << 63) - 1
_MOST = 64

POLICIES = {
    2: "DURABILITY",
    3: "PRESENTATION",
    4: "DEADLINE",
    5: "LATENCY_BUDGET",
    6: "OWNERSHIP",
    8: "LIVELINESS",
    11: "RELIABILITY",
    12: "DESTINATION_ORDER",
    24: "TYPE_CONSISTENCY",
    25: "DATA_REPRESENTATION",
}
"""The policies of which one end requests what the other may not offer, by their numbers in the DDS standard."""


class _IncompatibleQos(ctypes.Structure):
    _fields_ = (("total", ctypes.c_uint32), ("change", ctypes.c_int32), ("policy", ctypes.c_uint32))


class _DeadlineMissed(ctypes.Structure):
    _fields_ = (("total", ctypes.c_uint32), ("change", ctypes.c_int32), ("instance", ctypes.c_uint64))


ddsc.dds_create_waitset.argtypes = [ctypes.c_int32]
ddsc.dds_waitset_attach.argtypes = [ctypes.c_int32, ctypes.c_int32, ctypes.c_ssize_t]
ddsc.dds_waitset_wait.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
ddsc.dds_waitset_set_trigger.argtypes = [ctypes.c_int32, ctypes.c_bool]
ddsc.dds_set_status_mask.argtypes = [ctypes.c_int32, ctypes.c_uint32]
ddsc.dds_get_requested_incompatible_qos_status.argtypes = [ctypes.c_int32, ctypes.POINTER(_IncompatibleQos)]
ddsc.dds_get_offered_incompatible_qos_status.argtypes = [ctypes.c_int32, ctypes.POINTER(_IncompatibleQos)]
ddsc.dds_get_requested_deadline_missed_status.argtypes = [ctypes.c_int32, ctypes.POINTER(_DeadlineMissed)]


class _Watched(NamedTuple):
    loop: asyncio.AbstractEventLoop
    end: Literal["reader", "writer"]
    incompatible: Callable[[str, int], None]
    missed: Callable[[], None] | None


class Monitor:
    """Watches entities of one domain until it is closed."""

    def __init__(self, domain: int) -> None:
        self._watched: dict[int, _Watched] = {}
        self._closed = False
        self._waitset: int = _checked(ddsc.dds_create_waitset(domain), "creating a wait set")
        _checked(ddsc.dds_waitset_attach(self._waitset, self._waitset, self._waitset), "attaching a wait set")
        self._thread = threading.Thread(target=self._run, name="anywire-dds-monitor", daemon=True)
        self._thread.start()

    def watch(
        self,
        entity: int,
        end: Literal["reader", "writer"],
        incompatible: Callable[[str, int], None],
        missed: Callable[[], None] | None = None,
    ) -> None:
        """Call, on the running loop, ``incompatible(policy, peers)`` when there are so many more peers whose QoS does
        not match in that policy, and ``missed()`` when instances of this reader missed their deadline."""
        self._watched[entity] = _Watched(asyncio.get_running_loop(), end, incompatible, missed)
        mask = DDSStatus.RequestedIncompatibleQos if end == "reader" else DDSStatus.OfferedIncompatibleQos
        if missed is not None:
            mask |= DDSStatus.RequestedDeadlineMissed
        _checked(ddsc.dds_set_status_mask(entity, mask), "setting a status mask")
        _checked(ddsc.dds_waitset_attach(self._waitset, entity, entity), "attaching to a wait set")
        # What was so before it was attached has triggered nothing.
        self._read(entity)

    def forget(self, entity: int) -> None:
        """The entity is about to be deleted, and leaves the wait set with that."""
        self._watched.pop(entity, None)

    def close(self) -> None:
        """End the thread; the domain deletes the wait set with itself."""
        self._closed = True
        ddsc.dds_waitset_set_trigger(self._waitset, True)
        self._thread.join()

    def _run(self) -> None:
        triggered = (ctypes.c_ssize_t * _MOST)()
        while not self._closed:
            count = ddsc.dds_waitset_wait(self._waitset, triggered, _MOST, _INFINITE)
            if count < 0:
                return
            for entity in triggered[: min(count, _MOST)]:
                self._read(entity)

    def _read(self, entity: int) -> None:
        """Take what is new of this entity, which is then no trigger any more."""
        watched = self._watched.get(entity)
        if watched is None:
            return
        qos = _IncompatibleQos()
        if watched.end == "reader":
            ddsc.dds_get_requested_incompatible_qos_status(entity, ctypes.byref(qos))
        else:
            ddsc.dds_get_offered_incompatible_qos_status(entity, ctypes.byref(qos))
        if qos.change > 0:
            policy = POLICIES.get(qos.policy, f"number {qos.policy}")
            self._tell(watched.loop, watched.incompatible, policy, qos.change)
        if watched.missed is not None:
            deadline = _DeadlineMissed()
            ddsc.dds_get_requested_deadline_missed_status(entity, ctypes.byref(deadline))
            if deadline.change > 0:
                self._tell(watched.loop, watched.missed)

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(callback, *arguments)


def _checked(status: int, doing: str) -> int:
    if status < 0:
        raise DDSException(status, doing)
    return status
