"""What programs in C that speak DDS are made with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_NEEDED = {
    "gcc": shutil.which("gcc"),
    "make": shutil.which("make"),
    "cyclonedds-tools": shutil.which("idlc"),
    "cyclonedds-dev": Path("/usr/include/dds/dds.h").exists(),
}
_MISSING = [package for package, found in _NEEDED.items() if not found]

needs_toolchain = pytest.mark.skipif(bool(_MISSING), reason=f"missing: apt-get install {' '.join(_MISSING)}")

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")

LOOPBACK = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface address='127.0.0.1' multicast='true'/></Interfaces>"
    "</General></Domain></CycloneDDS>"
)
"""For any Cyclone: the interface that Anywire uses unless told otherwise."""

UNICAST = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface address='127.0.0.1'/></Interfaces>"
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    "<Peers><Peer address='127.0.0.1'/></Peers><MaxAutoParticipantIndex>120</MaxAutoParticipantIndex></Discovery>"
    "</Domain></CycloneDDS>"
)
"""For Debian's Cyclone: loopback, without multicast."""
