"""``anywire watch``, ``tasks`` and ``agents``: what they see over HTTP and over every transport's client plane."""

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
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.cli.watch_picture import REMEMBERED, TAIL, Picture
from anywire.cli.watch_views import as_line, safe_text
from anywire.testing.recorder import Recorder
from reserved import free_port

pytestmark = pytest.mark.timeout(150)

TRANSPORTS = ["dds", "zeromq", "grpc", "http"]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | {"NO_COLOR": "1"}


class Process(Recorder):
    """A running ``anywire`` command; what it prints as JSON are its events, ``(type, members)``."""

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
                limit=2**22,
            )
        )

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                event = json.loads(line)
                self.add(event.get("type", "object"), event)
            else:
                self.add("line", line.decode())

    async def url(self) -> str:
        return str((await self.until(lambda: self.named("line"), "ready", PATIENCE))[0][1].split()[1])

    async def seen(self, event: str, **members: Any) -> dict[str, Any]:
        """Wait for an event with these members."""

        def found() -> dict[str, Any] | None:
            told = (each[1] for each in self.named(event))
            return next((each for each in told if all(each[key] == value for key, value in members.items())), None)

        answer: dict[str, Any] = await self.until(found, f"{event} {members}", PATIENCE)
        return answer

    async def said(self) -> tuple[int, str, str]:
        """Its exit status, and all that it has said, once it has ended."""
        assert self.process.stderr is not None
        errors = await asyncio.wait_for(self.process.stderr.read(), PATIENCE)
        await self._reading
        return await self.process.wait(), "".join(str(text) for _, text in self.named("line")), errors.decode()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.said()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments))
        return running[-1]

    yield begin
    for one in reversed(running):
        if one.process.returncode is None:
            await one.end(signal.SIGKILL)


@pytest.fixture
def settings(dds_domain: int, tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a YAML file with the synthetic engine and a transport of this machine; gives the arguments that use it."""

    def write(transport: str = "zeromq", **engine: Any) -> list[str]:
        options: dict[str, Any] = {"domain": dds_domain, "interface": "lo"}
        if transport != "dds":
            scheme = {"zeromq": "tcp://", "grpc": "", "http": "http://"}[transport]
            options = {
                "agent_addresses": [f"{scheme}127.0.0.1:{free_port()}"],
                "client_addresses": [f"{scheme}127.0.0.1:{free_port()}"],
            }
        tree = {
            "transports": {transport: options},
            "server": {"port": free_port()},
            "engine": {"name": "synthetic", **engine},
        }
        file = tmp_path / f"{transport}.yaml"
        file.write_text(json.dumps(tree))
        return ["--config", str(file)]

    return write


def body(*, stream: bool) -> dict[str, Any]:
    return {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}], "stream": stream}


@asynccontextmanager
async def streaming(url: str) -> AsyncIterator[str]:
    """A stream whose first text has come, for as long as the context lasts; the id of its task."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer,
    ):
        lines = answer.aiter_lines()  # kept: without it the answer is closed
        while '"content":" ' not in await anext(lines):
            pass
        yield answer.headers["x-anywire-task"]


SLOW: dict[str, Any] = {"length": 100_000, "itl": 20}


async def has_begun(watch: Process, url: str) -> None:
    """A request is told: everything after it is."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        while not watch.named("task.ended"):
            await client.post("/v1/chat/completions", json=body(stream=False) | {"max_tokens": 1})


@pytest.mark.parametrize("over", ["url", *(TRANSPORTS if SOAK else ["dds", "grpc"])])
async def test_events_text_tasks_and_agents_are_seen(start: Any, settings: Any, over: str) -> None:
    arguments = settings(over if over != "url" else "zeromq", **SLOW)
    up = await start("up", "--agents", "1", "--slots", "2", *arguments)
    url = await up.url()
    where = ["--url", url] if over == "url" else ["-t", over, *arguments]
    watch = await start("watch", "--json", "--text", *where)
    await has_begun(watch, url)
    async with streaming(url) as task_id:
        admitted = await watch.seen("task.admitted", task_id=task_id)
        assert admitted["model"] == "synthetic"
        agent = (await watch.seen("attempt.sent", task_id=task_id))["agent_id"]
        assert len((await watch.seen("text", task_id=task_id))["text"]) > 0
        (listed,) = json.loads(await output(start, "tasks", "--json", *where))
        assert (listed["id"], listed["place"], listed["agent_id"]) == (task_id, "running", agent)
        table = await output(start, "tasks", *where)
        assert task_id in table
        (known,) = json.loads(await output(start, "agents", "--json", *where))
        assert (known["id"], known["state"], known["slots"]) == (agent, "ready", 2)
        once = await output(start, "watch", "--once", *where)
        assert all(word in once for word in (agent, task_id, "running: 1", "1/2"))
        whole = json.loads(await output(start, "watch", "--once", "--json", *where))
        assert [each["id"] for each in whole["tasks"]] == [task_id]
        follow = await start("watch", "--follow", task_id, "--json", *where)
        chunk = (await follow.until(lambda: follow.named("object"), "a chunk", PATIENCE))[0][1]
        assert len(chunk["text"]) > 0
        await follow.end(signal.SIGINT)
    assert (await watch.seen("task.ended", task_id=task_id))["error"] == "cancelled"
    status, _, errors = await watch.end(signal.SIGINT)
    assert (status, errors) == (0, "")


async def output(start: Any, *arguments: str) -> str:
    """What a command prints that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    said, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, errors.decode()
    return said.decode()


async def test_a_server_that_comes_back_is_watched_on(start: Any, settings: Any) -> None:
    arguments = settings()
    up = await start("up", "--agents", "1", *arguments)
    url = await up.url()
    watch = await start("watch", "--json", "--url", url)
    await has_begun(watch, url)
    await up.end()
    await watch.seen("orchestrator.changed", state="closing")
    await watch.seen("interrupted")
    again = await start("up", "--agents", "1", *arguments)
    assert await again.url() == url
    await watch.seen("reset")
    count = len(watch.named("task.ended"))
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        await client.post("/v1/chat/completions", json=body(stream=False))
    await watch.until(lambda: len(watch.named("task.ended")) > count, "a task of the new one", PATIENCE)


async def test_a_stopped_watcher_holds_nobody_up(start: Any, settings: Any) -> None:
    up = await start("up", "--agents", "1", "--slots", "8", *settings(length=200))
    url = await up.url()
    watch = await start("watch", "--json", "--url", url)
    await has_begun(watch, url)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:

        async def some(count: int) -> None:
            for _ in range(count):
                assert (await client.post("/v1/chat/completions", json=body(stream=False))).status_code == 200

        watch.process.send_signal(signal.SIGSTOP)
        await asyncio.gather(*(some(20) for _ in range(16)))
        watch.process.send_signal(signal.SIGCONT)
        await some(1)
    await watch.until(lambda: len(watch.named("task.ended")) > 300 or watch.named("missed"), "the rest", PATIENCE)
    assert (await watch.end(signal.SIGINT))[0] == 0


async def test_the_live_view_on_a_terminal(start: Any, settings: Any) -> None:
    up = await start("up", "--agents", "1", *settings(**SLOW))
    url = await up.url()
    async with streaming(url) as task_id:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        view = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", "watch", "--text", "--url", url),
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment() | {"TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        loop = asyncio.get_running_loop()
        shown = ""
        async with asyncio.timeout(PATIENCE):
            while not all(word in shown for word in ("synthetic", "ready", "running: 1", task_id, "(from its middle)")):
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


async def test_what_cannot_be_watched_is_told(start: Any, settings: Any) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    up = await start("up", "--agents", "1", *settings())
    url = await up.url()
    for arguments, status, message in (
        (["watch", "--url", nowhere], 1, "no server answers"),
        (["watch", "--once", "--url", nowhere], 1, "no server answers"),
        (["tasks", "--url", nowhere], 1, "no server answers"),
        (["watch", "--url", url, "--types", "nothing"], 1, "there are no events"),
        (["watch", "--url", url, "--follow", "nobody"], 1, "there is no task"),
        (["watch", "--url", url, "-t", "zeromq"], 2, "leave --url, --host and --port out"),
        (["tasks", "-t", "memory"], 1, "reaches no server"),
        (["watch", "--rate", "0"], 2, "--rate"),
    ):
        command = await start(*arguments)
        code, _, said = await command.said()
        assert (code, message in " ".join(said.replace("│", " ").split())) == (status, True), said
        assert "Traceback" not in said


async def test_an_output_nobody_reads_any_more_ends_it(settings: Any, start: Any) -> None:
    up = await start("up", "--agents", "1", *settings())
    url = await up.url()
    reading, writing = os.pipe()
    watch = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "watch", "--json", "--url", url),
        stdout=writing, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    os.close(writing)
    os.close(reading)
    ending = asyncio.ensure_future(watch.communicate())
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        while not ending.done():
            await client.post("/v1/chat/completions", json=body(stream=False) | {"max_tokens": 1})
            await asyncio.wait((ending,), timeout=0.1)
    assert (watch.returncode, (await ending)[1]) == (1, b"")


# The picture


def task_event(kind: str, task_id: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, "task_id": task_id, "model": "m", "tenant": "", "at_ns": 1} | members


def test_a_task_s_places_and_its_agent_s_figures() -> None:
    picture = Picture()
    agent = {"id": "a", "state": "ready", "detail": "", "slots": 4, "models": ["m"], "host": "h", "engine": "e"}
    picture.set([agent | {"transport": "dds"}], [], {"tasks": {"ended": {"answered": 3}}})
    picture.add(task_event("task.admitted", "t"))
    assert (picture.count("queued"), picture.load("a")) == (1, 0)
    picture.add(task_event("task.held", "t", why="no agent was chosen"))
    assert picture.tasks["t"].why == "no agent was chosen"
    picture.add(task_event("task.dispatched", "t"))
    sent = {"agent_id": "a", "attempt": 1, "transport": "dds"}
    picture.add(task_event("attempt.sent", "t", **sent))
    assert (picture.count("running"), picture.load("a")) == (1, 1)
    picture.add(task_event("attempt.ended", "t", **sent, error="agent_lost", tokens=7))
    picture.add(task_event("task.requeued", "t", error="agent_lost", after_ms=0))
    assert (picture.load("a"), picture.agents["a"].errors, picture.count("queued")) == (0, 1, 1)
    picture.add(task_event("task.dispatched", "t"))
    picture.add(task_event("attempt.sent", "t", **sent | {"attempt": 2}))
    picture.add(task_event("attempt.ended", "t", **sent | {"attempt": 2}, error="", tokens=13))
    picture.add(task_event("task.ended", "t", error="", message="", chunks=5, agent_id="a"))
    assert not picture.tasks
    assert picture.ends == {"answered": 4}
    assert picture.agents["a"].tokens_per_second() == 2.0
    assert [each.task_id for each in picture.shown_tasks()] == ["t"]
    picture.add({"type": "agent.lost", "agent_id": "a", "reason": "gone"})
    assert picture.shown_agents()[0].lost == "gone"


def test_an_agent_that_is_not_well_is_shown_with_the_reason() -> None:
    picture = Picture()
    agent = {"id": "a", "state": "ready", "detail": "", "slots": 4, "models": ["m"], "host": "h", "engine": "e"}
    health = {"state": "open", "order": "", "reason": "3 × engine_failed", "evidence": {"engine_failed": 3}}
    nothing: dict[str, Any] = {"tasks": {"ended": {}}}

    def told() -> str:
        return picture.agents["a"].told_state()

    def happens(kind: str, **members: Any) -> str:
        picture.add({"type": kind, "agent_id": "a"} | members)
        return told()

    picture.set([agent | {"transport": "dds", "health": health}], [], nothing)
    assert told() == "breaker open 3 × engine_failed"
    failures = {"engine_failed": 15, "agent_lost": 1}
    assert happens("health.changed", state="closed", transport="dds", evidence={}) == "breaker open 3 × engine_failed"
    quarantined = "quarantined 15 × engine_failed, 1 × agent_lost"
    assert happens("health.changed", state="quarantined", transport="", evidence=failures) == quarantined
    assert happens("agent.ordered", order="drained", reason="new disk") == "drained, quarantined new disk"
    assert happens("agent.lost", reason="gone") == "lost gone"
    joined = {"info": {"host": "h", "engine": "e"}, "transport": "dds"}
    assert happens("agent.joined", **joined) == "starting, drained, quarantined new disk"
    ready = {"state": "ready", "detail": "", "slots": 1, "models": ["m"]}
    assert happens("agent.changed", **ready) == "drained, quarantined new disk"
    assert happens("agent.ordered", order="", reason="") == quarantined
    assert happens("health.changed", state="half_open", transport="") == "breaker half open"
    assert happens("health.changed", state="closed", transport="", evidence={}) == "ready"
    again = {"evidence": {"agent_lost": 3}, "retry_in_ms": 3_599_500}
    assert happens("health.changed", state="open", transport="", **again).startswith("breaker open 3 × agent_lost; tri")
    assert happens("health.changed", state="closed", transport="") == "ready"
    assert happens("agent.slow_start", given=1, slots=4) == "ready, slow start 1 slot so far"
    assert happens("agent.slow_start", given=4, slots=4) == "ready"
    assert happens("health.changed", state="open", transport="dds") == "ready breaker open over dds"
    assert happens("health.changed", state="closed", transport="dds") == "ready"
    of_model = {"transport": "", "model": "m"}
    assert happens("health.changed", state="open", **of_model) == "ready breaker open for m"
    assert happens("health.changed", state="half_open", **of_model) == "ready breaker half open for m"
    assert happens("health.changed", state="closed", **of_model) == "ready"
    slow = agent | {"transport": "dds", "health": {"slow_start": 2, "links": {"dds": "half_open"}}}
    picture.set([slow], [], nothing)
    assert told() == "ready, slow start 2 slots so far breaker half open over dds"
    picture.set([agent | {"transport": "dds"}], [], nothing)
    assert told() == "ready", "a server of an earlier version tells nothing of health"


def test_a_preempted_task_waits_again() -> None:
    picture = Picture()
    picture.add(task_event("task.admitted", "t"))
    picture.add(task_event("task.preempted", "t", attempt=1, times=1))
    assert (picture.tasks["t"].place, picture.tasks["t"].why) == ("queued", "gave its slot to an urgent task")


def test_a_new_beginning_keeps_what_still_runs_and_forgets_the_rest() -> None:
    picture = Picture()
    for name in ("stays", "gone"):
        picture.add(task_event("task.admitted", name))
    picture.add_text("stays", {"text": "x" * 2 * TAIL})
    listed = {"id": "stays", "model": "m", "age_ms": 5.0, "place": "running", "why": "", "tenant": "", "chunks": 3}
    listed |= {"transport": "dds", "agent_id": "a", "attempt": 1}
    picture.set([], [listed], {"tasks": {"ended": {}}})
    assert list(picture.tasks) == ["stays"]
    assert len(picture.tasks["stays"].text) == TAIL
    assert picture.load("a") == 1


def test_the_picture_is_bounded() -> None:
    picture = Picture()
    for number in range(3 * REMEMBERED):
        picture.add(task_event("task.admitted", str(number)))
        picture.add(task_event("task.ended", str(number), error="", message="", chunks=1, agent_id="a"))
        info = {"host": "h", "engine": "e"}
        picture.add({"type": "agent.joined", "agent_id": str(number), "info": info, "transport": "dds"})
        picture.add({"type": "agent.lost", "agent_id": str(number), "reason": "gone"})
    assert len(picture.ended) == len(picture.agents) == REMEMBERED
    picture.add({"type": "something.new"})


@given(st.text())
def test_no_text_controls_a_terminal(text: str) -> None:
    line = as_line({"type": "text", "time": 0.0, "text": text})
    assert line.isprintable()
    assert all(each.isprintable() or each in "\n\t" for each in safe_text(text))
