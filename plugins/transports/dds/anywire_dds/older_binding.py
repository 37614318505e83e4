"""What the Python binding of Cyclone DDS 0.10 lacks, which is the one for the Cyclone DDS with DDS Security of Debian.

With the binding of version 11, which is in the wheel, nothing here but the choice between the two is used.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import struct
import types
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cyclonedds._clayer import ddspy_take
from cyclonedds.core import Policy, Qos
from cyclonedds.internal import dds_c_t
from cyclonedds.qos import _CQos
from cyclonedds.util import duration

from anywire_dds.library import ddsc

IS_OLD = importlib.util.find_spec("cyclonedds.qos_provider") is None
"""Whether the binding is that of version 0.10."""


def _take(entity: int, _: int, count: int) -> Any:
    return ddspy_take(entity, count)


take: Callable[[int, int, int], Any] = _take if IS_OLD else ddspy_take
"""Takes so many samples, of these states, of a reader. The older binding takes those of every state."""


_HEADER_BYTES = 4
"""Before what is packed."""


class Endpoint(NamedTuple):
    """What is used of the binding's own description of a writer."""

    participant_key: uuid.UUID
    qos: Qos


class _Endpoint(ctypes.Structure):
    """``dds_builtintopic_endpoint_t``."""

    _fields_ = (
        ("key", ctypes.c_ubyte * 16),
        ("participant_key", ctypes.c_ubyte * 16),
        ("participant_handle", ctypes.c_uint64),
        ("topic_name", ctypes.c_char_p),
        ("type_name", ctypes.c_char_p),
        ("qos", ctypes.c_void_p),
    )


def cqos_to_qos(pointer: int) -> Qos:
    """The QoS behind a pointer of the C library."""
    return _CQos.cqos_to_qos(ctypes.cast(ctypes.c_void_p(pointer), dds_c_t.qos_p))


def publication(reader: Any, writer: int) -> Any:
    """The writer with this handle that is matched with ``reader``, with ``participant_key`` and ``qos``; None when it
    is not there."""
    if not IS_OLD:
        return reader.get_matched_publication_data(writer)
    find, free = ddsc.dds_get_matched_publication_data, ddsc.dds_builtintopic_free_endpoint
    find.argtypes, find.restype = [ctypes.c_int32, ctypes.c_uint64], ctypes.POINTER(_Endpoint)
    free.argtypes, free.restype = [ctypes.POINTER(_Endpoint)], None
    found = find(reader._ref, writer)
    if not found:
        return None
    try:
        return Endpoint(uuid.UUID(bytes=bytes(found.contents.participant_key)), cqos_to_qos(found.contents.qos))
    finally:
        free(found)


def qos_provider(path: Path) -> Any:
    """Cyclone's reader of QoS files; with the older binding one for what the shipped file says. Raises
    `DDSException`."""
    if not IS_OLD:
        return importlib.import_module("cyclonedds.qos_provider").QosProvider(str(path))
    return _Provider(path)


class _Provider:
    """Reads the policies that the shipped file has. What else a file says is left out."""

    def __init__(self, path: Path) -> None:
        self._library = ET.fromstring(path.read_bytes()).find("qos_library")

    def get_datawriter_qos(self, name: str) -> Qos:
        return Qos(*self._policies(name, "datawriter_qos"))

    def get_datareader_qos(self, name: str) -> Qos:
        return Qos(*self._policies(name, "datareader_qos"))

    def _policies(self, name: str, end: str) -> Iterator[Any]:
        profile = name.rpartition("::")[2]
        assert self._library is not None
        found = self._library.find(f"qos_profile[@name='{profile}']/{end}")
        assert found is not None
        history = _history(found.findtext("history/kind"), found.findtext("history/depth"))
        if found.findtext("reliability/kind") == "RELIABLE_RELIABILITY_QOS":
            blocking = found.findtext("reliability/max_blocking_time/sec")
            yield Policy.Reliability.Reliable(0 if blocking == "0" else duration(milliseconds=100))
        else:
            yield Policy.Reliability.BestEffort
        is_kept = found.findtext("durability/kind") == "TRANSIENT_LOCAL_DURABILITY_QOS"
        yield Policy.Durability.TransientLocal if is_kept else Policy.Durability.Volatile
        yield history
        if (service := found.find("durability_service")) is not None:
            kept = _history(service.findtext("history_kind"), service.findtext("history_depth"))
            yield Policy.DurabilityService(0, kept, -1, -1, -1)
        if found.findtext("writer_data_lifecycle/autodispose_unregistered_instances") == "false":
            yield Policy.WriterDataLifecycle(autodispose=False)


def _history(kind: str | None, depth: str | None) -> Any:
    return Policy.History.KeepAll if kind == "KEEP_ALL_HISTORY_QOS" else Policy.History.KeepLast(int(depth or 1))


def packed_key(sample: Any) -> bytes:
    """What names the instance of ``sample`` where it is disposed of: its key, with the older binding all of it."""
    data: bytes = sample.serialize() if IS_OLD else sample.serialize_key()
    return data.ljust(len(data) + 3 & ~3, b"\0")


def read_key(cls: Any, data: bytes) -> Any:
    """The members of the key of an instance that has ended. Raises what the library makes of bytes that are none."""
    if not IS_OLD:
        return cls.deserialize_key(data)
    # Big-endian whatever its header says: an incarnation, where there is one, and a name.
    key, at = types.SimpleNamespace(), _HEADER_BYTES
    for name in cls.__idl_annotations__["keylist"]:
        if name == "incarnation":
            (key.incarnation,) = struct.unpack_from(">q", data, at)
            at += 8
        else:
            (size,) = struct.unpack_from(">I", data, at)
            setattr(key, name, data[at + 4 : at + 3 + size].decode())
    return key
