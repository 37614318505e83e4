"""What runs now on this machine, so that commands of the same user find it: a file for each orchestrator.

The file belongs to the process that writes it, which holds a lock on it for as long as it lives. A file without that
lock is of a process that has ended, whatever its number is used for now; whoever finds it removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from anywire.errors import ConfigError
from anywire.files.private_files import runtime_folder

log = logging.getLogger(__name__)

_SUFFIX = ".json"


class FleetRecord(msgspec.Struct, frozen=True):
    """One running orchestrator. It holds the keys of its transports, and its repr shows none."""

    fleet: str
    url: str = ""
    """Where its first gateway is; empty when it has none."""
    transports: dict[str, dict[str, Any]] = {}
    """The options of each transport by which agents and clients on this machine meet it."""
    invite: str = ""
    """The code for other machines; empty when it listens on this one alone."""
    started: float = 0.0
    """When it was ready, as Unix time."""
    key: str = ""
    """The key by which other commands of this user come in; empty when none is needed."""
    keys: str = ""
    """The file with the keys of clients, to which new invitations add theirs; empty where it invites nobody."""
    admitted: str = ""
    """The file with the agents and orchestrators that are let in; empty where whoever comes is."""
    certificate: str = ""
    """The file with the certificate that its gateway shows; empty without TLS."""

    def __repr__(self) -> str:
        return f"FleetRecord({self.fleet!r}, {self.url!r})"


class RecordFile:
    """The file of this process. `recording` makes one."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, -1

    def write(self, record: FleetRecord) -> None:
        """Tell of ``record`` from now on, in place of what was told before."""
        data = msgspec.json.encode(msgspec.structs.replace(record, started=time.time()))
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, data)
        new.rename(self._path)
        self._release()
        self._held = descriptor

    def remove(self) -> None:
        if self._held >= 0:
            self._path.unlink(missing_ok=True)
            self._release()

    def _release(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


@contextmanager
def recording() -> Iterator[Callable[[FleetRecord], None]]:
    """Tell of an orchestrator of this process: call what this yields, again when something has changed. At the end
    nothing is told any more. Where there is no safe place for the file, that is logged once and nothing is told."""
    file: RecordFile | None = None

    def tell(record: FleetRecord) -> None:
        nonlocal file
        try:
            file = file or RecordFile(runtime_folder() / f"{os.getpid()}{_SUFFIX}")
            file.write(record)
        except (ConfigError, OSError) as error:
            log.warning("other commands will not find this orchestrator by themselves: %s", error)

    try:
        yield tell
    finally:
        if file is not None:
            file.remove()


def running_fleets() -> list[FleetRecord]:
    """The orchestrators of this user that run on this machine, the newest first. Files of those that have ended are
    removed."""
    found = []
    try:
        paths = list(runtime_folder().glob(f"*{_SUFFIX}"))
    except (ConfigError, OSError) as error:
        log.debug("no record of what runs: %s", error)
        return []
    for path in paths:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            record = _read(path)
            if record is not None:
                found.append(record)
    return sorted(found, key=lambda each: each.started, reverse=True)


def _read(path: Path) -> FleetRecord | None:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return msgspec.json.decode(file.read(), type=FleetRecord)
        if path.lstat().st_ino == os.fstat(file.fileno()).st_ino:  # not one that has taken its place meanwhile
            path.unlink(missing_ok=True)
        return None
