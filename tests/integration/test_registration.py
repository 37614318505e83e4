"""Agents that register through the gateway, at the one address that is public."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE

from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

TOKEN = "of this test"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Any]:
    """Starts a command with a config; gives its URL, if it has one, once it is ready, or the line of its log that says
    ``said``."""
    running = []

    async def begin(name: str, config: dict[str, Any], *, said: str = "") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({"engine": "synthetic", "server": {"port": 0}} | config))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", name.split("-")[0], "--config", str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        if said:
            async for line in process.stderr:
                if said in line.decode():
                    return line.decode()
            return ""
        return (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().split()[1]

    yield begin
    for process in running:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def http(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"transports": {"http": options | {"token": TOKEN} | more}}


async def test_agent_registers_at_the_gateway_and_serves(start: Any, options_of: Any) -> None:
    url = await start("serve", http(options_of("http")))
    agent = http({"agent_addresses": [f"{url}/api/v1"]}) | {"agent": {"id": "registered"}}
    await start("agent", agent)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        answer = await client.post(
            "/v1/chat/completions", json={"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}
        )
        assert answer.status_code == 200
        assert (answer.headers["x-anywire-agent"], answer.headers["x-anywire-transport"]) == ("registered", "http")


async def test_without_the_token_it_is_not_admitted_and_told_why(start: Any, options_of: Any) -> None:
    url = await start("serve", http(options_of("http")))
    agent = http({"agent_addresses": [f"{url}/api/v1"]}, token="another")
    assert await asyncio.wait_for(start("agent-stranger", agent, said="token"), PATIENCE)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        assert (await client.get("/v1/agents")).json()["data"] == []
        refused = await client.post("/api/v1/agents/register", json={})
        assert refused.status_code == 401


async def test_without_such_a_transport_the_answer_says_what_to_configure(start: Any, dds_domain: int) -> None:
    url = await start("serve", {"transports": {"dds": {"domain": dds_domain}}})
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        answer = await client.post("/api/v1/agents/register", json={})
        assert answer.status_code == 404
        assert "transports" in answer.json()["error"]["message"]


async def test_where_clients_need_keys_no_agent_registers_without_showing_who_it_is(
    start: Any, options_of: Any, tmp_path: Path
) -> None:
    """Who reaches the gateway would get the tasks of others: the transport may be open to this machine alone."""
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, role="observe"))
    settings = {"transports": {"http": options_of("http")}, "access": {"keys": str(tmp_path / "keys.json")}}
    url = await start("serve", settings)
    agent = http({"agent_addresses": [f"{url}/v1"]}, token=str(key))
    said = "only with a token or an identity"
    assert await asyncio.wait_for(start("agent-stranger", agent, said=said), PATIENCE)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        agents = await client.get("/v1/agents", headers={"Authorization": f"Bearer {key}"})
        assert agents.json()["data"] == []
