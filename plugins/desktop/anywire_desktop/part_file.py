"""What has come of a file that is being downloaded."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

HASHED_AT_ONCE = 32 * 1024 * 1024
_BLOCK = 1024 * 1024
T = TypeVar("T")


class PartFile:
    """A file beside its place ``target``, named ``…-partial`` until it is whole.

    All that it does with the disk is done on one thread of its own, in the order of the calls: so a write that is
    under way when its caller is cancelled is over before the next one. All methods raise `OSError`.
    """

    def __init__(self, target: Path) -> None:
        self.target, self.path = target, target.with_name(f"{target.name}-partial")
        self._file: BinaryIO | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="download")

    async def size(self) -> int:
        """Bytes that are there; 0 when there is no file."""
        return max(0, await self._work(size_of, self.path))

    async def open(self, begin: int) -> None:
        """Write from the byte ``begin`` on; what was there behind it is gone."""

        def open_at() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if begin else "wb")
            self._file.seek(begin)
            self._file.truncate()

        await self._work(open_at)

    async def write(self, data: bytes) -> None:
        await self._work(self._write, data)

    async def free(self) -> int:
        """Bytes that are free on its disk."""
        return (await self._work(shutil.disk_usage, self.path.parent)).free

    async def close(self) -> None:
        """Nothing more is written; what was survives a crash from now on. Safe to call twice."""
        await self._work(self._close)

    async def digest(self) -> str:
        """Of all bytes, as ``sha256:HEX``."""
        hashed = hashlib.sha256()
        place = 0
        while (place := await self._work(_hash_more, self.path, hashed, place)) >= 0:
            pass
        return f"sha256:{hashed.hexdigest()}"

    async def take_place(self) -> None:
        """It is whole: it gets its name."""
        await self._work(self.path.replace, self.target)

    async def remove(self) -> None:
        await self._work(lambda: self.path.unlink(missing_ok=True))

    def end(self) -> None:
        """End the thread, once what was asked of it is done."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def _work(self, function: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *given)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                file.flush()
                os.fsync(file.fileno())


def size_of(path: Path) -> int:
    """Bytes of a file, -1 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _hash_more(path: Path, hashed: Any, place: int) -> int:
    """Hash a further part of a file; the place where the next one begins, -1 at the end. One part is soon done, so that
    a program which ends does not wait for a large file."""
    with path.open("rb") as file:
        file.seek(place)
        while file.tell() < place + HASHED_AT_ONCE:
            data = file.read(_BLOCK)
            if not data:
                return -1
            hashed.update(data)
        return file.tell()
