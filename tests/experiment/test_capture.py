"""``anywire capture``: what it makes of a running fleet can be run again, and says nothing of what was asked."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiment.real_runs import run_cell
from tests.integration.test_watch import Process
from tests.long_form import examples
from tests.patience import FACTOR, PATIENCE

from anywire.errors import ConfigError, InvalidRequest
from anywire.events import Event, TaskAdmitted, TaskEnded, TaskPrefix
from anywire.stages import Stages
from anywire_experiment.capture.listening import GATHER_MS, listen
from anywire_experiment.capture.taken import Taken
from anywire_experiment.capture.written import check, write
from anywire_experiment.load.sessions import sessions
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.plan.traces import read_trace
from reserved import free_port

pytestmark = pytest.mark.timeout(240)
SECOND = 10**9
SECRET = "Xylophone Quetzalcoatl "
"""A word that is in prompts and nowhere else."""


def begun(task_id: str, at: float, **more: Any) -> TaskAdmitted:
    fields: dict[str, Any] = {"kind": "chat", "model": "m", "stream": True, "prompt_chars": 400} | more
    return TaskAdmitted(id=f"x-{task_id}", at_ns=int(at * SECOND), time=at, task_id=task_id, **fields)


def ended(task_id: str, at: float, **more: Any) -> TaskEnded:
    fields: dict[str, Any] = {
        "agent_id": "a",
        "transport": "zeromq",
        "attempts": 1,
        "error": "",
        "chunks": 1,
        "prompt_chars": 400,
    }
    fields |= {"kind": "chat", "model": "m", "stages": Stages(), "prompt_tokens": 100, "tokens": 20}
    return TaskEnded(id=f"y-{task_id}", at_ns=int(at * SECOND), time=at, task_id=task_id, **(fields | more))


def prefix(task_id: str, *words: str) -> TaskPrefix:
    return TaskPrefix(id=f"z-{task_id}", at_ns=0, time=0, task_id=task_id, prefix=words)


def taken(*happened: Event, most: int = 1000) -> Taken:
    found = Taken(most)
    for each in happened:
        found.add(each)
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_requests_have_their_times_sizes_and_pauses(tmp_path: Path) -> None:
    found = taken(
        *(begun("1", 10, session="mine", tenant="acme"), prefix("1", "p", "q"), ended("1", 12)),
        *(begun("2", 13.5, session="mine", tenant="acme"), prefix("2", "p", "q", "r"), begun("3", 14)),
        *(ended("2", 15, prompt_tokens=0), begun("4", 14.5, session="mine", tenant="acme", stream=False)),
        *(ended("3", 16, error="cancelled", deltas=7, tokens=0), ended("4", 17, error="agent_lost", tokens=3)),
    )
    plan, trace = write(found, tmp_path / "plan.yaml")
    made = rows(trace)
    assert [each["arrival_s"] for each in made] == ["0.000000", "3.500000", "4.000000", "4.500000"]
    assert [each["input_tokens"] for each in made] == ["100", "100", "100", "100"]
    assert [each["output_tokens"] for each in made] == ["20", "20", "0", "0"]
    assert [each["session"] for each in made] == ["s1", "s1", "", "s1"]
    assert [each["think_s"] for each in made] == ["", "1.500000", "", ""], "the last one came before its answer"
    assert [each["blocks"] for each in made] == ["0 1", "0 1 2", "", ""]
    assert [each["tenant"] for each in made] == ["t1", "t1", "", "t1"]
    assert [(each["cancel_s"], each["cancel_tokens"]) for each in made] == [("", ""), ("", ""), ("", "7"), ("", "")]
    assert [each["stream"] for each in made] == ["true", "true", "true", "false"]
    read = read_trace(trace)
    assert [each.think_s for each in read] == [None, 1.5, None, None]
    tree = yaml.safe_load(plan.read_text())
    assert tree["system"]["transports"] == "zeromq"
    assert tree["workloads"]["fleet"]["max_tokens"] == 20
    assert "1 requests failed" in " ".join(found.told())


def test_deadlines_are_written_where_they_differ(tmp_path: Path) -> None:
    same = taken(begun("1", 1, deadline_ms=600_000), ended("1", 2), begun("2", 1, deadline_ms=600_000), ended("2", 2))
    assert {each["deadline_s"] for each in rows(write(same, tmp_path / "a.yaml")[1])} == {""}
    other = taken(begun("1", 1, deadline_ms=600_000), ended("1", 2), begun("2", 1, deadline_ms=2_000), ended("2", 2))
    assert {each["deadline_s"] for each in rows(write(other, tmp_path / "b.yaml")[1])} == {"600.0", "2.0"}


def test_what_cannot_be_asked_again_is_left_out_and_told() -> None:
    found = taken(
        *(begun("1", 1, parent="p"), ended("1", 2), begun("2", 1, kind="embedding"), ended("2", 2)),
        *(ended("before", 1), begun("3", 1), begun("4", 1), ended("4", 3), begun("5", 3), ended("5", 4)),
        most=2,
    )
    assert [each.at for each in found.requests] == [1.0]
    said = " ".join(found.told())
    assert "1 requests had not ended" in said
    assert "1 tasks were made by other tasks" in said
    assert "only chat and completion" in said


def test_blocks_that_are_told_apart_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anywire_experiment.capture.taken.MOST_BLOCKS", 3)
    tasks = (("1", "a", "b"), ("2", "a", "c", "d"), ("3", "e"), ("4", "a", "c"))
    happened = [(begun(each, 1), prefix(each, *words), ended(each, 2)) for each, *words in tasks]
    found = taken(*(event for events in happened for event in events))
    assert [each.blocks for each in found.requests] == [(0, 1), (0, 2), (), (0, 2)]


def test_the_pace_of_the_engines_is_that_of_the_plan_s(tmp_path: Path) -> None:
    stages = Stages(engine_started=SECOND, first_chunk=int(1.2 * SECOND), last_chunk=int(1.39 * SECOND))
    happened = [(begun(str(at), at), ended(str(at), at + 0.5, stages=stages)) for at in range(3)]
    found = taken(*(each for pair in happened for each in pair))
    engine = yaml.safe_load(write(found, tmp_path / "plan.yaml")[0].read_text())["system"]["engine"]
    assert engine == {"name": "synthetic", "models": ["m"], "length": 20, "ttft": 200.0, "itl": 10.0}


def test_nothing_is_overwritten_and_an_empty_capture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no request was taken in"):
        write(taken(), tmp_path / "plan.yaml")
    (tmp_path / "plan.csv").write_text("mine")
    for out, says in (
        ("plan.yaml", "is there already"),
        ("plan.txt", "ends with .yaml"),
        ("no/plan.yaml", "no folder"),
    ):
        with pytest.raises(ConfigError, match=says):
            check(tmp_path / out)


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def happenings(draw: st.DrawFn) -> list[Event]:
    """Events of some tasks, in any order, with whatever clients name."""
    made: list[Event] = []
    for number in range(draw(st.integers(1, 8))):
        at = draw(st.floats(0, 1e6, width=32))
        name: dict[str, Any] = {"session": draw(NAMES), "tenant": draw(NAMES), "model": draw(st.just("m") | NAMES)}
        name["stream"] = draw(st.booleans())
        made.append(begun(str(number), at, **name, priority=draw(st.integers(-3, 9))))
        made.append(prefix(str(number), *draw(st.lists(st.sampled_from("abc"), max_size=5))))
        error = draw(st.sampled_from(["", "cancelled", "timeout"]))
        numbers = {each: draw(st.integers(0, 10**6)) for each in ("tokens", "deltas", "prompt_tokens")}
        made.append(ended(str(number), at + draw(st.floats(0, 1e5, width=32)), error=error, **numbers))
    return draw(st.permutations(made)) if draw(st.booleans()) else made


@given(happenings())
@settings(max_examples=examples(40), deadline=None)
def test_every_capture_is_a_trace_that_is_read(tmp_path_factory: pytest.TempPathFactory, happened: list[Event]) -> None:
    folder = tmp_path_factory.mktemp("capture")
    found = taken(*happened)
    if not found.requests:
        return
    plan, trace = write(found, folder / "plan.yaml")
    made = load_plan(plan)
    assert len(read_trace(trace)) == len(found.requests)
    workload = made.workloads["fleet"]
    told = sessions(workload, read_trace(trace), "1", 1e9, folder)
    assert told is None or sum(each.requests for each in told) == len(found.requests)
    assert arms_of(made)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Process]:
    """A running fleet whose engine has a pace."""
    file = tmp_path / "fleet.yaml"
    tree = {
        "transports": "memory",
        "server": {"port": free_port()},
        "engine": {"name": "synthetic", "length": 24, "itl": 4},
        "agent": {"slots": 8},
    }
    file.write_text(json.dumps(tree))
    up = await Process.start("up", "--config", str(file))
    try:
        yield up
    finally:
        if up.process.returncode is None:
            await up.end(signal.SIGTERM)


async def capturing(*arguments: str) -> Process:
    """A capture that takes in whatever is asked from now on."""
    process = await Process.start("capture", *arguments)
    assert process.process.stderr is not None
    assert b"taking in requests" in await process.process.stderr.readline()
    return process


async def ask(client: httpx.AsyncClient, words: int, **more: Any) -> None:
    body = {"model": "synthetic", "messages": [{"role": "user", "content": SECRET * words}], "max_tokens": 12} | more
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-anywire-tenant": "Acme-Quetzalcoatl"})
    assert answer.status_code == 200


async def give_up(client: httpx.AsyncClient) -> None:
    body = {"model": "synthetic", "messages": [{"role": "user", "content": SECRET}], "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.aiter_lines()
        while '"content":" ' not in await anext(lines):
            pass


async def test_a_running_fleet_becomes_a_plan_that_runs(fleet: Process, tmp_path: Path, dds_domain: int) -> None:
    out = tmp_path / "taken.yaml"
    url = await fleet.url()
    capture = await capturing("--url", url, "--requests", "8", "--seconds", "60", "--out", str(out))
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        await give_up(client)
        for number in range(7):
            await ask(client, 40, prompt_cache_key="Quetzalcoatl's talk", stream=bool(number % 2))
    status, said, errors = await capture.said()
    await fleet.end()
    assert status == 0, errors
    assert "8 requests taken in, 1 of them given up" in errors
    assert said.split() == [str(out), str(out.with_suffix(".csv"))]
    text = out.read_text() + out.with_suffix(".csv").read_text()
    assert not any(each in text for each in ("Xylo", "Quetzal", "Acme"))
    made = rows(out.with_suffix(".csv"))
    assert [each["tenant"] for each in made] == ["", *["t1"] * 7]
    assert float(made[0]["cancel_tokens"] or made[0]["cancel_s"]) > 0
    whole = made[1:]
    assert {each["session"] for each in whole} == {"s1"}
    assert all(float(each["think_s"]) >= 0 for each in whole[1:])
    assert {each["output_tokens"] for each in whole} == {"12"}
    assert {each["blocks"] for each in whole} == {"0"}, "one prompt, again and again"
    plan = load_plan(out, ["system.transports=zeromq", "workloads.fleet.arrivals.speed=50"])
    cell = await run_cell(plan.model_dump(mode="json"), tmp_path / "cell", dds_domain)
    assert (cell.state, cell.reason) == ("completed", "")
    assert cell.workloads["fleet"].requests == 8
    assert cell.workloads["fleet"].failed == 0


async def test_ctrl_c_ends_it_early_and_what_was_taken_in_is_written(fleet: Process, tmp_path: Path) -> None:
    out, url = tmp_path / "taken.yaml", await fleet.url()
    capture = await capturing("--url", url, "--seconds", "3600", "--out", str(out))
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        for _ in range(3):
            await ask(client, 1)
    # What happened has come within the time that the server gathers it.
    await asyncio.sleep(2 * GATHER_MS / 1000 * FACTOR)
    status, _, errors = await capture.end(signal.SIGINT)
    assert status == 0, errors
    assert "3 requests taken in" in errors
    assert len(read_trace(out.with_suffix(".csv"))) == 3


async def test_a_server_that_ends_leaves_what_was_taken_in(fleet: Process, tmp_path: Path) -> None:
    out, url = tmp_path / "taken.yaml", await fleet.url()
    capture = await capturing("--url", url, "--seconds", "3600", "--out", str(out))
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        await ask(client, 1)
    await fleet.end()
    status, _, errors = await capture.said()
    assert status == 0, errors
    assert "the server ended before the time was over" in errors
    assert len(read_trace(out.with_suffix(".csv"))) == 1


async def _listened(ending: bytes) -> Taken:
    """To a server that begins its stream of events, sends ``ending`` and is killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/v1/agents" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            body = b": hello\n\n" + ending
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body))
        await writer.drain()
        writer.close()

    taken, begun = Taken(10), asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            await listen(client, taken, PATIENCE, 0, begun.set)
    assert begun.is_set()
    return taken


async def test_a_server_that_is_killed_leaves_what_was_taken_in() -> None:
    assert (await _listened(b"")).server_ended


async def test_an_event_that_cannot_be_read_is_told() -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await _listened(b'event: task.admitted\ndata: {"type": "other"}\n\n')


async def test_a_server_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    capture = await Process.start(
        "capture", "--url", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path / "p.yaml")
    )
    status, _, errors = await capture.said()
    assert status == 1
    assert "no server answers" in errors
    assert not (tmp_path / "p.yaml").exists()
