"""Bytes on the wire of a cell, by the kernel's counters of an interface."""

from __future__ import annotations

import sys
from pathlib import Path

from anywire_experiment.network import Hosts
from anywire_experiment.record.cells import Wire

LOOPBACK = "lo"


class WireCounter:
    """Counts what the interface between a cell's processes carries: the emulated link where there is one, else the
    loopback interface, with whatever else uses that."""

    def __init__(self, hosts: Hosts | None) -> None:
        self._interface = hosts.orchestrator.interface if hosts is not None else LOOPBACK
        self.kind: Wire = ""
        if sys.platform == "linux":
            self.kind = "link" if hosts is not None else "loopback"

    def count(self, pid: int) -> int | None:
        """Bytes so far, both ways, headers included, as the network of process ``pid`` counts them, 0 for this one;
        None when that cannot be read."""
        if not self.kind:
            return None
        try:
            text = Path(f"/proc/{pid or 'self'}/net/dev").read_text()
        except OSError:
            return None
        return interface_bytes(text, self._interface)


def interface_bytes(text: str, interface: str) -> int | None:
    """Bytes of an interface in the text of ``/proc/net/dev``; what loopback sends it receives, and counts once."""
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            fields = numbers.split()
            received, sent = int(fields[0]), int(fields[8])
            return sent if interface == LOOPBACK else received + sent
    return None
