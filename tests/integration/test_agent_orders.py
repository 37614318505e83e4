"""Orders of operators over HTTP and the client plane, and the health of agents as every surface tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, says, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.patience import PATIENCE
from yarl import URL

from anywire import errors
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.cli.doctor_transports import MOST_TOLD, _out_of_service
from anywire.engine import Delta, EngineProgress
from anywire.events import AgentOrdered, HealthChanged
from anywire.identity import agent_info
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from anywire.roles.agent import Agent
from anywire.testing.rig import Rig

CHAT = {"model": "m", "messages": MESSAGES}
WELL: dict[str, Any] = {
    "state": "closed",
    "order": "",
    "reason": "",
    "evidence": {},
    "trips": 0,
    "probes": 0,
    "retry_in_ms": 0,
}
WELL |= {"slow_start": 0, "links": {}, "models": {}}
AT_ONCE = {"breaker": {"errors": 1, "quarantine_trips": 1, "quarantine_probe": 3600}, "agent_wait": 0}
"""The first failure quarantines, and nobody probes by itself."""


def client(served: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(served.url)


async def order(http: aiohttp.ClientSession, agent_id: str, word: str, **request: Any) -> tuple[int, Any]:
    async with http.post(f"/v1/agents/{quote(agent_id, safe='')}/{word}", **request) as answer:
        return answer.status, await answer.json()


async def health(http: aiohttp.ClientSession, agent_id: str = "agent-1") -> Any:
    async with http.get("/v1/agents") as answer:
        (found,) = [each["health"] for each in (await answer.json())["data"] if each["id"] == agent_id]
    return found


@asynccontextmanager
async def other_agents(engine: ScriptedEngine, served: Served, *agent_ids: str) -> AsyncIterator[None]:
    """Further agents of the same engine."""
    async with AsyncExitStack() as stack:
        for agent_id in agent_ids:
            transport = MemoryTransport(MemoryConfig(network=f"test-{id(engine)}"))
            agent = Agent(agent_info(agent_id, engine=engine), engine, [transport])
            await agent.start()
            stack.push_async_callback(agent.close)
        await served.orchestrator.agents_until(
            lambda agents: {each.agent_id for each in agents if each.status.state == "ready"} >= set(agent_ids)
        )
        yield


# Orders over HTTP


async def test_an_order_is_answered_with_the_health_that_the_list_then_has() -> None:
    async with serving(says("text"), pipeline={"agent_wait": 0}) as served, client(served) as http:
        assert await health(http) == WELL
        for word, now in (("drain", "drained"), ("isolate", "isolated")):
            status, told = await order(http, "agent-1", word, json={"reason": f"{word} it"})
            assert status == 200
            assert told == {"id": "agent-1", "object": "agent", "health": WELL | {"order": now, "reason": f"{word} it"}}
            assert await health(http) == told["health"]
            async with http.post("/v1/chat/completions", json=CHAT) as answer:
                assert answer.status == 503, "no task goes there"
        status, told = await order(http, "agent-1", "restore")
        assert (status, told["health"]) == (200, WELL)
        async with http.post("/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200


async def test_an_agent_that_nobody_knows_is_not_found_and_one_that_has_gone_can_be_ordered() -> None:
    engine = says("text")
    async with serving(engine) as served, client(served) as http:
        for word in ("drain", "isolate", "restore"):
            status, told = await order(http, "nobody", word)
            assert (status, told["error"]["code"]) == (404, "agent_not_found"), word
            assert "nobody" in told["error"]["message"]
        async with other_agents(engine, served, "short"):
            assert (await order(http, "short", "drain"))[0] == 200
        await served.orchestrator.agents_until(lambda agents: len(agents) == 1)
        status, told = await order(http, "short", "restore")
        assert (status, told["health"]["order"]) == (200, ""), "an order can be ended while the agent is gone"
        status, told = await order(http, "short", "isolate")
        assert (status, told["health"]["order"]) == (200, "isolated")
        async with other_agents(engine, served, "short"):
            assert (await health(http, "short"))["order"] == "isolated", "it holds over all lives"


@pytest.mark.parametrize(
    "agent_id", ["rack/7", "a%2Fb", "drain", "x/drain", "a b?c#d", "größe", "register", "a//b", "."]
)
async def test_any_id_of_an_agent_can_be_ordered(agent_id: str) -> None:
    engine = says("text")
    async with serving(engine) as served, other_agents(engine, served, agent_id):
        async with aiohttp.ClientSession() as http:
            encoded = quote(agent_id, safe="").replace(".", "%2E")
            for base in ("/v1", "/api/v1"):
                url = URL(f"{served.url}{base}/agents/{encoded}/drain", encoded=True)
                async with http.post(url) as answer:
                    told = await answer.json()
                    assert (answer.status, told.get("id")) == (200, agent_id), told
        assert served.orchestrator.agent_health(agent_id).order == "drained"
        assert served.orchestrator.agent_health("agent-1").order == ""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"  \n", 200),
        (b"{}", 200),
        (b'{"reason": "", "more": [1]}', 200),
        (b'{"reason": 5}', 400),
        (b'{"reason": null}', 400),
        (b"[]", 400),
        (b"null", 400),
        (b"reason=new disk", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b'{"reason": "' + b"x" * 70_000 + b'"}', 413),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_body_is_none_or_names_a_reason(body: bytes, status: int) -> None:
    async with serving(says("text")) as served, client(served) as http:
        found, told = await order(http, "agent-1", "drain", data=body, headers={"Content-Type": "text/plain"})
        assert found == status, told
        assert served.orchestrator.agent_health("agent-1").order == ("drained" if status == 200 else "")


async def test_a_reason_is_cut_and_holds_no_secret() -> None:
    key = str(new_key())
    async with serving(says("text")) as served, client(served) as http:
        _, told = await order(http, "agent-1", "drain", json={"reason": f"with {key} {'x' * 5000}"})
        reason = told["health"]["reason"]
        assert key not in reason
        assert reason.startswith("with ")
        assert len(reason) <= 1024


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"X-Forwarded-For": "192.0.2.9"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
    ],
    ids=["this machine", "through a proxy", "a page elsewhere", "a name that was led here"],
)
async def test_without_keys_orders_are_for_this_machine(headers: dict[str, str], status: int) -> None:
    async with serving(says("text")) as served, client(served) as http:
        found, told = await order(http, "agent-1", "isolate", headers=headers)
        assert found == status, told
        assert served.orchestrator.agent_health("agent-1").order == ("isolated" if status == 200 else "")


async def test_with_keys_orders_are_for_who_operates_and_tell_who_that_was() -> None:
    keys = KnownKeys(alice="use", olga="observe")
    keys.add("root", "operate", "lab")
    async with serving(says("text"), access=keys) as served, client(served) as http:
        seen: asyncio.Queue[AgentOrdered] = asyncio.Queue()
        served.context.events.subscribe("test", seen.put_nowait, AgentOrdered)
        streams = {}
        for name in ("alice", "root"):
            streams[name] = await http.get("/v1/events?types=agent.ordered,orchestrator.*", headers=bearer(name))
        for headers, status in (({}, 401), (bearer("alice"), 403), (bearer("olga"), 403), (bearer("root"), 200)):
            assert (await order(http, "agent-1", "drain", headers=headers, json={"reason": "disk"}))[0] == status
        event = await seen.get()
        assert (event.agent_id, event.order, event.reason) == ("agent-1", "drained", "disk")
        assert (event.caller, event.tenant) == ("root", "lab")
        assert seen.empty()
        line = await streams["root"].content.readuntil(b'"reason":"disk"')
        assert b"event: agent.ordered" in line
        assert b'"caller":"root"' in line
        served.orchestrator.close_gate()
        told = await streams["alice"].content.readuntil(b"closing")
        assert b"agent.ordered" not in told
        for stream in streams.values():
            stream.close()


# The health of an agent


async def test_a_quarantined_agent_is_told_counted_and_tried_again_when_it_is_restored() -> None:
    fails = True

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if fails:
            raise errors.EngineFailed("no memory")
        yield Delta("text", finish_reason="stop")

    async with serving(ScriptedEngine(script), pipeline=AT_ONCE) as served, client(served) as http:
        changes: asyncio.Queue[HealthChanged] = asyncio.Queue()
        served.context.events.subscribe("test", changes.put_nowait, HealthChanged)
        async with http.post("/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 502
        told = await health(http)
        assert (told["state"], told["evidence"], told["trips"]) == ("quarantined", {"engine_failed": 1}, 1)
        assert "1 × engine_failed" in told["reason"]
        assert 0 < told["retry_in_ms"] <= 3_600_000
        first = await changes.get()
        assert (first.state, first.evidence, first.transport) == ("quarantined", {"engine_failed": 1}, "")
        values = await scraped(http)
        assert (values["anywire_trips_total"], values["anywire_quarantines_total"]) == (1, 1)
        assert values["anywire_agents_by_health", "quarantined"] == 1
        assert values["anywire_agents_by_health", "closed"] == 0
        _, answer_of_order = await order(http, "agent-1", "restore")
        assert answer_of_order["health"]["probes"] == 1, "it is tried at once"
        for _ in ("the client's task", "the probe"):
            assert (await served.observer.ended.get()).error == "engine_failed"
        fails = False
        await order(http, "agent-1", "restore")
        assert (await changes.get()).state == "closed"
        assert await health(http) == WELL | {"trips": 1}, "openings are remembered for a while"
        async with http.post("/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200


async def scraped(http: aiohttp.ClientSession) -> dict[Any, float]:
    """The value of each sample, by its name alone, or with its only label."""
    async with http.get("/metrics") as answer:
        text = await answer.text()
    found: dict[Any, float] = {}
    for family in prometheus(text):
        for sample in family.samples:
            found[(sample.name, *sample.labels.values()) if sample.labels else sample.name] = sample.value
    return found


async def test_what_fails_and_what_is_ordered_is_counted_from_the_beginning() -> None:
    async with serving(says("text")) as served, client(served) as http:
        names = ["retries", "repeated", "retries_denied", "trips", "quarantines", "drained", "isolated", "hedges"]
        names += ["hedges_won", "preemptions"]
        before = await scraped(http)
        assert {name: before[f"anywire_{name}_total"] for name in names} == dict.fromkeys(names, 0)
        states = ("closed", "open", "half_open", "quarantined")
        assert [before["anywire_agents_by_health", state] for state in states] == [1, 0, 0, 0]
        await order(http, "agent-1", "drain")
        await order(http, "agent-1", "isolate")
        after = await scraped(http)
        assert (after["anywire_drained_total"], after["anywire_isolated_total"]) == (1, 1)
        assert (after["anywire_agents_ordered", "drained"], after["anywire_agents_ordered", "isolated"]) == (0, 1)


# The client plane


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
async def test_clients_order_over_their_transport_as_their_key_allows(
    transport: str, tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> None:
    path, keys = tmp_path / "keys.json", {}
    for role in ("use", "observe", "operate"):
        keys[role] = new_key()
        add_key(path, record_of(keys[role], role=role, tenant="lab"))
    options = {"network": "orders"} if transport == "memory" else options_of(transport)
    async with Rig(transport, options) as rig:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        await rig.fleet(pipeline, "client", KeyAccess(path))
        clients = {role: await rig.client(str(key)) for role, key in keys.items()}
        operator = clients["operate"]
        for role in ("use", "observe"):
            for refused in (clients[role].drain_agent, clients[role].isolate_agent, clients[role].restore_agent):
                with pytest.raises(errors.Forbidden, match="for the role operate"):
                    await refused("a")
        with pytest.raises(errors.Forbidden, match="for the role observe"):
            await clients["use"].agents()
        drained = WELL | {"order": "drained", "reason": "new disk"}
        assert await operator.drain_agent("a", "new disk") == drained
        (listed,) = await clients["observe"].agents()
        assert listed["health"] == drained
        assert (await operator.isolate_agent("a"))["order"] == "isolated"
        assert await operator.restore_agent("a") == WELL
        with pytest.raises(errors.InvalidRequest, match="there is no agent 'b'"):
            await operator.drain_agent("b")
        for arguments in ({}, {"agent_id": "a"}, {"agent_id": "a", "order": "stop"}, {"agent_id": 5, "order": "drain"}):
            with pytest.raises(errors.InvalidRequest):
                [each async for each in operator.command("order_agent", arguments)]
        async with aclosing(clients["use"].events()) as events:
            first = asyncio.ensure_future(anext(events))
            await clients["use"].tasks()  # a command that is sent after that for events
            await operator.drain_agent("a")
            pipeline.close_gate()
            async with asyncio.timeout(PATIENCE):
                assert (await first)["type"] == "orchestrator.changed", "what others order is not for everybody"


# What doctor tells


class Told:
    """A client whose orchestrator tells this of its agents."""

    def __init__(self, *agents: Any) -> None:
        self._agents = list(agents)

    async def command(self, name: str, arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        assert name == "agents"
        if not self._agents:
            raise errors.Forbidden("no")
        for each in self._agents:
            yield each


async def test_doctor_names_the_agents_that_get_no_task() -> None:
    bad = WELL | {"state": "quarantined", "reason": "5 × engine_failed", "retry_in_ms": 4000}
    out = WELL | {"order": "drained", "reason": "new disk"}
    open_ = WELL | {"state": "open", "reason": "3 × engine_failed"}
    agents = [{"id": "a", "health": bad}, {"id": "b", "health": out}, {"id": "c", "health": open_}, {"id": "d"}, 7]
    told: Any = Told(*agents, {"id": "e", "health": WELL})
    assert [text for text, _ in await _out_of_service(told, "hub")] == [
        "the agent a is quarantined: 5 × engine_failed; tried again in 4 s",
        "the agent b is drained: new disk",
    ]
    many: Any = Told(*({"id": f"a{number}\x1b", "health": out} for number in range(20)))
    texts = [text for text, _ in await _out_of_service(many, "hub")]
    assert len(texts) == MOST_TOLD + 1
    assert texts[-1] == f"{20 - MOST_TOLD} more agents get no task"
    assert all(text.isprintable() for text in texts)
    nobody: Any = Told()
    assert await _out_of_service(nobody, "hub") == []


def test_the_page_shows_health_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "failure-handling.md").read_text()
    shown = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert {name: type(value) for name, value in shown.items()} == {name: type(value) for name, value in WELL.items()}
