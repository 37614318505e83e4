"""The tools for wires without connections, as a transport over datagrams of which some are lost."""

from pathlib import Path
from typing import Any

import pytest

from anywire.testing.transport_kit import TransportConformance


class TestPackets(TransportConformance):
    transport = "packets"
    plugins = (str(Path(__file__).with_name("packets.py")),)

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        return {"directory": str(tmp_path), "lost": 0.005}
