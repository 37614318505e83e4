"""The weights in files by their names: a file is read again when it is another one, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from anywire_engine_models.model_files import weights

TRIES = 3
"""Readings of a file that changes meanwhile."""

_State = tuple[str, int, int, int, int, int]
"""A file by its path, what tells that another one has taken its place, and what tells that it was written to."""
_PLACE = slice(0, 3)


class Weights(msgspec.Struct, frozen=True):
    """Weights as they were read: ``digest`` names what was in the files, ``states`` tells whether that is still so."""

    file: str
    digest: str
    states: tuple[_State, ...]

    def are_there(self) -> bool:
        """Whether the files are what was read. Blocks."""
        try:
            return _states(self.file) == self.states
        except (OSError, ValueError):
            return False

    def are_overwritten(self) -> bool:
        """Whether a server that has opened the files sees other weights by now: they were written to. It does not when
        other files have taken their place. Blocks."""
        try:
            now = _states(self.file)
        except (OSError, ValueError):
            return False
        before = {each[_PLACE]: each for each in self.states}
        if all(before.get(each[_PLACE], each) == each for each in now):
            return False
        try:
            return weights.digest(Path(self.file)) != self.digest
        except OSError:
            return True


class NamedWeights:
    """Keeps the newest weights that were read of each file."""

    def __init__(self) -> None:
        self._newest: dict[str, Weights] = {}
        self._begun = 0
        self._taken: dict[str, int] = {}
        """Numbers of readings: an older one never replaces a newer one."""

    def digest(self, file: str) -> str:
        """That of the newest reading, empty where there is none."""
        found = self._newest.get(file)
        return found.digest if found is not None else ""

    async def read(self, file: str) -> Weights:
        """The weights of ``file`` as they are. Raises `OSError`, also when they change all the time; they have no name
        then."""
        self._begun += 1
        number, found = self._begun, None
        try:
            found = await asyncio.to_thread(_read, file, self._newest.get(file))
        except ValueError as error:
            raise OSError(str(error)) from error
        finally:
            if number > self._taken.get(file, 0):
                self._taken[file] = number
                self._newest.pop(file, None)
                if found is not None:
                    self._newest[file] = found
        return found

    def keep(self, files: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(files)
        self._newest = {file: each for file, each in self._newest.items() if file in kept}
        self._taken = {file: number for file, number in self._taken.items() if file in kept}


def _read(file: str, before: Weights | None) -> Weights:
    states = _states(file)
    if before is not None and before.states == states:
        return before
    for _ in range(TRIES):
        digest = weights.digest(Path(file))
        after = _states(file)
        if after == states:
            return Weights(file, digest, states)
        states = after
    raise OSError(f"{file} is being written")


def _states(file: str) -> tuple[_State, ...]:
    found = []
    for path in weights.files(Path(file)):
        status = path.stat()
        found.append((str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)
