"""Bounds over DDS: a peer that does not read is felt by its own link and by nothing else."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anywire.errors import Congested, PayloadTooLarge, TransportError
from anywire.identity import hub_info
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, TaskRequest
from anywire.testing.patience import START_PATIENCE as PATIENCE
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, request
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES, Reply
from anywire_dds import DdsConfig, DdsTransport
from anywire_dds.outbox import WINDOW, WINDOW_MESSAGES


@pytest.fixture
def options(dds_domain: int) -> dict[str, Any]:
    return {"domain": dds_domain}


@pytest.fixture
async def rig(options: dict[str, Any]) -> AsyncIterator[Rig]:
    async with Rig("dds", options) as rig:
        yield rig


@pytest.fixture
async def remote(options: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """An agent named ``echo`` in another process, with a lease of 10 s: it can be paused without being lost."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(options["domain"]), stdin=asyncio.subprocess.PIPE
    )
    yield process
    if process.returncode is None:
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
    await process.wait()


async def echo_until_stdin_ends(domain: int) -> None:
    info = AgentInfo("echo", 1, lease_ms=10_000)
    port = await DdsTransport(DdsConfig(domain=domain)).open_agent(info, "agent", _Echo())
    port.report(AgentStatus("echo", 1))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    await port.close()


class _Echo(RecordingAgentSink):
    """Answers with the body; what waits for room is sent when there is some."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[tuple[Chunk, Reply]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        self._waiting.append((Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True), reply))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while self._waiting:
            chunk, reply = self._waiting[0]
            try:
                reply.send(chunk)
            except Congested:
                await reply.drain()
            else:
                self._waiting.popleft()


def fill(send: Any, most: int) -> int:
    """Send until it is refused; how many were accepted."""
    for number in range(most):
        try:
            send(number)
        except Congested:
            return number
    pytest.fail(f"{most} messages were accepted and none was read")


async def finals(sink: RecordingHubSink, count: int) -> list[Chunk]:
    await sink.until(lambda: len(sink.named("chunk")) >= count, f"{count} answers")
    return [event[3] for event in sink.named("chunk")]


@pytest.mark.parametrize("size", [10, 20_000, 2 * WINDOW])
async def test_paused_agent_congests_its_own_link_only_and_gets_everything_later(
    rig: Rig, remote: asyncio.subprocess.Process, size: int
) -> None:
    await rig.port("near", lambda task, reply: reply.send(Chunk(task.hub_id, task.task_id, 1, 0, final=True)))
    hub, sink, info = await rig.hub()
    await sink.event("joined", "echo")
    await sink.event("joined", "near")
    remote.send_signal(signal.SIGSTOP)
    body = "x" * size
    # Each sample has an envelope of at least 64 bytes; one may begin in what is left of the window.
    most = min(WINDOW // size + 1, WINDOW_MESSAGES) + BUFFER_BYTES // max(size, 64) + 2
    accepted = fill(lambda number: hub.send("echo", request(info, f"t{number}", body=body)), most)
    draining = asyncio.create_task(hub.drain("echo"))
    # Small messages that end or feed a task always go.
    hub.send("echo", Cancel(info.hub_id, "unknown", 1))
    hub.send("near", request(info, "near"))
    await sink.final("near")
    await hub.drain("near")
    assert not draining.done()
    remote.send_signal(signal.SIGCONT)
    await asyncio.wait_for(draining, PATIENCE)
    answers = await finals(sink, accepted + 1)
    assert sorted(answer.task_id for answer in answers) == sorted(
        ["near", *(f"t{number}" for number in range(accepted))]
    )
    hub.send("echo", request(info, "again", body="again"))
    await sink.final("again")


async def test_more_than_cyclone_takes_waits_and_arrives(rig: Rig, remote: asyncio.subprocess.Process) -> None:
    """Control messages have no window of their own: 10 MB of them are more than the writer's history may hold."""
    hub, sink, info = await rig.hub()
    await sink.event("joined", "echo")
    remote.send_signal(signal.SIGSTOP)
    for number in range(12_000):
        hub.send("echo", Cancel(info.hub_id, f"t{number}", 1, "r" * 1000))
    waiting = [thread for thread in threading.enumerate() if "acks" in thread.name]
    assert len(waiting) == 1
    remote.send_signal(signal.SIGCONT)
    hub.send("echo", request(info, "t", body="x"))
    await sink.final("t")
    await asyncio.to_thread(waiting[0].join, PATIENCE)
    assert not waiting[0].is_alive()
    assert not sink.named("send_failed")


async def test_agent_lost_while_congested_releases_everybody(rig: Rig) -> None:
    agent = await rig.peer("agent", "a", lease=1.0)
    await agent.event("ready")
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    agent.pause()
    fill(lambda number: hub.send("a", request(info, f"t{number}", body="x" * 100_000)), 1000)
    for number in range(12_000):
        hub.send("a", Cancel(info.hub_id, f"t{number}", 1, "r" * 1000))
    draining = asyncio.create_task(hub.drain("a"))
    await sink.event("lost", "a")
    await asyncio.wait_for(draining, PATIENCE)
    for thread in [thread for thread in threading.enumerate() if "acks" in thread.name]:
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()


async def test_hub_that_does_not_read_congests_its_replies(rig: Rig) -> None:
    """Within one process too, where DDS itself would take any amount."""
    replies: dict[str, Reply] = {}

    def keep(task: TaskRequest, reply: Reply) -> None:
        replies[task.hub_id] = reply

    _, agent, _ = await rig.port("a", keep)
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await agent.event("task", "t")
    reply = replies[info.hub_id]
    # Not yielding to the loop, nobody reads.
    most = WINDOW_MESSAGES + BUFFER_BYTES // 64
    accepted = fill(lambda number: reply.send(Chunk(info.hub_id, "t", 1, number, ("token",))), most)
    await asyncio.wait_for(reply.drain(), PATIENCE)
    reply.send(Chunk(info.hub_id, "t", 1, accepted, final=True))
    await sink.final("t")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(accepted + 1))


@pytest.mark.parametrize("megabytes", [1, 10, 32])
async def test_large_messages_cross_processes(rig: Rig, remote: asyncio.subprocess.Process, megabytes: int) -> None:
    hub, sink, info = await rig.hub()
    await sink.event("joined", "echo")
    body = "0123456789abcdef" * (megabytes * 65536)
    hub.send("echo", request(info, "large", body=body))
    hub.send("echo", request(info, "small", body="after it"))
    assert (await sink.final("large")).deltas == (body,)
    assert (await sink.final("small")).deltas == ("after it",)


async def test_a_long_stream_moves_the_window_many_times(rig: Rig) -> None:
    """50,000 chunks of 200 bytes: ten times the window, in order and complete."""

    async def answer(task: TaskRequest, reply: Reply) -> None:
        for number in range(50_000):
            try:
                reply.send(Chunk(task.hub_id, task.task_id, 1, number, ("x" * 100,), final=number == 49_999))
            except Congested:
                await reply.drain()
                reply.send(Chunk(task.hub_id, task.task_id, 1, number, ("x" * 100,), final=number == 49_999))

    tasks = []
    await rig.port("a", lambda task, reply: tasks.append(asyncio.ensure_future(answer(task, reply))))
    hub, sink, info = await rig.hub()
    await sink.event("joined", "a")
    hub.send("a", request(info, "t"))
    await sink.until(lambda: sink.events[-1][0] == "chunk" and sink.events[-1][3].final, "the end of the stream", 60)
    assert [event[3].seq for event in sink.named("chunk")] == list(range(50_000))


async def test_after_drain_a_message_of_any_legal_size_is_accepted(
    rig: Rig, remote: asyncio.subprocess.Process
) -> None:
    """Also where only little fits: the next one is taken whole, no more than fits is taken after it, and it arrives."""
    hub, sink, info = await rig.hub(options={"buffer_bytes": 100_000})
    await sink.event("joined", "echo")
    remote.send_signal(signal.SIGSTOP)
    accepted = fill(lambda number: hub.send("echo", request(info, f"t{number}", body="x" * 50_000)), 100)
    assert accepted <= WINDOW // 50_000 + 1 + 2
    remote.send_signal(signal.SIGCONT)
    await asyncio.wait_for(hub.drain("echo"), PATIENCE)
    remote.send_signal(signal.SIGSTOP)
    large = "x" * MAX_MESSAGE_BYTES
    hub.send("echo", request(info, "large", body=large))
    # The large one waits, or it is on its way and what the buffer holds is accepted beside it.
    assert fill(lambda number: hub.send("echo", request(info, f"more{number}", body="x" * 50_000)), 100) <= 2
    remote.send_signal(signal.SIGCONT)
    assert (await sink.final("large")).deltas == (large,)
    for number in range(accepted):
        await sink.final(f"t{number}")


async def test_payload_is_measured_and_not_its_encoding(rig: Rig) -> None:
    """What is exactly as large as the limit is carried, in as many pieces as it comes; one byte more is refused."""
    limit = 100_000
    options = {"max_message_bytes": limit}
    pieces = ("ä",) * (limit // 2)

    def answer(task: TaskRequest, reply: Reply) -> None:
        with pytest.raises(PayloadTooLarge, match=str(limit)):
            reply.send(Chunk(task.hub_id, task.task_id, 1, 0, (*pieces, "x")))
        with pytest.raises(PayloadTooLarge, match=str(limit)):
            reply.send(Chunk(task.hub_id, task.task_id, 1, 0, error="x" * (limit + 1), final=True))
        reply.send(Chunk(task.hub_id, task.task_id, 1, 0, pieces, final=True))

    await rig.port("a", answer, options=options)
    hub, sink, info = await rig.hub(options=options)
    await sink.event("joined", "a")
    with pytest.raises(PayloadTooLarge, match=str(limit)):
        hub.send("a", request(info, "t", body="x" * (limit + 1)))
    with pytest.raises(TransportError, match="cannot be written"):
        hub.send("a", request(info, "t", body="\ud800"))
    hub.send("a", request(info, "t", body="x" * limit))
    assert (await sink.final("t")).deltas == pieces


async def test_bounds_are_in_the_effective_settings(rig: Rig) -> None:
    transport = rig.new_transport(buffer_bytes=123_456)
    sink = RecordingHubSink()
    hub = await transport.open_hub(hub_info("h"), "agent", sink)
    settings = transport.effective_settings()
    await hub.close()
    assert (settings["max_message_bytes"], settings["buffer_bytes"]) == (str(MAX_MESSAGE_BYTES), "123456")


if __name__ == "__main__":
    asyncio.run(echo_until_stdin_ends(int(sys.argv[1])))
