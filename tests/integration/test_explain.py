"""How an agent was chosen, as clients and commands are told it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from tests.integration.gateway_serving import MESSAGES, Served, says, serving
from tests.integration.test_cli import anywire, start
from typer.testing import CliRunner

from anywire.cli import app
from anywire.cli.explain import explained, wrapped
from anywire.engine import Delta
from anywire.errors import InvalidRequest
from anywire.events import TaskEnded
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.rig import Rig

__all__ = ["start"]  # a fixture

CHAT = {"model": "m", "messages": MESSAGES}
EXPLAIN = {"x-anywire-explain": "true"}
ANSWER = (Delta("hello"), Delta("", finish_reason="stop"))


def client(served: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(served.url)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_how_its_agent_was_chosen_where_that_is_asked_for(stream: bool) -> None:
    async with serving(says(*ANSWER)) as served, client(served) as http:
        body = CHAT | {"stream": stream}
        async with http.post("/v1/chat/completions", json=body, headers=EXPLAIN) as answer:
            decision = json.loads(answer.headers["x-anywire-decision"])
            await answer.read()
        assert (decision["agent_id"], decision["selector"], decision["candidates"]) == ("agent-1", "least_loaded", 1)
        assert decision["considered"] == [{"agent_id": "agent-1", "in_flight": 0, "slots": 64}]
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert "x-anywire-decision" not in answer.headers
            await answer.read()


async def test_an_error_tells_it_too() -> None:
    failing = says(then=ValueError("broken"))
    async with (
        serving(failing) as served,
        client(served) as http,
        http.post("/v1/chat/completions", json=CHAT, headers=EXPLAIN) as answer,
    ):
        assert answer.status == 502
        assert json.loads(answer.headers["x-anywire-decision"])["agent_id"] == "agent-1"


async def test_a_task_is_found_by_its_id_after_its_end() -> None:
    async with serving(says(*ANSWER), pipeline={"explained_tasks": 1}) as served, client(served) as http:
        ids = []
        for _ in range(2):
            async with http.post("/v1/chat/completions", json=CHAT) as answer:
                ids.append((await answer.json())["id"])
        async with http.get(f"/v1/tasks/{ids[1]}") as answer:
            task = await answer.json()
        assert (task["place"], task["error"], task["agent_id"]) == ("ended", "", "agent-1")
        assert [each["agent_id"] for each in task["decisions"]] == ["agent-1"]
        spans = task["stages_ms"]
        assert list(spans)[:2] == ["received-admitted", "admitted-selected"]
        assert list(spans)[-1] == "last_chunk-delivered"
        assert sum(spans.values()) <= task["age_ms"]
        async with http.get(f"/v1/tasks/{ids[0]}") as answer:
            assert answer.status == 404
        async with http.get("/v1/tasks") as answer:
            assert (await answer.json())["data"] == []
        text = "\n".join(explained(task))
        assert f"task {task['id']} for m: answered by agent-1 over memory" in text
        assert "least_loaded chose agent-1 for m" in text
        assert "* agent-1: 0 of 64 slots in use" in text


async def test_a_task_of_another_tenant_is_not_found(tmp_path: Path) -> None:
    path, texts = tmp_path / "keys.json", {}
    for name in ("mine", "other"):
        key = new_key()
        add_key(path, record_of(key, label=name, tenant=name))
        texts[name] = {"Authorization": f"Bearer {key}"}
    async with serving(says(*ANSWER), access=KeyAccess(path)) as served, client(served) as http:
        async with http.post("/v1/chat/completions", json=CHAT, headers=texts["mine"]) as answer:
            task_id = answer.headers["x-anywire-task"]
        for name, status in (("mine", 200), ("other", 404)):
            async with http.get(f"/v1/tasks/{task_id}", headers=texts[name]) as answer:
                assert answer.status == status
                assert ("decisions" in await answer.text()) == (status == 200)


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
async def test_a_client_asks_over_its_transport_for_tasks_of_its_tenant_alone(
    tmp_path: Path, transport: str, options_of: Callable[[str], dict[str, Any]]
) -> None:
    path, keys = tmp_path / "keys.json", [new_key(), new_key()]
    for number, key in enumerate(keys):
        add_key(path, record_of(key, label=f"{number}", tenant=f"tenant {number}"))
    options = {"network": "explain"} if transport == "memory" else options_of(transport)
    async with Rig(transport, options) as rig:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        await rig.fleet(pipeline, "client", KeyAccess(path))
        mine, other = [await rig.client(str(key)) for key in keys]
        ended: asyncio.Queue[TaskEnded] = asyncio.Queue()
        pipeline.events.subscribe("test", ended.put_nowait, TaskEnded)
        await mine.submit(Submission("chat", MODEL, Script().body())).result()
        task_id = (await ended.get()).task_id
        task = await mine.explain(task_id)
        assert (task["id"], task["place"]) == (task_id, "ended")
        assert [each["agent_id"] for each in task["decisions"]] == ["a"]
        with pytest.raises(InvalidRequest):
            await other.explain(task_id)


def test_the_command_tells_of_a_task_that_has_ended(start: Any) -> None:
    up = start("up", "--port", "0", "--agents", "2", "--transport", "memory", "--engine", "synthetic")
    answer = httpx.post(f"{up.url}/v1/chat/completions", json=CHAT | {"model": "synthetic", "max_tokens": 2})
    task_id = answer.headers["x-anywire-task"]
    told = anywire("explain", task_id, "--url", up.url)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"task {task_id} for synthetic: answered by {answer.headers['x-anywire-agent']} ")
    assert f"least_loaded chose {answer.headers['x-anywire-agent']}" in told.stdout
    unknown = anywire("explain", "nothing", "--url", up.url)
    assert (unknown.returncode, "there is no task" in unknown.stderr) == (1, True)


def test_a_line_that_is_too_long_for_the_terminal_goes_on_below_what_it_tells() -> None:
    line = "  1. after 0.2 ms prefix_affinity chose a-machine-with-a-long-name-1 for a-model (took 144 us)"
    assert wrapped(line, 0) == wrapped(line, 200) == line
    first, second = wrapped(line, 80).splitlines()
    assert line == f"{first} {second.strip()}"
    assert len(first) <= 80
    assert second.startswith(" " * 6)


def test_the_command_names_the_server_that_does_not_answer() -> None:
    told = CliRunner().invoke(app, ["explain", "abc", "--url", "http://127.0.0.1:9"])
    assert told.exit_code == 1
    assert "127.0.0.1:9" in str(told.exception)
