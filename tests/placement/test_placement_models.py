"""Placement of real models: llama.cpp in the engine ``models``, and an agent that is killed with its servers."""

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
from tests.integration.anywire_processes import NO_LIMITS, start, until_agents
from tests.models.tiny_model import tiny, written_tiny
from tests.patience import PATIENCE
from tests.placement.test_placement_processes import restored

__all__ = ["start", "tiny", "written_tiny"]  # fixtures

MODELS = [f"local:tiny-{number}:1" for number in range(5)]
MB = 1_000_000

pytestmark = pytest.mark.timeout(150)


def entry(name: str, path: Path) -> dict[str, Any]:
    provider, own, version = name.split(":")
    return {
        "provider": provider,
        "library": "library",
        "name": own,
        "version": version,
        "full_identifier": name,
        "model_file_path": str(path),
        "settings": {"memory_bytes": 100 * MB, "context": 256},
    }


@pytest.mark.parametrize("transport", ["dds", "http"])
async def test_real_models_are_restored_when_their_agent_is_killed(
    start: Callable[..., Any],
    tmp_path: Path,
    tiny: Path,
    options_of: Callable[[str], dict[str, Any]],
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "models.json").write_text(json.dumps({"models": [entry(name, tiny) for name in MODELS]}))
    settings = {
        "transports": {transport: options_of(transport)},
        "server": {"port": 0},
        "engine": {"name": "models", "registry": str(tmp_path / "models.json"), "memory_budget": 300 * MB},
        "lease": {"timeout": 3, "heartbeat_interval": 0.2},
        "services": {"placement": {"models": {name: {} for name in MODELS}, "absence": 1.0}},
    }
    (tmp_path / "anywire.yaml").write_text(json.dumps(settings))
    config = ["--config", str(tmp_path / "anywire.yaml")]
    server = await start("serve", *config)
    agents = {each: await start("agent", "--agent-id", each, *config) for each in ("a1", "a2", "a3")}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, *agents)

        async def chat(model: str) -> str:
            body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-anywire-agent"]

        before = await restored(client, set(agents))
        at = {each["model"]: each["loaded"] for each in before["models"]}
        assert set(await asyncio.gather(*map(chat, MODELS))) <= agents.keys()
        told = [each for each in before["agents"] if "used_bytes" in each]  # but for one that is asked just now
        assert all(each["used_bytes"] <= each["budget_bytes"] == 300 * MB for each in told)
        victim = at[MODELS[0]][0]
        servers = psutil.Process(agents[victim].process.pid).children(recursive=True)
        await agents.pop(victim).end(signal.SIGKILL)
        # Those that come while nobody serves their model wait for it.
        assert set(await asyncio.gather(*map(chat, MODELS))) <= agents.keys()
        after = await restored(client, set(agents))
        lost = [model for model in MODELS if at[model] == [victim]]
        assert after["swap_cost"]["loads"] >= len(MODELS) + len(lost)
        _, left = await asyncio.to_thread(psutil.wait_procs, servers, PATIENCE)
        assert not left, "no server outlives its agent"
