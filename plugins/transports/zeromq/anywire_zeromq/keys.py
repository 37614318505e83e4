"""New CURVE keys for a fleet."""

from __future__ import annotations

import os
from pathlib import Path

import zmq
import zmq.auth

from anywire.errors import ConfigError

_ENDS = ("hub", "agent")
_TEXT = """\
# Orchestrators: keep hub.key_secret secret.
transports:
  zeromq:
    secret_key: {folder}/hub.key_secret
    allowed_keys: [{folder}/agent.key]

# Agents and clients: copy agent.key_secret and hub.key to their machines. More keys: another --out, and each .key file
# into allowed_keys.
transports:
  zeromq:
    secret_key: {folder}/agent.key_secret
    server_key: {folder}/hub.key
"""


def make_keys(folder: Path) -> str:
    """See `anywire.transport.MakesKeys`."""
    if not zmq.has("curve"):
        raise ConfigError("this build of ZeroMQ has no CURVE: install pyzmq from its wheels")
    found = [path for name in _ENDS for path in folder.glob(f"{name}.key*")]
    if found:
        raise ConfigError(f"{found[0]} is there already: name another folder, or remove its keys")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ENDS:
            zmq.auth.create_certificates(folder, name)
    except OSError as error:
        raise ConfigError(f"keys cannot be written to {folder}: {error.strerror}") from error
    finally:
        os.umask(before)
    return _TEXT.format(folder=folder.resolve())
