"""An orchestrator whose clients need keys: agents without identities join it as before, and clients prove a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.patience import PATIENCE

from anywire.config import Config, replaced
from anywire.errors import Forbidden, Unauthenticated
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.client import Client
from anywire.roles.orchestrator_role import OrchestratorRole

KEY = new_key()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    add_key(path, record_of(KEY, tenant="lab"))
    return path


@pytest_asyncio.fixture(params=["dds", "http", "zeromq", "grpc"])
async def met(request: pytest.FixtureRequest, file: Path, dds_domain: int) -> AsyncIterator[tuple[Config, str]]:
    """How others meet an orchestrator with keys and an agent, and the key of its run."""
    plugins, name = Plugins(), str(request.param)
    options: dict[str, Any] = {"domain": dds_domain} if name == "dds" else {}
    options |= plugins.load("transports", name).free_options(options)
    engine = {"name": "synthetic", "length": 100_000, "itl": 10}
    config = Config.model_validate(
        {"transports": {name: options}, "engine": engine, "gateways": [], "access": {"keys": file}}
    )
    role = OrchestratorRole(config, plugins)
    agent = None
    try:
        await role.start()
        await role.admit()
        found = role.served.meeting_options("127.0.0.1")
        others = replaced(config, transports={name: options | found[name]})
        agent = assembly.make_agent(others, plugins)
        await agent.start()
        async with asyncio.timeout(PATIENCE):
            await role.orchestrator.agents_until(lambda agents: any(each.status.state == "ready" for each in agents))
        yield others, role.access.own_key
    finally:
        if agent is not None:
            await agent.close()
        await role.close(0)


def client(met: Config, key: str) -> Client:
    return Client(*assembly.make_transports(met, Plugins()), key=key)


async def test_keys_count_over_every_transport(met: tuple[Config, str], file: Path) -> None:
    config, own_key = met
    question: dict[str, Any] = {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}
    async with asyncio.timeout(PATIENCE), client(config, own_key) as own, client(config, str(KEY)) as lab:
        assert len([each async for each in own.command("agents")]) == 1
        assert (await lab.chat(**question, max_tokens=2))["choices"]
        with pytest.raises(Forbidden):
            [each async for each in lab.command("agents")]
        long = lab.stream(**question)
        await anext(long)
        await asyncio.to_thread(revoke_keys, file, [KEY.id])
        with pytest.raises(Unauthenticated, match="revoked"):
            async for _ in long:
                pass
        async with client(config, str(new_key())) as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.chat(**question, max_tokens=2)
