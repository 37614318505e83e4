"""Waking the event loop from Cyclone's threads without running Python on them.

Cyclone calls a listener for every sample that becomes available, on its own threads. A Python listener would take the
GIL there, for each sample, and hop to the loop. Here the listener is the C library's ``fputc`` on an unbuffered
stream over a pipe: its two parameters are those of a data-available listener, ``(reader, argument)``. One byte
arrives in the pipe, the lowest of the reader's handle, and the loop then takes from the readers those bytes name.

A full pipe loses bytes but no wake-up: what is in it wakes the loop, and a pipe found that full wakes every reader.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import Callable

from cyclonedds.core import DDSException

from anywire_dds.library import ddsc

log = logging.getLogger(__name__)

_UNBUFFERED = 2  # _IONBF
_PLENTY = 4096
"""As many bytes as the smallest pipe a kernel gives: with so many read at once, some may have been lost."""

_libc = ctypes.CDLL(None)
_libc.fdopen.restype = ctypes.c_void_p
_libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
_libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
_libc.fclose.argtypes = [ctypes.c_void_p]
ddsc.dds_create_listener.restype = ctypes.c_void_p
ddsc.dds_create_listener.argtypes = [ctypes.c_void_p]
ddsc.dds_lset_data_available_arg.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_bool]
ddsc.dds_set_listener.argtypes = [ctypes.c_int32, ctypes.c_void_p]
ddsc.dds_delete_listener.argtypes = [ctypes.c_void_p]


class Wakeup:
    """One pipe and one listener for any number of readers of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held = self._stopped = False
        self._by_byte: dict[int, list[Callable[[], object]]] = {}
        self._read_fd, write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(write_fd, False)
        self._stream = _libc.fdopen(write_fd, b"w")
        _libc.setvbuf(self._stream, None, _UNBUFFERED, 0)
        self._listener = ddsc.dds_create_listener(None)
        ddsc.dds_lset_data_available_arg(self._listener, ctypes.cast(_libc.fputc, ctypes.c_void_p), self._stream, False)
        loop.add_reader(self._read_fd, self._woken)

    def hold(self) -> None:
        """Call nothing before `go_on`; nothing that comes until then is missed."""
        self._held = True
        self._loop.remove_reader(self._read_fd)

    def go_on(self) -> None:
        """Call callbacks again, each one at once."""
        if not self._held or self._stopped:
            return
        self._held = False
        self._loop.add_reader(self._read_fd, self._woken)
        self._call([each for group in self._by_byte.values() for each in group])

    def watch(self, reader: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` on the loop whenever something new can be taken from the reader with this handle."""
        self._by_byte.setdefault(reader & 0xFF, []).append(callback)
        status = ddsc.dds_set_listener(reader, self._listener)
        if status < 0:
            raise DDSException(status, "setting the listener of a reader")
        # What arrived before the listener was there has woken nobody.
        if not self._held:
            self._loop.call_soon(self._call, [callback])

    def stop(self) -> None:
        """No callback from now on; idempotent."""
        self._stopped = True
        self._loop.remove_reader(self._read_fd)
        self._by_byte.clear()

    def release(self) -> None:
        """Give the pipe back, after the readers were deleted: until then Cyclone may write to it."""
        ddsc.dds_delete_listener(self._listener)
        _libc.fclose(self._stream)
        os.close(self._read_fd)

    def _woken(self) -> None:
        woken = os.read(self._read_fd, 65536)
        if len(woken) >= _PLENTY:
            callbacks = [each for group in self._by_byte.values() for each in group]
        else:
            callbacks = [each for byte in set(woken) for each in self._by_byte.get(byte, ())]
        self._call(callbacks)

    def _call(self, callbacks: list[Callable[[], object]]) -> None:
        for callback in callbacks:
            if self._stopped:
                return
            try:
                callback()
            except Exception:
                log.exception("what a DDS reader has received could not be processed")
