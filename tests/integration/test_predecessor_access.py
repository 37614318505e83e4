"""Who is let in by the gateway `predecessor` where keys are needed, shown for every endpoint of its table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, hangs, says, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.integration.refused_endpoints import Example, Examples, answered, requests

from anywire.caller import ROLES
from anywire.errors import ConfigError
from anywire.events import Event
from anywire.gateway import Gateway
from anywire_gateway_llama_dds import LlamaDdsGateway, LlamaDdsGatewayConfig
from anywire_gateway_predecessor import (
    PredecessorGateway,
    PredecessorGatewayConfig,
    PredecessorTransport,
    PredecessorTransportConfig,
)

CHAT = {"model": "m", "messages": MESSAGES}
BASES = ("/api/v1", "/v1")
EXAMPLES: Examples = {
    ("GET", "/health"): Example(role=None),
    ("GET", "/status"): Example(role="observe"),
    ("GET", "/agents"): Example(role="observe"),
    ("POST", "/agents/register"): Example(body={"agent_id": "a"}, role=None),
    ("POST", "/agents/{id}/heartbeat"): Example("old", body={}, role=None),
    ("GET", "/agents/{id}"): Example("old", role="observe"),
    ("DELETE", "/agents/{id}"): Example("old", role=None),
    ("POST", "/chat"): Example(body=CHAT),
    ("POST", "/generate"): Example(body={"model": "m", "prompt": "hello"}),
    ("POST", "/chat/completions"): Example(body=CHAT),
    ("POST", "/completions"): Example(body={"model": "m", "prompt": "hello"}),
    ("GET", "/tasks"): Example(),
    ("GET", "/tasks/{id}"): Example("task", foreign=404),
    ("DELETE", "/tasks/{id}"): Example("task", foreign=404),
    ("PUT", "/routing/algorithm"): Example(body={}, role="operate"),
    ("GET", "/pool/status"): Example(role="observe"),
    ("GET", "/metrics/summary"): Example(role="observe"),
}


class House(NamedTuple):
    served: Served
    gateway: PredecessorGateway
    client: aiohttp.ClientSession
    seen: list[object]
    task: str = ""

    def state(self) -> object:
        context = self.served.context
        tasks = [(each.task_id, each.place, each.chunks) for each in context.tasks()]
        return context.stats(), tasks, context.agents(), list(self.seen)


@asynccontextmanager
async def house(engine: ScriptedEngine, *, takes_agents: bool = False) -> AsyncIterator[House]:
    keys = KnownKeys(alice="use", bob="use", olga="observe", root="operate")
    transports = [PredecessorTransport(PredecessorTransportConfig(allow=["192.0.2.1/32"]))] if takes_agents else []
    async with serving(engine, access=keys, transports=transports) as served:
        gateway, seen = PredecessorGateway(PredecessorGatewayConfig(port=0, shutdown_grace=0.2)), list[object]()
        await gateway.start(served.context)
        end = served.context.events.subscribe("test", seen.append, Event)
        try:
            async with aiohttp.ClientSession(gateway.address) as client:
                yield House(served, gateway, client, seen)
        finally:
            end()
            await gateway.close()


@asynccontextmanager
async def with_a_task(**options: Any) -> AsyncIterator[House]:
    """With a running task of ``alice``."""
    async with house(hangs("text"), **options) as at:
        body = CHAT | {"stream": True}
        async with at.client.post("/chat", json=body, headers=bearer("alice")) as running:
            await running.content.readuntil(b"text")
            yield at._replace(task=running.headers["x-anywire-task"])


@pytest.mark.parametrize("takes_agents", [False, True])
@pytest.mark.parametrize("shown", [{}, bearer("wrong"), {"x-anywire-tenant": "alice"}, {"api-key": "wrong"}])
async def test_every_endpoint_refuses_who_has_no_key(shown: Mapping[str, str], takes_agents: bool) -> None:
    async with with_a_task(takes_agents=takes_agents) as at:
        before = at.state()
        for asked in requests(at.gateway.endpoints, EXAMPLES, BASES, at.task):
            status, text = await answered(at.client, asked, shown)
            where = f"{asked.method} {asked.path}: {status} {text}"
            if asked.endpoint.role is not None:
                assert status == 401, where
                assert asked.method == "HEAD" or "INVALID_API_KEY" in text, where
            elif not asked.endpoint.path.endswith("/health"):
                assert status in (401, 403, 404), where
        assert at.state() == before


@pytest.mark.parametrize(("key", "role"), [("alice", "use"), ("olga", "observe"), ("root", "operate")])
async def test_every_endpoint_asks_for_its_role(key: str, role: Any) -> None:
    async with with_a_task() as at:
        before = at.state()
        for asked in requests(at.gateway.endpoints, EXAMPLES, BASES, at.task):
            needed = asked.endpoint.role
            if needed is None or (ROLES.index(needed) <= ROLES.index(role) and not asked.example.foreign):
                continue
            name = "bob" if asked.example.foreign else key
            status, text = await answered(at.client, asked, bearer(name))
            assert status == (asked.example.foreign or 403), f"{asked.method} {asked.path}: {status} {text}"
        assert at.state() == before


async def test_a_client_with_a_key_is_answered_and_sees_its_own_alone() -> None:
    async with house(says("hello")) as at:
        async with at.client.post("/chat", json=CHAT, headers=bearer("alice")) as answer:
            assert answer.status == 200
            task = (await answer.json())["id"]
        for name, status in (("alice", 200), ("bob", 404), ("olga", 404), ("root", 200)):
            async with at.client.get(f"/tasks/{task}", headers=bearer(name)) as answer:
                assert answer.status == status, name
            async with at.client.get("/tasks", headers=bearer(name)) as answer:
                assert len((await answer.json())["tasks"]) == (status == 200)
        async with at.client.get("/status") as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="anywire"')


@pytest.mark.parametrize("keyless", [False, True])
@pytest.mark.parametrize("kind", ["llama_dds", "predecessor"])
async def test_clients_that_can_show_no_key_are_let_in_only_if_that_is_set(
    kind: str, keyless: bool, dds_domain: int
) -> None:
    gateway: Gateway
    dds: dict[str, Any] = {"domain": dds_domain}
    if kind == "llama_dds":
        gateway = LlamaDdsGateway(LlamaDdsGatewayConfig(**dds, keyless=keyless))
    else:
        gateway = PredecessorGateway(PredecessorGatewayConfig(port=0, dds=dds, keyless=keyless))
    async with serving(says("x"), access=KnownKeys()) as served:
        if keyless:
            await gateway.start(served.context)
        else:
            with pytest.raises(ConfigError, match=rf"gateways\.{kind}\.keyless: true"):
                await gateway.start(served.context)
        await gateway.close()
