"""The transport over the real nats-server, against the whole kit."""

from __future__ import annotations

from tests.integration.nats_conformance import NatsConformance
from tests.integration.nats_servers import needs_nats_server


@needs_nats_server
class TestNats(NatsConformance):
    pass
