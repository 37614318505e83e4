"""The connection to the cluster, or a cluster of this machine alone. Importing this module imports Ray."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from anywire_launcher_ray.messages import Connect, Connected

OBJECT_STORE = 80 * 1024 * 1024
"""Bytes of the object store of a cluster of this machine alone, Ray's least: agents put nothing into it."""
FIRST_WITH_TOKENS = (2, 52)
"""The version of Ray that has them."""
END_TIMEOUT = 5.0
"""Seconds that the processes of such a cluster have to end before they are killed."""


class Cluster:
    """Connected, once it is made. Raises what Ray raises when it cannot be."""

    def __init__(self, connect: Connect) -> None:
        self._folder = Path(connect.folder) if not connect.address else None
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        arguments: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "error",
            "namespace": secrets.token_hex(8),
        }
        if self._folder is not None:
            _ask_for_token(self._folder)
            arguments |= {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
                # Ray opens this folder to everybody; the one around it is this user's alone.
                "_temp_dir": str(self._folder / "r"),
            }
            if sys.platform == "linux":
                # Ray takes 127.0.0.1 for another address of this machine, which others may reach.
                arguments["_node_ip_address"] = "127.0.0.2"
        else:
            arguments["address"] = connect.address
            if _is_loopback(host := connect.address.rpartition(":")[0]):
                arguments["_node_ip_address"] = host
        import ray

        self._ray = ray
        if self._folder is not None and not knows_tokens(ray.__version__):
            raise RuntimeError(
                f"Ray {ray.__version__} lets in whoever reaches its ports, which are open on all interfaces: a cluster "
                "of this machine needs Ray 2.52 or later; pip install 'anywire-launcher-ray[ray]'"
            )
        try:
            self._context = ray.init(**arguments)
        except BaseException:
            self.close()
            raise

    def connected(self) -> Connected:
        """What the launcher is told of it."""
        told = self._context.address_info
        nodes = sum(1 for each in self._ray.nodes() if each["Alive"])
        ports = _open_ports() if self._folder is not None else []
        return Connected(told["gcs_address"], self._ray.__version__, told["node_ip_address"], nodes, ports)

    def close(self) -> None:
        """Leave the cluster, which ends what this driver has started there. Nothing is left of one of this machine
        alone."""
        children = psutil.Process().children(recursive=True)
        self._ray.shutdown()
        if self._folder is None:
            return
        _, left = psutil.wait_procs(children, END_TIMEOUT)
        for each in left:
            each.kill()
        psutil.wait_procs(left, END_TIMEOUT)
        shutil.rmtree(self._folder, ignore_errors=True)


def _ask_for_token(folder: Path) -> None:
    """Have the cluster that is started refuse whoever has no token, since its ports are open on all interfaces. The
    token is in a file that this user alone can read."""
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def knows_tokens(version: str) -> bool:
    """Whether a Ray of that version asks for a token. One that cannot be read is taken for a newer one."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is None or (int(found[1]), int(found[2])) >= FIRST_WITH_TOKENS


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _open_ports() -> list[int]:
    """The ports on which this process and those below it listen on all interfaces."""
    found: set[int] = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue  # it has ended, or this user may not look
        listening = (each.laddr for each in connections if each.status == psutil.CONN_LISTEN)
        found.update(address.port for address in listening if address.ip in ("0.0.0.0", "::"))
    return sorted(found)
