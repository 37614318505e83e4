"""What tests of every kind share."""

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dds_domain() -> int:
    """A DDS domain of this process of this test run alone."""
    count, number = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)), 0
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        number = int(worker.removeprefix("gw"))
    return random.SystemRandom().randrange(10 + number, 200, count)


@pytest.fixture
def options_of(dds_domain: int) -> Callable[[str], dict[str, Any]]:
    """The options with which a transport of that name disturbs nobody and is disturbed by nobody."""

    def options(name: str) -> dict[str, Any]:
        if name == "dds":
            return {"domain": dds_domain}
        if name in ("grpc", "http", "zeromq"):
            scheme = {"grpc": "", "http": "http://", "zeromq": "tcp://"}[name]
            # Three may listen at a time: a hub each on the agent plane, orchestrators on the client plane.
            addresses = [f"{scheme}127.0.0.1:{port}" for port in _free_ports(5)]
            return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}
        return {}

    return options


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports
