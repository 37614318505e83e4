"""``anywire watch`` over DDS: what it sees, of whom, and that nobody is held up by it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.test_dds_cdr import library, samples
from tests.patience import PATIENCE

from anywire.cli.watch_events import REMEMBERED, Events, Picture
from anywire.cli.watch_views import Lines
from anywire.errors import EngineFailed, to_wire
from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, HubInfo, TaskRequest
from anywire.observer import ObserverInfo, TaskSeen
from anywire.testing.recorder import Recorder, RecordingAgentSink
from anywire_dds import DdsConfig, DdsTransport, types
from anywire_dds.activity import BUDGET, SLOTS, TEXT, Activity
from anywire_dds.cdr import codec
from anywire_dds.observation import HISTORY

pytestmark = pytest.mark.timeout(120)


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | {"NO_COLOR": "1"}


class Process(Recorder):
    """A running ``anywire`` command; what it prints as JSON are its events, ``(event, members)``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *arguments: str) -> Process:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "anywire.cli", *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
            )
        )

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                event = json.loads(line)
                self.add(event["event"], event)
            else:
                self.add("line", line.decode())

    async def url(self) -> str:
        return str((await self.until(lambda: self.named("line"), "ready"))[0][1].split()[1])

    async def seen(self, event: str, **members: Any) -> dict[str, Any]:
        """Wait for an event with these members."""

        def found() -> dict[str, Any] | None:
            told = (each[1] for each in self.named(event))
            return next((each for each in told if all(each[key] == value for key, value in members.items())), None)

        answer: dict[str, Any] = await self.until(found, f"{event} {members}", PATIENCE)
        return answer

    def tasks(self) -> list[dict[str, Any]]:
        return [each[1] for each in self.named("task")]

    async def text_of(self, count: int) -> list[dict[str, Any]]:
        """The first so many events of tasks that have text."""

        def texts() -> list[dict[str, Any]]:
            return [each for each in self.tasks() if each["text"]]

        await self.until(lambda: len(texts()) >= count, f"{count} texts", PATIENCE)
        return texts()[:count]

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and what it said on stderr."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        assert self.process.stderr is not None
        said = await asyncio.wait_for(self.process.stderr.read(), PATIENCE)
        await self._reading
        return await self.process.wait(), said.decode()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments))
        return running[-1]

    yield begin
    for one in running:
        if one.process.returncode is None:
            await one.end(signal.SIGKILL)


@pytest.fixture
def settings(dds_domain: int, tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a YAML file with the synthetic engine; gives the arguments that use it."""

    def write(**engine: Any) -> list[str]:
        tree = {
            "transports": {"dds": {"domain": dds_domain}},
            "server": {"port": 0},
            "engine": {"name": "synthetic", **engine},
            "agents": {"timeout": 2, "heartbeat_interval": 0.1},
        }
        file = tmp_path / "anywire.yaml"
        file.write_text(json.dumps(tree))
        return ["--config", str(file)]

    return write


def body(*, stream: bool) -> dict[str, Any]:
    return {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}], "stream": stream}


@asynccontextmanager
async def streaming(url: str) -> AsyncIterator[Recorder]:
    """A stream whose first text has come; its events are its texts, as they go on coming."""
    pieces = Recorder()

    async def read() -> None:
        async with (
            httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client,
            client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        pieces.add(f"[{event['error']['code']}]")
                    else:
                        pieces.add(event["choices"][0]["delta"].get("content", ""))

    reading = asyncio.create_task(read())
    try:
        await pieces.until(lambda: any(text for (text,) in pieces.events), "a text")
        yield pieces
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def agents_of(url: str) -> list[str]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return sorted(each["id"] for each in (await client.get("/api/v1/agents")).json()["data"])


async def test_who_comes_late_sees_agents_tasks_and_streams(start: Any, settings: Any) -> None:
    slow = settings(length=100_000, itl=20)
    server = await start("serve", *slow)
    url = await server.url()
    agents = {name: await start("agent", "--agent-id", name, *slow) for name in ("w1", "w2")}
    for agent in agents.values():
        await agent.until(lambda agent=agent: agent.named("line"), "ready")
    async with streaming(url) as pieces:
        watch = await start("watch", "--json", *slow)
        for name in agents:
            assert (await watch.seen("agent_joined", agent=name))["engine"] == "synthetic"
        serving = (await watch.seen("task", state="running"))["agent"]
        assert (await watch.seen("agent_reported", agent=serving, active=1))["slots"] == 1
        first, second, third = await watch.text_of(3)
        # It came in the middle of the answer, and says so; from there on nothing lacks.
        newest = watch.tasks().index(first)
        assert watch.tasks()[0]["missing"]
        assert not any(each["missing"] for each in watch.tasks()[newest + 1 :])
        assert first["age_ms"] > 0
        assert first["chunks"] > len(first["text"].split())
        seen = first["text"] + second["text"] + third["text"]
        await pieces.until(lambda: seen in "".join(text for (text,) in pieces.events), "the same text")
        assert await agents_of(url) == ["w1", "w2"]

        once = await start("watch", "--once", *slow)
        await once.process.wait()
        said = (await once.end())[1], "".join(line for _, line in once.named("line"))
        assert said[0] == ""
        for word in ("w1", "w2", "ready", "running", first["task"]):
            assert word in said[1]

        # kill -9 of the agent: it is lost, and with it the attempt.
        await agents[serving].end(signal.SIGKILL)
        lost = await watch.seen("agent_lost", agent=serving)
        assert "no sign of life" in lost["reason"]
        ended = await watch.seen("task", state="ended", task=first["task"])
        assert ended["error"]["code"] == "agent_lost"
    assert await watch.end(signal.SIGINT) == (0, "")
    assert not [line for line in (await server.end())[1].splitlines() if "WARNING" in line and "watch" in line]


async def test_two_observers_of_one_stream(start: Any, settings: Any) -> None:
    slow = settings(length=100_000, itl=10)
    up = await start("up", "--agents", "1", *slow)
    async with streaming(await up.url()):
        watch = await start("watch", "--json", *slow)
        quiet = await start("watch", "--json", "--no-text", *slow)
        (first,) = await watch.text_of(1)
        await quiet.seen("task", state="running", task=first["task"])
    for each in (watch, quiet):
        ended = await each.seen("task", state="ended", task=first["task"])
        assert (ended["error"] or {}).get("code") == "cancelled", ended
    assert not any(each["text"] or each["missing"] for each in quiet.tasks())
    await up.end(signal.SIGTERM)
    for each in (watch, quiet):
        await each.seen("hub_lost", reason="closed")


async def test_a_stopped_observer_holds_nobody_up(start: Any, settings: Any) -> None:
    quick = settings(length=200)
    up = await start("up", "--agents", "2", "--slots", "8", *quick)
    url = await up.url()
    watch = await start("watch", "--json", "--rate", "20", *quick)
    await watch.seen("hub_reported")
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:

        async def some(count: int) -> None:
            for _ in range(count):
                answer = await client.post("/v1/chat/completions", json=body(stream=False))
                assert answer.status_code == 200

        watch.process.send_signal(signal.SIGSTOP)
        await asyncio.gather(*(some(40) for _ in range(16)))
        stats = (await client.get("/api/v1/stats")).json()
        assert stats["tasks"]["ended"] == {"answered": 640}
        watch.process.send_signal(signal.SIGCONT)
        count = len(watch.tasks())

        async def ask_until_seen() -> None:
            while len(watch.tasks()) <= count:
                await some(1)

        await asyncio.wait_for(ask_until_seen(), PATIENCE)
    assert (await watch.end(signal.SIGINT))[0] == 0


async def test_the_live_view_on_a_terminal(start: Any, settings: Any) -> None:
    slow = settings(length=100_000, itl=20)
    up = await start("up", "--agents", "1", *slow)
    async with streaming(await up.url()):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        view = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", "watch", *slow),
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment() | {"TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        loop = asyncio.get_running_loop()
        shown = ""
        async with asyncio.timeout(PATIENCE):
            while not all(word in shown for word in ("synthetic", "ready", "running", "(a part was not seen)")):
                shown += (await loop.run_in_executor(None, os.read, ours, 65536)).decode(errors="replace")
        view.send_signal(signal.SIGINT)
        rest = asyncio.ensure_future(loop.run_in_executor(None, _to_the_end, ours))
        assert await asyncio.wait_for(view.wait(), PATIENCE) == 0
        assert "Traceback" not in await rest
        os.close(ours)


def _to_the_end(terminal: int) -> str:
    text = b""
    while True:
        try:
            text += os.read(terminal, 65536)
        except OSError:  # how the other end of a terminal closes
            return text.decode(errors="replace")


async def test_what_cannot_be_watched_is_told(start: Any, dds_domain: int) -> None:
    domain = ["--dds-domain", str(dds_domain)]
    for arguments, status, message in (
        (["--transport", "http"], 1, "over http nothing can be observed; transports that can: dds"),
        (["--transport", "http", "--fleet", "x"], 2, "there are no fleets over http"),
        (["--once", "--fleet", "nobody", *domain], 0, "Nobody is seen"),
        (["--rate", "0", *domain], 2, "--rate"),
    ):
        watch = await start("watch", *arguments)
        await asyncio.wait_for(watch.process.wait(), PATIENCE)
        code, said = await watch.end()
        assert (code, message in " ".join(said.replace("│", " ").split())) == (status, True), said
        assert "Traceback" not in said


async def test_an_output_nobody_reads_any_more_ends_it(settings: Any, start: Any) -> None:
    quick = settings()
    reading, writing = os.pipe()
    watch = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "watch", "--json", *quick),
        stdout=writing, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    os.close(writing)
    os.close(reading)
    await start("agent", *quick)
    _, said = await asyncio.wait_for(watch.communicate(), PATIENCE)
    assert (watch.returncode, said) == (1, b"")


# A hub's side and an observer of it, in this process


class Sight(Recorder):
    """An `ObserverSink`: events ``("task_seen", task)`` and so on."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith(("agent_", "hub_", "task_")):
            raise AttributeError(name)
        return lambda *told: self.add(name, *told)

    def tasks(self) -> list[TaskSeen]:
        return [each[1] for each in self.named("task_seen")]

    def newest(self) -> dict[str, TaskSeen]:
        return {each.task_id: each for each in self.tasks()}

    async def hub(self, **members: int) -> None:
        """Until a hub's totals are these."""
        await self.until(
            lambda: any(
                all(getattr(hub, key) == value for key, value in members.items())
                for _, hub in self.named("hub_reported")
            ),
            str(members),
        )


@asynccontextmanager
async def observing(domain: int, **wishes: Any) -> AsyncIterator[tuple[Sight, DdsTransport]]:
    sight, transport = Sight(), DdsTransport(DdsConfig(domain=domain))
    incarnation = new_incarnation()
    info = ObserverInfo(f"watch-{incarnation}", incarnation, **{"rate": 20.0} | wishes)
    observer = await transport.open_observer(info, sight)
    try:
        yield sight, transport
    finally:
        await observer.close()


@asynccontextmanager
async def telling(domain: int) -> AsyncIterator[Activity]:
    incarnation = new_incarnation()
    activity = Activity(DdsConfig(domain=domain), HubInfo(f"hub-{incarnation}", incarnation))
    try:
        yield activity
    finally:
        await activity.close()


def request(task_id: str, attempt: int = 1) -> TaskRequest:
    return TaskRequest("hub", task_id, attempt, "chat", "model", "{}")


def chunk(task_id: str, seq: int, *deltas: str, **members: Any) -> Chunk:
    return Chunk("hub", task_id, members.pop("attempt", 1), seq, deltas, **members)


async def test_many_tasks_stay_within_the_bounds(dds_domain: int) -> None:
    many = 4 * SLOTS
    async with telling(dds_domain) as activity, observing(dds_domain) as (sight, _):
        await sight.hub(begun=0)
        for number in range(many):
            activity.begun("a1", request(f"t{number}"))
        await sight.hub(begun=many, ended=0, shown=SLOTS)
        assert len(sight.newest()) == SLOTS
        assert min(hub.shown for _, hub in sight.named("hub_reported") if hub.shown) == BUDGET
        for number in range(many):
            activity.received("a1", chunk(f"t{number}", 0, "whole", final=True, finish_reason="stop"))
        await sight.hub(begun=many, ended=many, shown=SLOTS + BUDGET)
        await sight.until(lambda: all(each.state == "ended" for each in sight.newest().values()))
        # Whoever comes now gets the newest of them, and no more than there is history.
        activity.begun("a1", request("last"))
        async with observing(dds_domain) as (late, _):
            await late.hub(begun=many + 1)
            await late.until(lambda: "last" in late.newest())
            assert {name for name, each in late.newest().items() if each.state == "running"} == {"last"}
            assert len(late.tasks()) <= SLOTS * HISTORY
        picture = Picture()
        events = Events("dds", picture.add, task_id="", agent_id="")
        for task in sight.tasks():
            events.task_seen(task)
        assert (len(picture.running), len(picture.ended)) == (1, REMEMBERED)


async def test_how_attempts_end(dds_domain: int) -> None:
    async with telling(dds_domain) as activity, observing(dds_domain) as (sight, _):
        await sight.hub(begun=0)
        for name in ("answered", "cancelled", "failed", "unsent", "lost", "again"):
            activity.begun("a2" if name == "lost" else "a1", request(name))
        activity.received("a1", chunk("answered", 0, "one ", "two "))
        activity.received("a1", chunk("answered", 2, "three", final=True, finish_reason="stop"))
        activity.cancelled(Cancel("hub", "cancelled", 1, "no longer wanted"))
        activity.received("a1", chunk("failed", 0, final=True, error=to_wire(EngineFailed("it broke"))))
        activity.failed("unsent", 1, EngineFailed("could not be sent"))
        activity.agent_lost("a2", "no sign of life")
        activity.failed("again", 1, EngineFailed("first"))
        activity.begun("a3", request("again", 2))
        # What is of an attempt that is over, or not by its agent, changes nothing.
        activity.received("a1", chunk("again", 0, "not mine", final=True, attempt=2))
        activity.received("a1", chunk("again", 0, "stale", final=True))
        activity.cancelled(Cancel("hub", "again", 1))
        await sight.hub(begun=7, ended=6)
        await sight.until(lambda: len(sight.newest()) == 6)
        newest = sight.newest()
        assert (newest["answered"].text, newest["answered"].chunks) == ("one two three", 2)
        assert (newest["answered"].missing, newest["answered"].finish_reason) == (False, "stop")
        reasons = {name: json.loads(newest[name].error)["message"] for name in newest if newest[name].error}
        assert reasons == {
            "cancelled": "no longer wanted",
            "failed": "it broke",
            "unsent": "could not be sent",
            "lost": "agent a2 was lost: no sign of life",
        } | ({"again": "first"} if newest["again"].attempt == 1 else {})
        again = {(each.attempt, each.agent_id, each.state) for each in sight.tasks() if each.task_id == "again"}
        assert again == {(1, "a1", "ended"), (2, "a3", "running")}


async def test_attempts_of_one_task_at_once_end_each_by_itself(dds_domain: int) -> None:
    async with telling(dds_domain) as activity, observing(dds_domain) as (sight, _):
        await sight.hub(begun=0)
        for attempt, agent_id in ((1, "a1"), (2, "a2")):
            activity.begun(agent_id, request("t", attempt))
        await sight.hub(begun=2, ended=0)
        activity.cancelled(Cancel("hub", "t", 1, "the other one leads"))
        await sight.hub(begun=2, ended=1)
        activity.received("a2", chunk("t", 0, "whole", final=True, attempt=2))
        await sight.hub(begun=2, ended=2)
        ended = {each.attempt: each for each in sight.tasks() if each.state == "ended"}
        assert json.loads(ended[1].error)["message"] == "the other one leads"
        assert (ended[2].text, ended[2].error) == ("whole", "")


async def test_a_second_observer_gets_the_history(dds_domain: int) -> None:
    async with telling(dds_domain) as activity, observing(dds_domain) as (first, _):
        await first.hub(begun=0)
        activity.begun("a1", request("t"))
        words = [f"word{number} " for number in range(HISTORY + 4)]
        for number, word in enumerate(words):
            activity.received("a1", chunk("t", number, word))
            await first.until(lambda word=word: any(word in each.text for each in first.tasks()))  # type: ignore[misc]
        assert not any(each.missing for each in first.tasks())
        async with observing(dds_domain) as (second, _):
            await second.until(lambda: any(words[-1] in each.text for each in second.tasks()))
            text = "".join(each.text for each in second.tasks())
            # The end of what was said before it came, without a gap, and the beginning marked as missing.
            assert "".join(words).endswith(text)
            assert len(words) > text.count("word") >= HISTORY // 2
            assert [each.missing for each in second.tasks() if each.text] == [True] + [False] * (text.count("word") - 1)


async def test_what_is_not_told_is_marked(dds_domain: int) -> None:
    async with telling(dds_domain) as activity:
        activity.begun("a1", request("early"))
        activity.received("a1", chunk("early", 0, "unheard "))
        async with observing(dds_domain) as (sight, _), observing(dds_domain, texts=False) as (blind, _):
            await sight.hub(begun=1)
            await blind.hub(begun=1)
            activity.received("a1", chunk("early", 1, "heard"))
            long = "".join(f"{number:05} " for number in range(TEXT))
            activity.begun("a1", request("long"))
            activity.received("a1", chunk("long", 0, long, final=True))
            await sight.until(lambda: len(sight.newest()) == 2 and sight.newest()["early"].text)
            newest = sight.newest()
            assert (newest["long"].missing, newest["long"].text) == (True, long[-TEXT:])
            assert newest["early"].text == "heard"
            assert any(each.missing for each in sight.tasks() if each.task_id == "early")
            await blind.until(lambda: "long" in blind.newest())
            assert not any(each.text or each.missing for each in blind.tasks())


async def test_tasks_of_a_silent_hub_are_lost(dds_domain: int) -> None:
    async with observing(dds_domain) as (sight, _):
        async with telling(dds_domain) as activity:
            await sight.hub(begun=0)
            activity.begun("a1", request("t"))
            await sight.until(lambda: sight.newest().get("t"))
        await sight.until(lambda: sight.newest()["t"].state == "lost")


async def test_reports_are_thinned_out_to_the_rate(dds_domain: int) -> None:
    transport = DdsTransport(DdsConfig(domain=dds_domain))
    info = AgentInfo(f"agent-{new_incarnation()}", new_incarnation())
    port = await transport.open_agent(info, "agent", RecordingAgentSink())

    def reports(sight: Sight) -> int:
        return sum(status.agent_id == info.agent_id for _, status in sight.named("agent_reported"))

    try:
        async with observing(dds_domain, rate=0.5) as (seldom, settled), observing(dds_domain) as (often, _):
            assert "TimeBasedFilter 2 s" in settled.effective_settings()["agent/status reader"]
            port.report(AgentStatus(info.agent_id, info.incarnation))
            for sight in (seldom, often):
                await sight.event("agent_joined", info)
            active = 0
            async with asyncio.timeout(PATIENCE):
                while reports(often) < 12:
                    active += 1
                    port.report(AgentStatus(info.agent_id, info.incarnation, active=active))
                    await asyncio.sleep(0.01)
            assert 1 <= reports(seldom) < reports(often) < active
    finally:
        await port.close()


@pytest.mark.parametrize("cls", [types.ObserverRegistration, types.TaskSeen, types.HubSeen])
@given(data=st.data())
def test_packed_as_the_library_packs(cls: Any, data: st.DataObject) -> None:
    values = data.draw(samples(cls))
    assert codec(cls).pack(*values) == library(cls, values)
    assert codec(cls).unpack(library(cls, values)) == values


def test_lines_can_do_nothing_to_a_terminal() -> None:
    told: list[Any] = []
    events = Events("dds", told.append, task_id="", agent_id="")
    events.task_seen(TaskSeen("h", "t", 1, "a", "chat", "m", "running", 5, 1, "x\x1b[2Jy\nz\r\x9b"))
    line = Lines().line(told[0])
    assert line.isprintable()
    assert line.endswith("x [2Jy z  ")


def test_only_what_was_asked_for_is_handed_on() -> None:
    told: list[Any] = []
    events = Events("dds", told.append, task_id="t1", agent_id="a1")
    for task_id, agent_id in (("t1", "a1"), ("t2", "a1"), ("t1", "a2")):
        events.task_seen(TaskSeen("h", task_id, 1, agent_id, "chat", "m", "running", 5, 1))
    for agent_id in ("a1", "a2"):
        events.agent_joined(AgentInfo(agent_id, 1))
        events.agent_reported(AgentStatus(agent_id, 1))
        events.agent_lost(agent_id, 1, "gone")
    assert [(each["event"], each["agent"]) for each in told] == [
        ("task", "a1"), ("agent_joined", "a1"), ("agent_reported", "a1"), ("agent_lost", "a1"),
    ]  # fmt: skip
