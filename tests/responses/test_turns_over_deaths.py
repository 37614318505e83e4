"""Fifty turns of one conversation over real processes that are killed: every turn has its history, seen at the server
behind the agents' engines, and is kept once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from openai.types.responses import Response
from tests.integration.anywire_processes import Process
from tests.integration.fake_openai_server import FakeServer
from tests.integration.mutations import seed
from tests.long_form import SOAK
from tests.patience import PATIENCE

from reserved import free_ports

pytestmark = pytest.mark.timeout(180 if not SOAK else 600)

TURNS = 50
RACES = frozenset(range(2, TURNS, 3)) - {17, 32, 33, 41} if SOAK else frozenset[int]()
"""The turns whose answer is on its way to be kept, or has been, when the orchestrator is killed."""
AGENT_DIES, ORCHESTRATOR_DIES, BACKGROUND = 17, 33, 41
"""The turns that are under way when it happens, and one that runs in the background while the orchestrator is
killed."""
Said = list[tuple[str, str]]


class Upstream(FakeServer):
    """Answers with the number of messages that it was given, in two pieces. A turn in ``held`` waits for ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.models = {"object": "list", "data": [{"id": "m"}]}
        self.handler = self._say
        self.held: set[str] = set()
        self.go, self.holds = asyncio.Event(), asyncio.Event()
        self.said: dict[str, list[Said]] = {}
        """By the newest message: all messages of each request with it."""

    async def _say(self, request: web.Request) -> web.StreamResponse:
        body = self.requests[-1]
        said = [(each["role"], each["content"]) for each in body["messages"]]
        newest = said[-1][1]
        self.said.setdefault(newest, []).append(said)
        if newest in self.held:
            self.holds.set()
            await self.go.wait()
        text = f"{len(said)} messages"
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"choices": [choice]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for delta, finish in (({"content": text[:3]}, None), ({"content": text[3:]}, None), ({}, "stop")):
            event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    def hold(self, newest: str) -> None:
        self.held, self.go, self.holds = {newest}, asyncio.Event(), asyncio.Event()


class Fleet:
    """An orchestrator at one port and three agents, each a process."""

    def __init__(self, folder: Path, upstream: Upstream, zeromq: dict[str, Any], port: int) -> None:
        settings = {
            "transports": {"zeromq": zeromq},
            "server": {"port": port},
            "services": {
                "conversations": {"folder": str(folder / "kept")},
                "background": {"folder": str(folder / "tasks")},
            },
            "engine": {"name": "openai", "base_url": upstream.url},
            "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
            "shutdown_grace": 0.1,
        }
        self._file = folder / "anywire.yaml"
        self._file.write_text(json.dumps(settings))
        self.running: dict[str, Process] = {}

    async def start(self, name: str) -> Process:
        role = ["serve"] if name == "orchestrator" else ["agent", "--agent-id", name]
        self.running[name] = await Process.start(*role, "--config", str(self._file))
        return self.running[name]

    async def kill(self, name: str) -> None:
        await self.running.pop(name).end(signal.SIGKILL)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    await server.up()
    yield server
    await server.down()


@pytest.fixture
async def fleet(
    tmp_path: Path, upstream: Upstream, options_of: Callable[[str], dict[str, Any]]
) -> AsyncIterator[Fleet]:
    (port,) = free_ports(1)
    found = Fleet(tmp_path, upstream, options_of("zeromq"), port)
    yield found
    for process in found.running.values():
        await process.end(signal.SIGKILL)


async def test_every_turn_has_its_history_whoever_is_killed(fleet: Fleet, upstream: Upstream) -> None:
    drawn = random.Random(seed())
    server = await fleet.start("orchestrator")
    await asyncio.gather(*(fleet.start(f"a{number}") for number in range(3)))
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
    async with client:
        conversation = await client.conversations.create(items=[{"role": "developer", "content": "be brief"}])
        expected: Said = [("system", "be brief")]
        for turn in range(TURNS):
            newest = f"turn {turn}"
            expected.append(("user", newest))
            if turn in (AGENT_DIES, ORCHESTRATOR_DIES, BACKGROUND, *RACES):
                upstream.hold(newest)
            asking = asyncio.ensure_future(taken(client, conversation.id, turn))
            if turn == AGENT_DIES:
                await upstream.holds.wait()
                await fleet.kill("a0")
                upstream.go.set()
            elif turn in (ORCHESTRATOR_DIES, BACKGROUND, *RACES):
                await upstream.holds.wait()
                if turn in RACES:
                    upstream.go.set()
                    for _ in range(drawn.randrange(400)):
                        await asyncio.sleep(0)
                await fleet.kill("orchestrator")
                upstream.go.set()
                await fleet.start("orchestrator")
            text = await asking
            assert text == f"{len(expected)} messages"
            # However often it was sent, it was sent with all of its history.
            assert upstream.said[newest] == [expected] * len(upstream.said[newest])
            expected.append(("assistant", text))
        kept = [each async for each in client.conversations.items.list(conversation.id, order="asc", limit=100)]
        assert [text_of(each) for each in kept] == [text for _, text in expected]
    assert len(upstream.said[f"turn {AGENT_DIES}"]) == 2
    assert len(upstream.said[f"turn {ORCHESTRATOR_DIES}"]) == 2


async def taken(client: openai.AsyncOpenAI, conversation: str, turn: int) -> str:
    """The text of the answer, asked for until it comes: while the orchestrator is not there, does not know the model
    yet, or still answers the turn that the client has given up."""
    while True:
        try:
            return await take_turn(client, conversation, turn)
        except openai.APIStatusError as error:
            if error.status_code not in (409, 503) and error.code != "model_not_found":
                raise
        except (openai.APIConnectionError, httpx.TransportError):
            pass
        await asyncio.sleep(0.05)


async def take_turn(client: openai.AsyncOpenAI, conversation: str, turn: int) -> str:
    """The text of the answer. A turn has a key, so that it counts once however often the client sends it."""
    ask: dict[str, Any] = {
        "model": "m",
        "input": f"turn {turn}",
        "conversation": conversation,
        "extra_headers": {"Idempotency-Key": f"{conversation}-{turn}", "x-anywire-prefer": f"a{turn % 3}"},
    }
    if turn == AGENT_DIES:
        ask["extra_headers"]["x-anywire-prefer"] = "a0"
    if turn == BACKGROUND:
        response: Response = await client.responses.create(**ask, background=True)
        while response.status in ("queued", "in_progress"):
            response = await client.responses.retrieve(response.id)
        return response.output_text
    if turn % 2 and turn != ORCHESTRATOR_DIES:
        async with client.responses.stream(**ask) as stream:
            response = await stream.get_final_response()
    else:
        response = await client.responses.create(**ask)
    return response.output_text


def text_of(item: Any) -> str:
    return "".join(part.text for part in item.content)
