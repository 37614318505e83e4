"""Which configurations of a transport only this machine's processes can reach."""

from __future__ import annotations

from typing import Any

import pytest

from anywire.plugins import Plugins

HTTP: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"agent_addresses": "http://127.8.0.1:1", "client_addresses": ["http://[::1]:1", "http://localhost:2"]}, True),
    ({"client_addresses": ["http://127.0.0.1:1", "http://10.0.0.1:1"]}, False),
    ({"agent_addresses": "https://gateway.example/api"}, False),
    ({"agent_listen": "http://0.0.0.0:0", "agent_url": "http://127.0.0.1:1"}, False),
    ({"agent_url": "http://10.0.0.1:1"}, False),
    ({"client_addresses": "http://127.0.0.1.example:1"}, False),
]
ZEROMQ: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"agent_addresses": "ipc:///run/a", "client_addresses": ["tcp://[::1]:1", "tcp://localhost:2"]}, True),
    ({"agent_addresses": "tcp://*:1"}, False),
    ({"agent_addresses": "tcp://127.0.0.1.example:1"}, False),
    ({"agent_addresses": "tcp://10.0.0.1:1"}, False),
]
GRPC: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"agent_addresses": "unix:/run/a", "client_addresses": ["[::1]:1", "localhost:2"]}, True),
    ({"agent_addresses": "[::]:1"}, False),
    ({"client_addresses": "machine:1"}, False),
]
CASES = [
    *(("http", options, local) for options, local in HTTP),
    *(("zeromq", options, local) for options, local in ZEROMQ),
    *(("grpc", options, local) for options, local in GRPC),
]


@pytest.mark.parametrize(("name", "options", "local"), CASES)
def test_transport_is_local_only_if_all_its_addresses_are(name: str, options: dict[str, Any], local: bool) -> None:
    assert Plugins().create("transports", name, options).is_local is local
