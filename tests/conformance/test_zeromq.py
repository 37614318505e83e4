from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from anywire.testing.transport_kit import TransportConformance


class TestZeromq(TransportConformance):
    transport = "zeromq"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of("zeromq")


class TestZeromqSecuredOverUnixSockets(TransportConformance):
    transport = "zeromq"
    keys_are_shared = True

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        addresses = [f"ipc://{tmp_path}/{number}" for number in range(5)]
        public, secret = (key.decode() for key in zmq.curve_keypair())
        return {
            "agent_addresses": addresses[:3],
            "client_addresses": addresses[3:],
            "secret_key": secret,
            "server_key": public,
            "allowed_keys": [public],
        }
