"""Limits and keys of a whole orchestrator: what holds over its restart, and what ends when a key is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from anywire.access import Presented
from anywire.caller import Limits
from anywire.config import Config
from anywire.errors import Forbidden, LimitReached, Unauthenticated
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import KeyText, new_key
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.orchestrator_role import OrchestratorRole
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.doubles import MODEL, Script
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, read

BODY = '{"messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "keys.json"


def made_key(keys: Path, limits: Limits) -> KeyText:
    key = new_key()
    add_key(keys, record_of(key, limits=limits))
    return key


@asynccontextmanager
async def running(keys: Path, length: int, itl: float = 0.0) -> AsyncIterator[OrchestratorRole]:
    """An orchestrator with an agent that answers with so many tokens, ``itl`` milliseconds after each other."""
    config = Config.model_validate(
        {
            "transports": {"memory": {"network": f"run-{uuid4()}"}},
            "engine": {"name": "synthetic", "length": length, "itl": itl},
            "agent": {"slots": 2},
            "gateways": {},
            "access": {"keys": keys},
        }
    )
    plugins = Plugins()
    role = OrchestratorRole(config, plugins)
    agent = assembly.make_agent(config, plugins)
    try:
        await role.start()
        await role.admit()
        await agent.start()
        agents = role.orchestrator.agents_until(lambda agents: any(each.free_slots > 0 for each in agents))
        await expect(agents, "the agent has joined")
        yield role
    finally:
        await role.close(0.0)
        await agent.close()


def ask(role: OrchestratorRole, key: KeyText, *, stream: bool = False) -> TaskStream:
    caller = role.access.caller(Presented(token=str(key)))
    return role.context("test").submit(Submission("chat", "synthetic", BODY, stream, caller=caller))


async def test_a_daily_budget_holds_over_a_restart(keys: Path) -> None:
    key, other = made_key(keys, Limits(tokens_per_day=20)), made_key(keys, Limits(tokens_per_day=20))
    async with running(keys, 30) as role:
        await expect(ask(role, key).result(), "the answer")
    async with running(keys, 30) as role:
        with pytest.raises(LimitReached, match="tokens_per_day"):
            ask(role, key)
        await expect(ask(role, other).result(), "the answer")


async def test_with_a_key_its_tasks_end(keys: Path) -> None:
    key, other = made_key(keys, Limits(concurrency=2)), made_key(keys, Limits())
    async with running(keys, 10_000, 10.0) as role:
        streams = [ask(role, key, stream=True), ask(role, other, stream=True)]
        for stream in streams:
            await expect(anext(stream), "a token")
        revoke_keys(keys, [key.id])
        with pytest.raises(Unauthenticated, match="revoked"):
            await read(streams[0])
        assert [view.task_id for view in role.orchestrator.tasks()] == [streams[1].task_id]
        with pytest.raises(Unauthenticated):
            ask(role, key)


async def test_limits_hold_over_the_client_plane(keys: Path) -> None:
    key = made_key(keys, Limits(concurrency=2, models=(MODEL,)))
    async with Rig("memory", {"network": f"plane-{uuid4()}"}) as rig:
        _, engine = await rig.agent("agent")
        pipeline = await rig.pipeline("agent")
        await rig.fleet(pipeline, "client", KeyAccess(keys))
        client = await rig.client(str(key))
        assert await expect(client.models(), "the models") == [MODEL]
        held = [client.submit(Submission("chat", MODEL, Script("x", hold_after=0).body())) for _ in range(2)]
        await engine.until(lambda: len(engine.named("holding")) == 2, "both run")
        # As often as its client takes an orchestrator for ill that fails: this one is not.
        for number in range(1, 5):
            with pytest.raises(LimitReached, match="concurrency") as reached:
                await expect(client.submit(Submission("chat", MODEL, "{}")).result(), "the refusal")
            assert reached.value.retry_after > 0
            assert pipeline.stats()["events"]["limits_reached"] == number
        assert client.hub.agents()[0].failed == 0
        with pytest.raises(Forbidden, match="models"):
            await expect(client.submit(Submission("chat", MODEL, '{"models": ["another"]}')).result(), "the refusal")
        for stream in held:
            stream.cancel("enough")
