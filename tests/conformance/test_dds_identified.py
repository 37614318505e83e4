"""Ends with identities hold the same contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.long_form import in_the_long_form_alone

from anywire.identities.identity_proof import read_proof
from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.ends import EndTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.streams import StreamTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.kit.wires import WireTests
from anywire.testing.rig import Rig
from anywire.testing.transport_kit import TransportConformance
from anywire.transport import Plane


class TestIdentifiedDds(TransportConformance):
    transport = "dds-identified"
    plugins = (str(Path(__file__).parent / "identified_dds.py"),)

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of("dds")

    @pytest.mark.parametrize("plane", ["agent", "client"])
    async def test_proofs_come_to_the_other_end_as_they_were_sent(self, rig: Rig, plane: Plane) -> None:
        """The transport makes them, for what it opens, and with its own key as the binding."""
        _, agent, _ = await rig.port("a", plane=plane, incarnation=1)
        _, sink, _ = await rig.hub("h", plane=plane, incarnation=1)
        proofs = [(await sink.event("joined", "a"))[3].proof, (await agent.event("hub_joined", "h"))[3].proof]
        of_agent, of_hub = map(read_proof, proofs)
        assert of_agent is not None
        assert of_hub is not None
        assert of_agent.is_valid(plane, "agent", "a", 1)
        assert of_hub.is_valid(plane, "hub", "h", 1)
        assert of_agent.binding != of_hub.binding != ""


# What takes long, and has little to do with who has written a sample.
in_the_long_form_alone(
    TestIdentifiedDds,
    ClientTests,
    DeathTests,
    EndTests,
    PauseTests,
    PressureTests,
    ProgressTests,
    RogueTests,
    StreamTests,
    VersionTests,
    WireTests,
)
