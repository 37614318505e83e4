"""New nkeys for the orchestrators and the agents of a fleet, and the users that a NATS server knows them by."""

from __future__ import annotations

import os
from pathlib import Path

from anywire.errors import ConfigError

_ENDS = ("hub", "agent")
_USERS = """\
# Users of a NATS server: `include "./users.conf"` in its configuration. No secrets are in here.
authorization {{
  users = [
    # Orchestrators may do everything.
    {{ nkey: {hub} }}
    # Agents cannot send tasks. They have one key, so each can read what goes to another: trust them alike.
    {{
      nkey: {agent}
      permissions {{
        publish: ["anywire.*.agent.agents.*", "anywire.*.agent.to_hub.>"]
        subscribe: ["anywire.*.agent.hubs.*", "anywire.*.agent.to_agent.>"]
      }}
    }}
  ]
}}
"""
_TEXT = """\
# The NATS servers: include {folder}/users.conf in their configuration.

# Orchestrators: keep hub.nk secret.
transports:
  nats:
    nkey: {folder}/hub.nk

# Agents: copy agent.nk to their machines.
transports:
  nats:
    nkey: {folder}/agent.nk
"""


def make_keys(folder: Path) -> str:
    """See `anywire.transport.MakesKeys`. Besides, ``users.conf`` has what the servers include."""
    try:
        import nkeys
    except ImportError as error:
        raise ConfigError("nkeys are made with a package that is missing: pip install 'anywire-nats[nkeys]'") from error
    files = {name: folder / f"{name}.nk" for name in _ENDS}
    users = folder / "users.conf"
    for path in (*files.values(), users):
        if path.exists():
            raise ConfigError(f"{path} is there already: name another folder, or remove its keys")
    public = {}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, path in files.items():
            seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(seed + b"\n")
            public[name] = nkeys.from_seed(bytearray(seed)).public_key.decode()
        users.write_text(_USERS.format(**public))
    except OSError as error:
        raise ConfigError(f"keys cannot be written to {folder}: {error.strerror}") from error
    return _TEXT.format(folder=folder.resolve())
