"""Processes paused by SIGSTOP over DDS: an orchestrator and an agent, for a little more than a lease and for three.

Their peers rightly lose them. What they find when they go on is no fault of their peers: everybody joins again, tasks
of which nothing was shown are answered, and streams that had begun end with ``agent_lost``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anywire.errors import AgentLost, AnywireError
from anywire.identity import hub_info
from anywire.messages import AgentStatus
from anywire.pipeline.orchestrator import Orchestrator
from anywire.selector import AgentView
from anywire.task_stream import TaskStream
from anywire.testing.doubles import Script, ScriptedEngine, fifo, least_loaded
from anywire.testing.recorder import Recorder, RecordingAgentSink
from anywire.testing.rig import Rig, read, submit
from anywire_dds import DdsConfig, DdsTransport

LEASE = 1.0
AGENTS = ("a0", "a1")
PAUSES = pytest.mark.parametrize("leases", [1.3, 3.0])


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


class PausedOrchestrator(Recorder):
    """An orchestrator in a process of its own; its events are lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process
        self._reading = asyncio.create_task(self._read())

    async def pause(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def submit(self, script: Script, *, stream: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([script.body(), stream]).encode() + b"\n")

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.add(*json.loads(line))


@asynccontextmanager
async def orchestrator(domain: int) -> AsyncIterator[PausedOrchestrator]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(domain), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    running = PausedOrchestrator(started)
    try:
        yield running
    finally:
        await running.end()


async def has_joined_again(recorder: Recorder, name: str) -> None:
    """Wait until it has joined after the last time it was lost."""

    def joined() -> bool:
        names = [event[0] for event in recorder.events if event[1:2] == (name,)]
        return names.count("joined") == names.count("lost") + 1

    await recorder.until(joined, f"{name} joined again")


def times_started(engine: Recorder, tag: str) -> int:
    return sum(event[1] == tag for event in engine.named("started"))


@PAUSES
async def test_a_paused_orchestrator_finds_its_agents_again(rig: Rig, leases: float) -> None:
    engine = Recorder()
    for name in AGENTS:
        await rig.agent(name, lease=LEASE, engine=ScriptedEngine(engine))
    watching: list[RecordingAgentSink] = []
    for number in range(2):
        port, sink, info = await rig.port(f"bare{number}")
        port.report(AgentStatus(info.agent_id, info.incarnation))  # it serves nothing
        watching.append(sink)
    async with orchestrator(rig.options["domain"]) as paused:
        for name in AGENTS:
            await paused.event("joined", name)
        for sink in watching:
            await sink.event("hub_joined", "paused")
        begun = Script(tag="begun", chunks=4, hold_after=2)
        paused.submit(begun, stream=True)
        await paused.event("text", "begun", begun.delta(0) + begun.delta(1))
        held = [Script(tag=f"held{number}", chunks=3, hold_after=0) for number in range(2)]
        for script in held:
            paused.submit(script, stream=True)
        for script in held:
            await engine.event("started", script.tag, 1)
        await paused.pause(leases * LEASE)
        for sink in watching:
            await sink.event("hub_lost", "paused")  # at the latest when it says that it is there again
        for name in AGENTS:
            await has_joined_again(paused, name)
        for number, sink in enumerate(watching):
            await sink.until(lambda sink=sink: len(sink.named("hub_joined")) == 2, "joined again")  # type: ignore[misc]
            await has_joined_again(paused, f"bare{number}")
        await paused.event("ended", "begun", "agent_lost")
        # Of the others nothing was shown: they are sent again.
        for script in held:
            await engine.until(lambda tag=script.tag: times_started(engine, tag) == 2, "started again")  # type: ignore[misc]
        after = [Script(tag=f"after{number}", chunks=3) for number in range(6)]
        for number, script in enumerate(after):
            paused.submit(script, stream=bool(number % 2))
        for script in after:
            await paused.event("ended", script.tag, script.text())
        ended = [event[1] for event in paused.named("ended")]
        assert sorted(ended) == sorted(["begun", *(script.tag for script in after)])


@PAUSES
async def test_a_paused_agent_joins_again_and_what_it_had_not_begun_is_answered(rig: Rig, leases: float) -> None:
    agent = await rig.peer("agent", "a", lease=LEASE, slots=64)
    await agent.event("ready")
    pipeline = await rig.pipeline("a")
    begun = submit(pipeline, Script(tag="begun", chunks=9, hold_after=5))
    await anext(begun)
    held = [submit(pipeline, Script(tag=f"held{number}", hold_after=0)) for number in range(2)]
    for number in range(2):
        await agent.event("holding", f"held{number}")
    agent.pause()
    # Sent to a process that does not run: streams and whole answers.
    waiting = [submit(pipeline, Script(tag=f"w{number}", chunks=3), stream=bool(number % 2)) for number in range(8)]
    await rig.seen(pipeline, absent=["a"])
    await asyncio.sleep((leases - 1) * LEASE)
    agent.resume()
    with pytest.raises(AgentLost):
        await read(begun)
    for number, stream in enumerate(waiting):
        assert await read(stream) == Script(tag=f"w{number}", chunks=3).text()
    for number in range(2):
        await agent.event("started", f"held{number}", 2)
        held[number].cancel("seen enough")
    await rig.seen(pipeline, "a")


# The other process


class _Lines:
    """Writes events to standard output."""

    def __init__(self) -> None:
        self._agents: set[str] = set()

    def add(self, *event: Any) -> None:
        print(json.dumps(event), flush=True)

    def agents_are(self, views: list[AgentView]) -> bool:
        now = {view.agent_id for view in views if view.status.state == "ready"}
        for name in sorted(now - self._agents):
            self.add("joined", name)
        for name in sorted(self._agents - now):
            self.add("lost", name)
        self._agents = now
        return False


async def _answer(stream: TaskStream, tag: str, lines: _Lines) -> None:
    text = ""
    try:
        async for chunk in stream:
            text += "".join(chunk.deltas)
            lines.add("text", tag, text)
    except AnywireError as error:
        lines.add("ended", tag, error.code)
    else:
        lines.add("ended", tag, text)


async def orchestrate(domain: int) -> None:
    """An orchestrator that is told on standard input what to submit."""
    lines = _Lines()
    transport = DdsTransport(DdsConfig(domain=domain))
    pipeline = Orchestrator(hub_info("paused", lease=LEASE), [transport], fifo(), least_loaded())
    await pipeline.start()
    watching = asyncio.create_task(pipeline.agents_until(lines.agents_are))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answers = []
    async for line in reader:
        body, stream = json.loads(line)
        tag = json.loads(body)["tag"]
        script = Script(**json.loads(body))
        answers.append(asyncio.create_task(_answer(submit(pipeline, script, stream=stream), tag, lines)))
    watching.cancel()
    await pipeline.close()
    await asyncio.gather(*answers)


if __name__ == "__main__":
    asyncio.run(orchestrate(int(sys.argv[1])))
