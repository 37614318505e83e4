"""Streams of agents with the engine `models`: when their agent is killed they go on where the weights are the same."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.integration.anywire_processes import body, config, start, until_agents
from tests.long_form import SOAK
from tests.models.tiny_model import tiny, written_tiny
from tests.patience import PATIENCE

__all__ = ["config", "start", "tiny", "written_tiny"]  # fixtures

MODEL = "local:tiny:1"
TOKENS = 1500


def registry(folder: Path, weights: bytes) -> Path:
    """A registry with one model of these weights, which its first request starts."""
    folder.mkdir()
    (folder / "weights.gguf").write_bytes(weights)
    entry = {
        "provider": "local",
        "library": "library",
        "name": "tiny",
        "version": "1",
        "full_identifier": MODEL,
        "model_file_path": "weights.gguf",
        "settings": {"on_demand": True, "context": 4096},
    }
    path = folder / "models.json"
    path.write_text(json.dumps({"models": [entry]}))
    return path


async def offers(client: httpx.AsyncClient) -> dict[str, Any]:
    """What each agent offers, once the weights of all are known."""
    while True:
        agents = (await client.get("/api/v1/agents")).json()["data"]
        found = {each["id"]: each["offers"][0] for each in agents if each["offers"]}
        if len(found) == len(agents) and all(each.get("digest") for each in found.values()):
            return found
        await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("config", ["dds", "grpc", "http", "nats", "zeromq"] if SOAK else ["http"], indirect=True)
async def test_a_stream_goes_on_at_an_agent_with_the_same_weights(
    start: Any, config: Any, tiny: Path, tmp_path: Path
) -> None:
    settings = config(name="models")
    weights = await asyncio.to_thread(tiny.read_bytes)
    server = await start("serve", *settings)

    async def agent(name: str, its: bytes) -> Any:
        where = await asyncio.to_thread(registry, tmp_path / name, its)
        return await start("agent", "--agent-id", name, *settings, "--set", f"engine.registry={where}")

    killed, _, _ = await asyncio.gather(
        agent("killed", weights), agent("same", weights), agent("other", weights[:-1] + bytes([weights[-1] ^ 1]))
    )
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        await until_agents(client, "killed", "same", "other")
        before = await asyncio.wait_for(offers(client), PATIENCE)
        assert before["killed"]["digest"] == before["same"]["digest"] != before["other"]["digest"]
        text, ids, finished, usage = "", set[str](), list[str](), dict[str, Any]()
        servers: list[psutil.Process] = []
        asked = body(1, stream=True, model=MODEL, max_tokens=TOKENS, stream_options={"include_usage": True})
        prefer = {"x-anywire-prefer": "killed"}
        async with client.stream("POST", "/v1/chat/completions", json=asked, headers=prefer) as answer:
            assert answer.headers["x-anywire-agent"] == "killed"
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, f"{event['error']} after {len(text)} characters"
                ids.add(event["id"])
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
                    finished += [choice["finish_reason"]] if choice["finish_reason"] else []
                if text and not servers:
                    servers = psutil.Process(killed.process.pid).children(recursive=True)
                    await killed.end(signal.SIGKILL)
        assert servers, "its models had processes"
        assert (len(ids), finished) == (1, ["length"])
        assert usage["completion_tokens"] == TOKENS, "those that were delivered before count"
        assert len(text) > TOKENS, "a token of this model has a character at least, and most have more"
        stats = (await client.get("/api/v1/stats")).json()
        assert stats["tasks"]["ended"] == {"answered": 1}
        assert stats["events"]["resumes"] == 1
        after = await asyncio.wait_for(offers(client), PATIENCE)
        assert after["same"].get("state", "ready") == "ready", "the stream has started its model"
        assert after["other"].get("state") == "stopped", "it has other weights"
    _, left = await asyncio.to_thread(psutil.wait_procs, servers, PATIENCE)
    assert not left, "the servers of the killed agent are gone"
