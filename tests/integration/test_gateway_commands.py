"""Commands to agents over HTTP: results as lines or events, errors with their status, and everything that ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from tests.integration.gateway_serving import Carry, ScriptedEngine, Served, says, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.integration.test_docs import DOCS, Reader, reader
from yarl import URL

from anywire import errors
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.events import CommandEnded
from anywire.identity import agent_info
from anywire.roles.agent import Agent

__all__ = ["reader"]  # a fixture

EVENTS = {"Accept": "text/event-stream"}
ECHO = "/v1/agents/agent-1/commands/test.echo"


def engine(**commands: Carry) -> ScriptedEngine:
    made = says("text")
    made.commands.update({f"test.{name}": carry for name, carry in commands.items()})
    return made


def client(served: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(served.url)


async def count(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    for number in range(arguments.get("to", 3)):
        yield {"number": number}


async def breaks(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    for number in range(arguments.get("after", 0)):
        yield {"number": number}
    raise errors.EngineFailed("the disk is full")


class Held:
    """A command that says ``begun`` and goes on until it is stopped."""

    def __init__(self) -> None:
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()

    async def __call__(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        try:
            if arguments.get("says", True):
                yield "begun"
            self.begun.set()
            await asyncio.get_running_loop().create_future()
        finally:
            self.stopped.set()


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: name and data."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if line and not line.startswith(":")]
        if lines:
            fields = {name: value for name, _, value in lines}
            found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


async def test_results_are_lines_of_json() -> None:
    async with serving(engine(count=count)) as served, client(served) as http:
        async with http.post("/v1/agents/agent-1/commands/test.count", json={"to": 100}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
            lines = (await answer.text()).splitlines()
        assert [json.loads(line) for line in lines] == [{"number": number} for number in range(100)]


async def test_results_are_events_where_the_client_takes_events() -> None:
    async with serving(engine(count=count)) as served, client(served) as http:
        async with http.post("/api/v1/agents/agent-1/commands/test.count", headers=EVENTS) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            told = events_of(await answer.text())
        assert told == [*(("", {"number": number}) for number in range(3)), ("end", {})]


async def test_a_command_without_results_is_answered() -> None:
    path = "/v1/agents/agent-1/commands/test.count"
    async with (
        serving(engine(count=count)) as served,
        client(served) as http,
        http.post(path, json={"to": 0}) as answer,
    ):
        assert (answer.status, await answer.text()) == (200, "")


async def test_a_result_comes_when_it_is_there_and_not_with_the_next() -> None:
    held = Held()
    async with serving(engine(hold=held)) as served, client(served) as http:
        async with http.post("/v1/agents/agent-1/commands/test.hold?deadline=0") as answer:
            assert await answer.content.readline() == b'"begun"\n'
            assert not held.stopped.is_set()
        await held.stopped.wait()


async def test_a_client_that_goes_away_ends_the_command_before_its_first_result_too() -> None:
    held = Held()
    async with serving(engine(hold=held)) as served:
        http = client(served)
        asking = asyncio.ensure_future(http.post("/v1/agents/agent-1/commands/test.hold", json={"says": False}))
        await held.begun.wait()
        asking.cancel()
        await http.close()
        await held.stopped.wait()


async def test_an_error_before_the_first_result_has_its_status() -> None:
    held = Held()
    async with serving(engine(breaks=breaks, hold=held)) as served, client(served) as http:
        for path, body, status, code in (
            ("agent-1/commands/test.breaks", {}, 502, "engine_failed"),
            ("agent-1/commands/test.nothing", {}, 404, "unknown_command"),
            ("agent-1/commands/-x", {}, 400, "invalid_request"),
            ("agent-1/commands/a..b", {}, 400, "invalid_request"),
            (f"agent-1/commands/{'x' * 65}", {}, 400, "invalid_request"),
            ("nobody/commands/test.echo", {}, 404, "agent_not_found"),
            ("agent-1/commands/test.echo?deadline=soon", {}, 400, "invalid_request"),
            ("agent-1/commands/test.echo?deadline=-1", {}, 400, "invalid_request"),
            ("agent-1/commands/test.echo?deadline=inf", {}, 400, "invalid_request"),
            ("agent-1/commands/test.hold?deadline=0.05", {"says": False}, 504, "deadline_exceeded"),
        ):
            async with http.post(f"/v1/agents/{path}", json=body, headers=EVENTS) as answer:
                told = (await answer.json())["error"]
                assert (answer.status, told["code"]) == (status, code), path
        await held.stopped.wait()


async def test_an_error_after_it_ends_the_stream() -> None:
    async with serving(engine(breaks=breaks)) as served, client(served) as http:
        for headers in ({}, EVENTS):
            async with http.post(
                "/v1/agents/agent-1/commands/test.breaks", json={"after": 2}, headers=headers
            ) as answer:
                assert answer.status == 200
                text = await answer.text()
            if headers:
                *results, (name, last) = events_of(text)
                assert name == "error"
            else:
                *results, last = [json.loads(line) for line in text.splitlines()]
            assert len(results) == 2
            assert last["error"]["code"] == "engine_failed"
            assert "the disk is full" in last["error"]["message"]


async def test_a_stream_of_events_without_results_is_kept_alive() -> None:
    held = Held()
    async with serving(engine(hold=held), heartbeat=0.02) as served, client(served) as http:
        async with http.post("/v1/agents/agent-1/commands/test.hold", json={"says": False}, headers=EVENTS) as answer:
            assert await answer.content.readline() == b":\n"
            assert await answer.content.readline() == b"\n"
            assert await answer.content.readline() == b":\n"
        await held.stopped.wait()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b" \n", 200),
        (b"{}", 200),
        (b'{"model": "a:b:c"}', 200),
        (b"[]", 400),
        (b"null", 400),
        (b"model=x", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b'{"x": "' + b"x" * 66_000 + b'"}', 413),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_body_is_none_or_an_object(body: bytes, status: int) -> None:
    async with serving(engine()) as served, client(served) as http, http.post(ECHO, data=body) as answer:
        told = await answer.json(content_type=None)
        assert answer.status == status, told
        if status == 200:
            assert told == {"arguments": json.loads(body) if body.strip() else {}}


@pytest.mark.parametrize("agent_id", ["rack/7", "a%2Fb", "commands", "x/drain", "a b?c#d", "größe"])
async def test_any_id_of_an_agent_can_be_sent_a_command(agent_id: str) -> None:
    made = engine()
    async with serving(made) as served:
        agent = Agent(
            agent_info(agent_id, engine=made), made, [MemoryTransport(MemoryConfig(network=f"test-{id(made)}"))]
        )
        await agent.start()
        try:
            await served.orchestrator.agents_until(
                lambda agents: any(each.agent_id == agent_id and each.status.state == "ready" for each in agents)
            )
            url = URL(f"{served.url}/v1/agents/{quote(agent_id, safe='')}/commands/test.echo", encoded=True)
            async with aiohttp.ClientSession() as http, http.post(url) as answer:
                assert answer.status == 200, await answer.text()
        finally:
            await agent.close()


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
async def test_without_keys_commands_are_for_this_machine(headers: dict[str, str], status: int) -> None:
    async with serving(engine()) as served, client(served) as http, http.post(ECHO, headers=headers) as answer:
        assert answer.status == status


async def test_with_keys_commands_are_for_who_operates_and_it_is_told_who_that_was() -> None:
    held = Held()
    keys = KnownKeys(alice="use", olga="observe")
    keys.add("root", "operate", "lab")
    async with serving(engine(hold=held), access=keys) as served, client(served) as http:
        seen: asyncio.Queue[CommandEnded] = asyncio.Queue()
        served.context.events.subscribe("test", seen.put_nowait, CommandEnded)
        for headers, status in (({}, 401), (bearer("alice"), 403), (bearer("olga"), 403), (bearer("root"), 200)):
            async with http.post(ECHO, headers=headers) as answer:
                assert answer.status == status
        event = await seen.get()
        assert (event.caller, event.tenant, event.name, event.error) == ("root", "lab", "test.echo", "")
        assert seen.empty()
        async with http.post("/v1/agents/agent-1/commands/test.hold", headers=bearer("root")) as answer:
            await answer.content.readline()
            keys.revoke("root")
            last = json.loads(await answer.content.readline())
            assert last["error"]["code"] == "invalid_api_key"
        await held.stopped.wait()


@pytest.mark.timeout(150)
async def test_commands_are_sent_as_their_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "send-commands.md", "Over HTTP")
    assert not reader.programs
