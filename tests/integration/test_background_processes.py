"""Background tasks over the end of real processes: what was taken in is answered once, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import Process, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire_service_background.database import Database

AT_ONCE = 6
ENDS = [signal.SIGKILL, signal.SIGTERM, *[signal.SIGKILL] * 3 * SOAK]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def start(tmp_path: Path, options_of: Callable[[str], dict[str, Any]]) -> AsyncIterator[Callable[..., Any]]:
    settings = {
        "transports": {"zeromq": options_of("zeromq")},
        "server": {"port": 0},
        "services": {"background": {"folder": str(tmp_path / "tasks"), "max_starts": 1000}},
        "engine": {"name": "synthetic", "ttft": 200, "length": 5},
        "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
        "shutdown_grace": 0.1,
    }
    file = tmp_path / "anywire.yaml"
    file.write_text(json.dumps(settings))
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments, "--config", str(file)))
        return running[-1]

    yield begin
    for process in running:
        await process.end(signal.SIGKILL)


def body(key: str) -> dict[str, Any]:
    return {"model": "synthetic", "messages": [{"role": "user", "content": f"prompt {key}"}]}


async def take(client: httpx.AsyncClient, key: str) -> str:
    """The id of the task with this key."""
    headers = {"x-anywire-background": "true", "Idempotency-Key": key}
    answer = await client.post("/v1/chat/completions", json=body(key), headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def answer_of(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    while (answer := await client.get(f"/v1/tasks/{task_id}/answer?wait=30")).status_code == 202:
        pass
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return whole


@pytest.mark.parametrize("seed", range(10 if SOAK else 1))
async def test_what_was_taken_in_is_answered_once_whatever_ends_the_orchestrator(
    start: Any, tmp_path: Path, seed: int
) -> None:
    drawn = random.Random(seed)
    ids: dict[str, str] = {}
    answers: dict[str, dict[str, Any]] = {}
    untold: list[str] = []
    await start("agent", "--agent-id", "a1", "--slots", "2")
    for number, end in enumerate(ENDS):
        server = await start("serve")
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            # Who was not told an id asks again, with the same key.
            for key in [*untold, *(f"{number}-{each}" for each in range(AT_ONCE))]:
                ids[key] = await take(client, key)
            untold = [f"{number}-cut-{each}" for each in range(3)]
            first = min(ids.keys() - answers.keys())
            answers[first] = await answer_of(client, ids[first])
            cut = [asyncio.ensure_future(take(client, key)) for key in untold]
            for _ in range(drawn.randrange(50)):
                await asyncio.sleep(0)
            await server.end(end)
            told = await asyncio.gather(*cut, return_exceptions=True)
        assert all(isinstance(each, str | httpx.HTTPError | AssertionError) for each in told), told
        ids |= {key: each for key, each in zip(untold, told, strict=True) if isinstance(each, str)}
    server = await start("serve")
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        await until_agents(client, "a1")
        for key in untold:
            again = await take(client, key)
            assert ids.setdefault(key, again) == again
        assert len(set(ids.values())) == len(ids)
        for key, task_id in ids.items():
            found = await answer_of(client, task_id)
            assert found == await answer_of(client, task_id)
            assert answers.setdefault(key, found) == found, "an answer that was given stays as it is"
        key = drawn.choice(list(ids))
        direct = (await client.post("/v1/chat/completions", json=body(key))).json()
        assert direct["choices"] == answers[key]["choices"]
    assert await asyncio.wait_for(server.end(signal.SIGTERM), PATIENCE) is None
    assert server.process.returncode == 0
    database = Database(tmp_path / "tasks", 1000, 2**30, 1.0)
    assert database.open(), "the folder is free"
    assert database.not_ended() == []
    assert all(database.get(task_id) is not None for task_id in ids.values())
    database.close()
