"""Where the routes of an agent that runs here are, and the token for them: a file for this user alone."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire.files.live_records import live_records
from anywire.files.private_files import private_folder, runtime_folder

log = logging.getLogger(__name__)

FOLDER = "models"
"""Below `anywire.files.private_files.runtime_folder`."""


class LocalApiRecord(msgspec.Struct, frozen=True):
    """The routes of one agent, whose process has the number ``pid``. ``token`` is what they want as bearer token, and
    the repr shows none. ``started`` is Unix time."""

    url: str
    token: str
    pid: int
    started: float = 0.0

    def __repr__(self) -> str:
        return f"LocalApiRecord({self.url!r}, pid={self.pid})"


def records_folder() -> Path:
    """The folder of these files, made if need be. Raises `ConfigError` where it is not safe."""
    return private_folder(runtime_folder() / FOLDER)


def running_apis() -> list[LocalApiRecord]:
    """Those of agents of this user that run on this machine, the newest first."""
    try:
        found = live_records(records_folder(), LocalApiRecord)
    except (ConfigError, OSError) as error:
        log.debug("no record of routes for models: %s", error)
        return []
    return sorted(found, key=lambda each: each.started, reverse=True)
