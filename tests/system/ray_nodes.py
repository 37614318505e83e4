"""A Ray cluster of several nodes on this machine, whose nodes tests kill, and what is left afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tests.patience import PATIENCE

MARK = "ANYWIRE_TEST_MARK"
"""A variable of the environment that all processes of a test inherit."""
HEAD = "127.0.0.2"
"""Ray takes 127.0.0.1 for another address of the machine."""
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 3,
    "gcs_rpc_server_reconnect_timeout_s": 5,
}
"""A node's death is noticed within a second, and that of the head within five."""
SHARED_MEMORY = Path("/dev/shm")


class Nodes:
    """A cluster; ``cpus`` are those that each node says it has. Its head listens on ``port``, by default on a free
    one."""

    def __init__(self, folder: Path, cpus: int, port: int = 0) -> None:
        from ray.cluster_utils import Cluster

        self._cpus, self._files = cpus, folder / "ray"
        # Ray adds to the settings that it is given.
        settings = {"_system_config": dict(QUICK)}
        head = {"num_cpus": cpus, "node_ip_address": HEAD, "include_dashboard": False, **settings}
        if port:
            head["gcs_server_port"] = port
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        """One more node."""
        node = self._cluster.add_node(num_cpus=self._cpus, node_ip_address=HEAD)
        self._cluster.wait_for_nodes(PATIENCE)
        return node

    @property
    def head(self) -> Any:
        return self._cluster.head_node

    def kill(self, node: Any) -> list[psutil.Process]:
        """Kill a node with all that runs on it, at once. Returns its processes, for `ended`."""
        roots = [each.process.pid for group in node.all_processes.values() for each in group]
        family = [psutil.Process(pid) for pid in roots if psutil.pid_exists(pid)]
        family += [below for each in family for below in each.children(recursive=True)]
        for each in family:
            _kill(each)
        return family

    def close(self) -> None:
        """End it, with its files: those of others stay where they are."""
        self._cluster.shutdown()
        shutil.rmtree(self._files, ignore_errors=True)


@contextmanager
def nothing_left() -> Iterator[Path]:
    """Gives a short folder, in which all temporary files are made meanwhile. Fails when processes, files in it or
    shared memory are left at the end, and removes them."""
    mark, shared = secrets.token_hex(8), set(SHARED_MEMORY.iterdir())
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    before = {name: os.environ.get(name) for name in (MARK, "TMPDIR", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED")}
    os.environ |= {MARK: mark, "TMPDIR": str(folder), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    earlier, tempfile.tempdir = tempfile.tempdir, None
    try:
        yield folder
    finally:
        tempfile.tempdir = earlier
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {name: value} if value is not None else {}
        processes = marked(mark)
        _, processes = psutil.wait_procs(processes, PATIENCE / 4)
        said = [f"{each.pid} {' '.join(each.cmdline())[:120]}" for each in processes if each.is_running()]
        for each in processes:
            _kill(each)
        files = [str(each.relative_to(folder)) for each in folder.iterdir()]
        shutil.rmtree(folder, ignore_errors=True)
        memory = [each.name for each in SHARED_MEMORY.iterdir() if each not in shared]
        assert not said, f"processes are left: {said}"
        assert not files, f"temporary files are left: {files}"
        assert not memory, f"shared memory is left: {memory}"


def marked(mark: str) -> list[psutil.Process]:
    """Every other process that has inherited the mark."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.pid != os.getpid() and each.environ().get(MARK) == mark:
                found.append(each)
        except psutil.Error:
            continue  # it has ended, or is somebody else's
    return found


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
