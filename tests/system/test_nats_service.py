"""The service ``nats`` with all that it hears, held to the contract of services, with its server there and away."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.integration.nats_servers import needs_nats_server
from tests.system.nats_rig import jetstream_server

from anywire.service import Service
from anywire.testing.service_kit import ServiceConformance

ALL: dict[str, Any] = {
    "collector": {},
    "worker": {},
    "submissions": {},
    "publish": ["answers", "deliberations", "tasks"],
}


class TestWithItsServerAway(ServiceConformance):
    service = "nats"
    options: ClassVar[dict[str, Any]] = {"servers": "nats://127.0.0.1:1", **ALL}


@needs_nats_server
class TestWithItsServer(ServiceConformance):
    service = "nats"
    options: ClassVar[dict[str, Any]] = dict(ALL)

    @pytest.fixture(autouse=True)
    async def server(self, tmp_path: Path) -> Any:
        async with jetstream_server(tmp_path) as server:
            self.url = server.url
            yield

    def make(self) -> Service:
        made = super().make()
        made.config.servers = [self.url]
        return made
