"""Streams that others have made with settings of their own: each event is in them once all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.js.api import StreamConfig, SubjectTransform
from tests.integration.nats_servers import needs_nats_server
from tests.patience import FACTOR
from tests.system.event_stream import client, jetstream
from tests.system.test_nats_kills import losing, publisher, some

from anywire_service_nats import broker

pytestmark = [pytest.mark.timeout(120), needs_nats_server]


async def ids(stream: object, name: str, many: int) -> list[str]:
    found = [await stream.get_msg(name, seq=number) for number in range(1, many + 1)]  # type: ignore[attr-defined]
    return sorted(each.headers["Nats-Msg-Id"] for each in found)


async def test_a_stream_that_acknowledges_nothing_is_told_and_has_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker, "REPLY_TIMEOUT", 1.0 * FACTOR)
    wanted = some(0, 20)
    async with jetstream(tmp_path) as server, client(server) as stream:
        await stream.add_stream(StreamConfig(name="mute", subjects=["agent.response.>"], no_ack=True))
        async with publisher(tmp_path / "outbox", server) as own:
            await own.outbox.put(wanted)
            await own.all_published()
        assert await ids(stream, "mute", 20) == sorted(each.envelope.id for each in wanted)
        assert (await stream.stream_info("mute")).state.messages == 20
    assert len([each for each in caplog.messages if "acknowledges nothing (no_ack)" in each]) == 1


async def test_a_stream_that_keeps_messages_under_other_subjects_has_each_once(tmp_path: Path) -> None:
    """Acknowledgements are lost, and the stream has forgotten the ids when it is searched."""
    wanted = some(0, 50)
    async with jetstream(tmp_path) as server, client(server) as stream, losing(server, 3) as url:
        transform = SubjectTransform(src="agent.response.>", dest="kept.>")
        await stream.add_stream(
            StreamConfig(
                name="AGENT_RESPONSES",
                subjects=["agent.response.>"],
                subject_transform=transform,
                duplicate_window=0.1,
            )
        )
        behind = type("Behind", (), {"url": url})()
        async with publisher(tmp_path / "outbox", behind, duplicate_window=0.1) as own:
            await own.outbox.put(wanted)
            await own.all_published()
            assert own.publishing.found > 0, "acknowledgements were lost"
        assert (await stream.stream_info("AGENT_RESPONSES")).state.messages == 50
        assert await ids(stream, "AGENT_RESPONSES", 50) == sorted(each.envelope.id for each in wanted)
