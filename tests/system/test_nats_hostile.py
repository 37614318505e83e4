"""Messages of strangers that are made to harm: whoever publishes one stops nothing of what others publish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.system.nats_rig import Outside, jetstream_server, orchestrator, outside
from tests.system.test_nats_collector import COLLECTOR, DURABLE, FAILED, STREAM, answer, counted

from anywire.testing.patience import polled

pytestmark = needs_nats_server

_ANSWER = (
    b'{"event_id":"1","case_id":"t","ts":"2026-01-01T00:00:00Z","producer":"w","task_id":"t","agent_id":"a","proposal":'
)
_TO = b"agent.response.completed"
HOSTILE = {
    "a status of the server": (_TO, b"NATS/1.0\r\nStatus: 409\r\n\r\n", b""),
    "that nothing waits": (_TO, b"NATS/1.0\r\nStatus: 404\r\n\r\n", b""),
    "headers that are none": (_TO, b"XX", b"{}"),
    "headers without an end": (_TO, b"NATS/1.0", b"{}"),
    "headers of no text": (_TO, b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n", b"{}"),
    "a subject with white space": (b"agent.response.\x0b.completed", b"", b"{}"),
    "a subject of no text": (b"agent.response.\xff.completed", b"", b"{}"),
    "a number that no disk takes": (_TO, b"", _ANSWER + b'{"n":123456789012345678901234567890}}'),
    "lists in lists": (_TO, b"", _ANSWER + b"[" * 940 + b"]" * 940 + b"}"),
}


async def publish(server: NatsServer, subject: bytes, headers: bytes, data: bytes) -> None:
    """Without a client, which would not send that."""
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
    if headers:
        head = b"HPUB %s %d %d\r\n" % (subject, len(headers), len(headers) + len(data))
    else:
        head = b"PUB %s %d\r\n" % (subject, len(data))
    writer.write(head + headers + data + b"\r\nPING\r\n")
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_a_stranger_publishes_stops_nothing(tmp_path: Path, kind: str) -> None:
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.stream(STREAM, "agent.response.>")
        for _ in range(3):
            await publish(server, *HOSTILE[kind])
        async with orchestrator(server, tmp_path, **COLLECTOR) as bench:
            await others.tell(answer("t-1", "a"))
            await counted(bench, "t-1", 1)
            await publish(server, *HOSTILE[kind])
            await others.tell(answer("t-2", "a"))
            await counted(bench, "t-2", 1)
            await others.until_acknowledged(STREAM, DURABLE)


@asynccontextmanager
async def steady(others: Outside) -> AsyncIterator[None]:
    """Answers to other tasks, without an end."""

    async def publish() -> None:
        number = 0
        while True:
            number += 1
            await asyncio.gather(*(others.tell(answer(f"other-{number}", f"a-{n}", agents=9)) for n in range(9)))

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


async def test_a_task_ends_with_its_time_also_while_others_are_answered(tmp_path: Path) -> None:
    async with (
        jetstream_server(tmp_path) as server,
        outside(server) as others,
        orchestrator(server, tmp_path, collector={"time_limit": 0.5}),
    ):
        await others.stream(STREAM, "agent.response.>")
        await others.tell(answer("late", "a"))
        async with steady(others):
            (message,) = await others.until(FAILED, 1, "its end is told")
        assert (message.payload["task_id"], message.payload["error_type"]) == ("late", "timeout")


async def test_submissions_that_nobody_can_take_hold_up_no_others(tmp_path: Path) -> None:
    chat = {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.stream("ANYWIRE_SUBMISSIONS", "anywire.submit.*")
        unserved = chat | {"model": "nobody's"}
        publish = others.publish
        await asyncio.gather(*(publish("anywire.submit.chat", unserved, Anywire_Id=f"n-{i}") for i in range(1010)))
        async with orchestrator(server, tmp_path, submissions={}):
            await publish("anywire.submit.chat", chat, Anywire_Id="good")
            (ended,) = await others.until("anywire.submitted.completed", 1, "the one that can be answered is")
            assert ended.payload["id"] == "good"


@pytest.mark.parametrize(
    ("consumer", "why"),
    [
        ({"durable_name": "theirs"}, "takes no consumer"),
        ({"durable_name": "anywire-agent-requests", "filter_subject": "agent.other"}, "is for agent.other"),
        ({"durable_name": "anywire-agent-requests", "ack_policy": "none"}, "waits for no acknowledgement"),
    ],
)
async def test_a_consumer_of_somebody_that_does_not_do_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, consumer: dict[str, str], why: str
) -> None:
    retention = RetentionPolicy.WORK_QUEUE if consumer["durable_name"] == "theirs" else RetentionPolicy.LIMITS
    async with jetstream_server(tmp_path) as server, outside(server) as others:
        await others.jetstream.add_stream(
            StreamConfig(name="REQUESTS", subjects=["agent.requests", "agent.other"], retention=retention)
        )
        policy = {"ack_policy": "explicit"} | consumer
        await others.jetstream.add_consumer("REQUESTS", ConsumerConfig.from_response(policy))
        async with orchestrator(server, tmp_path, worker={}):
            await polled(lambda: why in caplog.text, "it is told")
            assert "nothing of agent.requests is heard" in caplog.text
