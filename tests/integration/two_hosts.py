"""Two hosts, each a network namespace, with two networks between them: 10.77.1.0/24 and 10.77.2.0/24."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

UNAVAILABLE = os.geteuid() != 0 or shutil.which("ip") is None
REASON = "missing: root and iproute2, for network namespaces"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class TwoHosts:
    """``names`` are those of the namespaces; host N has the addresses 10.77.1.N and 10.77.2.N, on net1 and net2."""

    def __init__(self) -> None:
        tag = os.urandom(3).hex()
        self.names = (f"aw-hub-{tag}", f"aw-agent-{tag}")

    def __enter__(self) -> TwoHosts:
        for host in self.names:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        for network in (1, 2):
            ends = [f"net{network}" for _ in self.names]
            ip(*("link", "add", ends[0], "netns", self.names[0], "type", "veth"), *("peer", "name", ends[1]),
               *("netns", self.names[1]))  # fmt: skip
            for number, host in enumerate(self.names, 1):
                ip("-n", host, "addr", "add", f"10.77.{network}.{number}/24", "dev", f"net{network}")
                ip("-n", host, "link", "set", f"net{network}", "up")
        return self

    def __exit__(self, *failure: Any) -> None:
        for host in self.names:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)

    def on(self, host: int, *command: str) -> list[str]:
        """The command line that runs ``command`` on host 1 or 2."""
        return ["ip", "netns", "exec", self.names[host - 1], *command]

    def network(self, number: int, state: str) -> None:
        """Plug a network's cable in (``up``) or out (``down``)."""
        ip("-n", self.names[0], "link", "set", f"net{number}", state)
