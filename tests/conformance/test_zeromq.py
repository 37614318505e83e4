from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from tests.long_form import in_the_long_form_alone

from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.versions import VersionTests
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


# What is the same once a link stands, whatever it runs over: `TestZeromq` has it.
in_the_long_form_alone(
    TestZeromqSecuredOverUnixSockets,
    ClientTests,
    DeathTests,
    FieldTests,
    ForgeryTests,
    PauseTests,
    PressureTests,
    ProgressTests,
    RogueTests,
    VersionTests,
)
