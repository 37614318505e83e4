"""Where an orchestrator keeps what must survive a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from anywire.fleet_names import is_private
from anywire.transport import Transport

DEFAULT_FLEET = "default"


def state_root(transports: Sequence[Transport], environment: Mapping[str, str] | None = None) -> Path:
    """The folder of an orchestrator's state: ``anywire/FLEET`` below XDG_STATE_HOME, or below ``~/.local/state``.
    FLEET is the option ``fleet`` of the first transport that has one, else, and for a private one, ``default``."""
    fleets = (getattr(transport.config, "fleet", "") for transport in transports)
    fleet = next((each for each in fleets if isinstance(each, str) and each and not is_private(each)), DEFAULT_FLEET)
    return state_folder(fleet, environment)


def state_folder(fleet: str, environment: Mapping[str, str] | None = None) -> Path:
    """The folder of the state of the fleet of that name: see `state_root`."""
    variables = os.environ if environment is None else environment
    home = variables.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "anywire" / quote(fleet, safe="")


def made_state_folder(root: Path, name: str) -> Path:
    """The folder of that name below ``root``, made if need be, for this user alone."""
    folder = root / quote(name, safe="")
    for each in (root.parent, root, folder):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder
