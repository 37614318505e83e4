"""Mutated requests and lines to both ends of the HTTP transport, of strangers and of peers that are admitted."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.integration.fuzzed import AGENT, FROM_AGENT, HUB, STATUS, TO_AGENT, Fuzzed
from tests.integration.mutations import Mutations

from anywire.messages import Cancel, Command, Credit, Progress, TaskRequest
from anywire.testing.patience import PATIENCE
from anywire_http.wire import (
    LINK_HEADER,
    ORDER_HEADER,
    PROTOCOL,
    AgentHello,
    ControlLine,
    HubHello,
    LinkLine,
    ProgressLine,
    Registration,
    encode,
)
from reserved import free_ports

AT_ONCE = 16
"""Requests that are sent at a time."""
JSON = {"Content-Type": "application/json"}
AGENT_HELLO = AgentHello(PROTOCOL, "agent", AGENT, STATUS)
HUB_HELLO = HubHello(PROTOCOL, "agent", HUB)
LINES = {Cancel: "cancel", Credit: "credit", Progress: "progress", AgentHello: "hello", type(STATUS): "status"}


class Fleet:
    """Where its ends are; nobody listens at ``nobody``."""

    def __init__(self) -> None:
        self.hub, self.agent, self.rogue, self.nobody = (f"http://127.0.0.1:{port}" for port in free_ports(4))

    def fuzzed(self) -> Fuzzed:
        options = {"agent_addresses": self.hub, "token": "of this test run"}
        return Fuzzed("http", options, options | {"agent_listen": self.agent})

    def registration(self, url: str) -> Registration:
        return Registration(PROTOCOL, "agent", url, AGENT)

    def stays_here(self, data: bytes) -> bool:
        """Whether a registration leads nowhere else than where this test says."""
        try:
            url = msgspec.json.decode(data, type=Registration).url
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return True
        return url in (self.nobody, self.rogue)


def encoded(cls: type[Any], values: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(values)
    return b'{"%s":%b}' % (LINES[cls].encode(), data) if cls in LINES else data


def names_of(fuzzed: Fuzzed) -> Any:
    """A shared token tells nobody apart, so hellos bring names of their own."""
    return lambda cls: () if issubclass(cls, AgentHello | HubHello | Registration) else fuzzed.names()


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


async def in_batches(messages: int, one: Any) -> None:
    while messages > 0:
        count = min(messages, AT_ONCE)
        messages -= count
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(count))), PATIENCE)


@pytest.mark.parametrize("admitted", [False, True], ids=["stranger", "admitted"])
async def test_mutated_requests_disturb_nobody(fleet: Fleet, admitted: bool) -> None:
    async with fleet.fuzzed() as fuzzed, aiohttp.ClientSession() as client:
        samples = (fleet.registration(fleet.nobody), HUB_HELLO, *TO_AGENT, *FROM_AGENT, AGENT_HELLO)
        mutated = Mutations(samples, encoded, names_of(fuzzed), b"[", b'"DEEPHERE"')
        draw = mutated.random
        token = {"Authorization": "Bearer of this test run"}
        paths = [
            (fleet.hub, "/agents/register"),
            *((fleet.agent, path) for path in ("/link", "/tasks", "/commands", "/control", "/agent", "/\x7f")),
        ]

        async def one() -> None:
            base, path = draw.choice(paths)
            headers = JSON | (token if admitted else draw.choice([{}, {"Authorization": "Bearer x"}]))
            if draw.random() < 0.7:
                headers[LINK_HEADER] = draw.choice(["x", "hub", "\xff" * 20, "9" * 3000])
                headers[ORDER_HEADER] = draw.choice(["0", "-1", "x", "9" * 18])
            data = mutated()
            while not fleet.stays_here(data):
                data = mutated()
            method = draw.choice(["POST", "POST", "POST", "GET", "PUT", "OPTIONS"])
            async with client.request(method, base + path, data=data, headers=headers) as response:
                assert response.status < 500 or response.status in (502, 503), await response.text()
                if response.status != 200:  # a link, or who is there
                    assert "error" in await response.json()

        await fuzzed.bears(lambda messages: in_batches(messages, one))


async def test_mutated_requests_of_a_hub_disturb_no_other_hub(fleet: Fleet) -> None:
    token = {"Authorization": "Bearer of this test run"}
    async with fleet.fuzzed() as fuzzed, aiohttp.ClientSession(headers=JSON | token) as client:
        by_path = {
            "/tasks": TaskRequest,
            "/commands": Command,
            "/control": Cancel | Credit,
        }
        everything = (*TO_AGENT, *FROM_AGENT, HUB_HELLO)
        mutated = Mutations(everything, encoded, names_of(fuzzed), b"[", b'"DEEPHERE"')
        draw = mutated.random
        of_path = {
            path: Mutations(
                [each for each in TO_AGENT if isinstance(each, kind)], encoded, names_of(fuzzed), b"[", b'"DEEPHERE"'
            )
            for path, kind in by_path.items()
        }

        async def send(messages: int) -> None:
            link_id = secrets.token_hex(8)
            async with client.post(
                f"{fleet.agent}/link", data=encode(HUB_HELLO), headers={LINK_HEADER: link_id}
            ) as link:
                assert link.status == 200
                order = 0

                async def one() -> None:
                    nonlocal order
                    path = draw.choice(list(by_path))
                    data = mutated() if draw.random() < 0.3 else of_path[path]()
                    headers = {LINK_HEADER: link_id, ORDER_HEADER: str(order)}
                    order += path == "/tasks"
                    async with client.post(fleet.agent + path, data=data, headers=headers) as response:
                        assert response.status < 500

                await in_batches(messages, one)
                assert not link.content.at_eof(), "the link has borne it"

        await fuzzed.bears(send)


async def test_mutated_lines_of_an_agent_disturb_no_other_agent(fleet: Fleet) -> None:
    token = {"Authorization": "Bearer of this test run"}
    async with fleet.fuzzed() as fuzzed, aiohttp.ClientSession(headers=JSON | token) as client:
        mutated = Mutations((AGENT_HELLO, *FROM_AGENT, *TO_AGENT), encoded, names_of(fuzzed), b"[", b'"DEEPHERE"')
        draw = mutated.random
        left, finished = 0, asyncio.Event()

        async def streamed(request: web.Request, first: Sequence[bytes]) -> web.StreamResponse:
            nonlocal left
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            lines = [*first, *(mutated().replace(b"\n", b" ") for _ in range(draw.randrange(1, 8)))]
            left -= len(lines) - len(first)
            try:
                await response.write(b"\n".join(lines) + b"\n")
                await response.write_eof()
            except ConnectionError:
                pass
            if left <= 0:
                finished.set()
            return response

        async def link(request: web.Request) -> web.StreamResponse:
            await request.read()
            return await streamed(request, [encode(LinkLine(hello=AGENT_HELLO))] if draw.random() < 0.8 else [])

        async def answer(request: web.Request) -> web.StreamResponse:
            await request.read()
            return await streamed(request, [])

        app = web.Application()
        app.add_routes([web.post("/link", link), web.post("/tasks", answer), web.post("/commands", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(fleet.rogue.rpartition(":")[2])).start()

        async def send(messages: int) -> None:
            nonlocal left
            left = messages
            finished.clear()
            while not finished.is_set():
                registration = encode(fleet.registration(fleet.rogue))
                async with client.post(f"{fleet.hub}/agents/register", data=registration) as response:
                    assert response.status in (200, 400, 409, 502)

        try:
            await fuzzed.bears(send)
        finally:
            await runner.cleanup()


def test_every_message_can_be_encoded() -> None:
    for sample in (AGENT_HELLO, HUB_HELLO, *FROM_AGENT, *TO_AGENT):
        assert encoded(type(sample), msgspec.to_builtins(sample))
    assert encoded(Progress, {}) == b'{"progress":{}}'
    assert {"cancel", "credit"} == set(ControlLine.__struct_fields__)
    assert ProgressLine.__struct_fields__ == ("progress",)
