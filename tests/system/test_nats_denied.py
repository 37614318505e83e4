"""A server that does not let the service publish to one of its subjects holds up no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.nats_servers import needs_nats_server
from tests.jetstream.test_outbox import message
from tests.patience import FACTOR
from tests.system.event_stream import events, jetstream
from tests.system.test_nats_kills import publisher

from anywire.testing.patience import expect, polled
from anywire_service_nats import publishing
from anywire_service_nats.publishing import AT_ONCE

pytestmark = [pytest.mark.timeout(120), needs_nats_server]

ANSWERS, RESULTS = "agent.response.completed", "deliberation.completed"
RIGHTS = (
    'authorization {{ users: [{{user: "us", password: "pw", permissions: {{ publish: {{ deny: [{}] }} }} }}, '
    '{{user: "other", password: "pw"}}] }}\nno_auth_user: "other"'
)


async def test_messages_to_a_subject_that_is_denied_wait_and_those_to_others_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LONGEST_HOLD", 1.0)
    denied = [message(f"d{number}", f"d-{number}", RESULTS) for number in range(4 * AT_ONCE)]
    allowed = [message(f"a{number}", f"a-{number}", ANSWERS) for number in range(10)]
    async with (
        jetstream(tmp_path, RIGHTS.format(RESULTS)) as server,
        publisher(tmp_path / "outbox", server, user="us", password="pw") as own,
    ):
        await own.outbox.put([*denied, *allowed])
        await polled(
            lambda: own.publishing.published.get(ANSWERS) == 10, "those that are allowed are published", 30 * FACTOR
        )
        assert own.outbox.messages >= len(denied)
        told = [each for each in caplog.messages if "what is for it waits" in each]
        assert len(told) == 1
        assert "permissions violation" in told[0]
        server.settings = server.settings.replace(f"deny: [{RESULTS}]", "deny: [nothing]")
        await server.cut()
        await own.all_published()
        found = await expect(events(server, RESULTS, least=len(denied)), "all are there")
    assert sorted(each.id for each in found) == sorted(each.envelope.id for each in denied)
