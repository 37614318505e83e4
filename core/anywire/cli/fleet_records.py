"""What runs now on this machine, so that commands of the same user find it: a file for each orchestrator
(`anywire.files.live_records`)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from anywire.errors import ConfigError
from anywire.files.live_records import RecordFile, live_records
from anywire.files.private_files import runtime_folder

log = logging.getLogger(__name__)


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


@contextmanager
def recording() -> Iterator[Callable[[FleetRecord], None]]:
    """Tell of an orchestrator of this process: call what this yields, again when something has changed. At the end
    nothing is told any more. Where there is no safe place for the file, that is logged once and nothing is told."""
    file: RecordFile | None = None

    def tell(record: FleetRecord) -> None:
        nonlocal file
        try:
            file = file or RecordFile(runtime_folder(), str(os.getpid()))
            file.write(msgspec.structs.replace(record, started=time.time()))
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
    try:
        found = live_records(runtime_folder(), FleetRecord)
    except (ConfigError, OSError) as error:
        log.debug("no record of what runs: %s", error)
        return []
    return sorted(found, key=lambda each: each.started, reverse=True)
