"""The routes of an agent with real llama.cpp: models are processes, and each answer is of one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.models.tiny_model import tiny, written_tiny
from tests.patience import PATIENCE

from anywire.testing.patience import expect
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.engine import ModelsEngine
from anywire_engine_models.local_api.records import running_apis

__all__ = ["tiny", "written_tiny"]  # fixtures

NAME = "local:tiny:1"
PATH = f"/v1/models/{NAME}"
ASKED: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def client(tiny: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    entry = {"provider": "local", "library": "library", "name": "tiny", "version": "1", "full_identifier": NAME}
    registry = tmp_path / "models.json"
    settings = {"restart": "never", "context": 32768}
    registry.write_text(json.dumps({"models": [entry | {"model_file_path": str(tiny), "settings": settings}]}))
    engine = ModelsEngine(ModelsConfig.model_validate({"registry": registry, "local_api": {"enabled": True}}))
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    await engine.start(lambda: None)
    (record,) = running_apis()
    headers = {"authorization": f"Bearer {record.token}"}
    try:
        async with httpx.AsyncClient(base_url=record.url, headers=headers, timeout=PATIENCE, trust_env=False) as client:
            yield client
    finally:
        await expect(engine.close(), "the engine is closed", PATIENCE)
    assert not running_apis()
    assert {each.pid for each in psutil.Process().children(recursive=True)} <= before


async def test_many_starts_make_one_process_which_answers_and_stops(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/chat/completions", json=ASKED)
    assert refused.status_code == 409
    assert f"anywire models start {NAME}" in refused.json()["error"]["message"]
    started = await asyncio.gather(*(client.post(f"{PATH}/start") for _ in range(50)))
    assert {each.json()["state"] for each in started} == {"running"}
    assert len({each.json()["pid"] for each in started}) == 1
    told = (await client.get("/v1/models")).json()
    assert (told["data"][0]["starts"], told["memory"]["loads"]) == (1, 1)
    assert (await client.post("/v1/chat/completions", json=ASKED)).json()["usage"]["completion_tokens"] == 5
    streamed = await client.post("/v1/chat/completions", json=ASKED | {"stream": True})
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert any("listening" in line for line in (await client.get(f"{PATH}/logs")).json()["lines"])
    assert (await client.post(f"{PATH}/stop")).json()["state"] == "stopped"


async def test_a_server_that_is_killed_is_told_with_its_last_lines(client: httpx.AsyncClient) -> None:
    pid = (await client.post(f"{PATH}/start")).json()["pid"]
    endless = ASKED | {"stream": True, "max_tokens": 100_000}
    async with (
        client.stream("GET", "/v1/events") as events,
        client.stream("POST", "/v1/chat/completions", json=endless) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        os.kill(pid, signal.SIGKILL)

        async def rest() -> list[str]:
            return [line async for line in lines if line]

        told = await expect(rest(), "the answer ends", PATIENCE)
        assert "error" in json.loads(told[-1].removeprefix("data: "))

        async def crashed() -> dict[str, Any]:
            async for line in events.aiter_lines():
                if line.startswith("data: ") and (change := json.loads(line[6:]))["state"] == "crashed":
                    return dict(change)
            raise AssertionError("the events ended")

        change = await expect(crashed(), "the end is told", PATIENCE)
    assert change["exit"]["signal"] == "SIGKILL"
    assert change["exit"]["lines"]
    assert (await client.post(f"{PATH}/start")).json()["state"] == "running"
