"""What is HTTP's own: tokens, registration, order over several connections, answers that end, and its errors."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import io
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar, get_args

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import http_exceptions, web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from tests.integration.boundaries import Boundaries
from tests.integration.connections import ListeningHubs
from tests.integration.wire_bench import Bench, echo, final, log_of, request
from tests.integration.wire_faults import Log
from yarl import URL

import anywire_http.tasks
from anywire import errors
from anywire.errors import ConfigError
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    ProgressState,
    TaskRequest,
)
from anywire.plugins import Plugins
from anywire.protocol import PROTOCOL as VERSION
from anywire.testing.recorder import PATIENCE, RecordingHubSink
from anywire.transport import BUFFER_BYTES, Plane
from anywire_http import HttpConfig, HttpTransport
from anywire_http.faults import mapped
from anywire_http.wire import (
    ENVELOPE_BYTES,
    LINK_HEADER,
    ORDER_HEADER,
    PROTOCOL,
    AgentHello,
    ControlLine,
    HubHello,
    Lines,
    LinkLine,
    ProgressLine,
    Registration,
    Welcome,
    decode,
    decode_answer,
    encode,
)
from reserved import free_ports

OURS = {"Content-Type": "application/json"}


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


class HttpBench(Bench):
    async def client(self) -> aiohttp.ClientSession:
        return await self.stack.enter_async_context(aiohttp.ClientSession(headers=OURS))


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[HttpBench]:
    async with AsyncExitStack() as stack:
        yield HttpBench(stack, "http")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_http") as log:
        yield log


# Links


class TestListening(ListeningHubs):
    scheme = "http://"
    settled: ClassVar[dict[str, str]] = {"agent_plane_hub": "{address}", "encoding": "json", "security": "none"}


class TestBoundaries(Boundaries):
    transport = "http"
    scheme = "http://"


@pytest.mark.parametrize("plane", ["agent", "client"])
async def test_cut_connections_lose_the_link_on_both_sides_and_it_joins_again(bench: HttpBench, plane: Plane) -> None:
    port, own = free_ports(2)
    proxy = await bench.proxy(own)
    settings: dict[str, Any]
    if plane == "agent":
        settings = {"agent_addresses": address(port), "agent_listen": address(own), "agent_url": address(proxy.port)}
        hub, sink = await bench.hub(plane=plane, agent_addresses=address(port))
    else:
        settings = {"client_addresses": address(own)}
        hub, sink = await bench.hub(plane=plane, client_addresses=address(proxy.port))
    _, agent, info = await bench.port(plane=plane, **settings)
    await sink.event("joined", "a")
    hub.send("a", request("t1"))
    reply = (await agent.event("task", "t1"))[4]
    proxy.cut()
    await sink.event("lost", "a", info.incarnation)
    await agent.event("hub_lost", "h")
    reply.send(final(request("t1"), "too late"))
    await sink.until(lambda: len(sink.named("joined")) == 2)
    hub.send("a", request("t2"))
    (await agent.event("task", "t2"))[4].send(final(request("t2"), "in time"))
    assert (await sink.final("t2")).deltas == ("in time",)
    assert sink.chunks("t1") == []
    assert [event[0] for event in sink.events if event[0] in ("joined", "lost")] == ["joined", "lost", "joined"]


async def test_tasks_are_passed_on_in_the_order_sent_whatever_their_connections_do(bench: HttpBench) -> None:
    own, port = free_ports(2)
    _, agent, _ = await bench.port(on_task=echo, agent_addresses=address(port), agent_listen=address(own))
    client = await bench.client()
    hello = encode(HubHello(PROTOCOL, "agent", HubInfo("h", 1, protocol=VERSION)))
    async with client.post(f"{address(own)}/link", data=hello, headers={LINK_HEADER: "x"}) as link:
        assert link.status == 200
        await agent.event("hub_joined", "h", 1)

        async def post(order: int, data: bytes) -> tuple[int, bytes]:
            headers = {LINK_HEADER: "x", ORDER_HEADER: str(order)}
            async with client.post(f"{address(own)}/tasks", data=data, headers=headers) as response:
                return response.status, await response.read()

        later = [asyncio.create_task(post(order, encode(request(f"t{order}")))) for order in (3, 2, 4)]
        assert (await post(1, b"{broken"))[0] == 400
        assert not agent.named("task")
        assert (await post(0, encode(request("t0"))))[0] == 200
        assert [(await each)[0] for each in later] == [200, 200, 200]
        assert [event[1] for event in agent.named("task")] == ["t0", "t2", "t3", "t4"]
        assert decode((await later[0])[1], Chunk).task_id == "t3"
    await agent.event("hub_lost", "h", 1)


async def test_what_an_agent_sent_before_it_closed_arrives_before_it_is_lost(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    end, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    for number in range(20):
        hub.send("a", request(f"t{number}"))
    await agent.event("task", "t19")
    for _, task_id, _, task, reply, *_ in agent.named("task"):
        for number in range(200):
            reply.send(Chunk("h", task_id, 1, number, ("x" * 500,)))
        reply.send(Chunk("h", task.task_id, 1, 200, final=True))
    await end.close()
    await sink.event("lost", "a")
    assert [len(sink.chunks(f"t{number}")) for number in range(20)] == [201] * 20
    assert sink.events[-1][0] == "lost"
    assert not sink.named("send_failed")


async def test_answers_on_their_way_when_an_agent_says_goodbye_are_read(bench: HttpBench) -> None:
    """An agent of this test's own: its last chunk leaves after its goodbye, on another connection."""
    (port,) = free_ports(1)
    info, saying, started = AgentInfo("a", 1, protocol=VERSION), asyncio.Event(), asyncio.Event()

    async def link(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        hello = AgentHello(PROTOCOL, "client", info, AgentStatus("a", 1))
        await response.write(encode(LinkLine(hello=hello)) + b"\n")
        await started.wait()
        await response.write(encode(LinkLine(goodbye="enough")) + b"\n")
        asyncio.get_running_loop().call_later(0.05, saying.set)
        return response

    async def task(request: web.BaseRequest) -> web.StreamResponse:
        started.set()
        await saying.wait()
        return web.Response(body=encode(final(decode(await request.read(), TaskRequest), "last")) + b"\n")

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/agent":
            return web.Response(body=encode(AgentHello(PROTOCOL, "client", info, AgentStatus("a", 1))))
        return await (link(request) if request.path == "/link" else task(request))

    server = web.ServerRunner(web.Server(serve))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", port).start()
    hub, sink = await bench.hub(plane="client", client_addresses=address(port))
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    lost = await sink.event("lost", "a", 1)
    assert lost[3] == "enough"
    assert [chunk.deltas for chunk in sink.chunks("t")] == [("last",)]
    await hub.close()
    await server.cleanup()


async def test_hub_listed_under_two_names_is_served_by_one_link_in_the_end(bench: HttpBench) -> None:
    port, other = free_ports(2)
    _, sink = await bench.hub("h", agent_addresses=address(port))
    names = [address(port), f"http://localhost:{port}"]
    await bench.port(agent_addresses=names)
    await sink.event("joined", "a")
    # By the time another agent has joined two hubs, the first one's registrations have settled.
    await bench.port("b", agent_addresses=[*names, address(other)])
    _, second = await bench.hub("o", agent_addresses=address(other))
    await second.event("joined", "b")
    joined = [event[0] for event in sink.events if event[0] in ("joined", "lost") and event[1] == "a"]
    assert joined in (["joined"], ["joined", "lost", "joined"])


async def test_agent_that_cannot_be_reached_is_told_so(bench: HttpBench, log: Log) -> None:
    port, nobody = free_ports(2)
    _, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(agent_addresses=address(port), agent_url=address(nobody))
    await log.says("is not registered: hub h could not link it", "registering agent a", "nobody can be reached there")
    assert not sink.events


async def test_registration_must_lead_to_the_agent_it_names(bench: HttpBench, log: Log) -> None:
    port, own = free_ports(2)
    _, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(agent_addresses=address(port), agent_listen=address(own))
    await sink.event("joined", "a")
    client = await bench.client()
    impostor = AgentInfo("b", 1, protocol=VERSION)
    body = encode(Registration(PROTOCOL, "agent", address(own), impostor))
    async with client.post(f"{address(port)}/agents/register", data=body) as response:
        assert response.status == 502
        error = (await response.json())["error"]
    await log.says("agent a answers there, not b")
    told = f"hub h could not link it at {address(own)}: this agent cannot be reached there. The hub's log says why"
    assert error == told
    assert {event[1] for event in sink.named("joined")} == {"a"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "this is no registration"),
        (encode(Registration("anywire-http/0", "agent", "http://x:1", AgentInfo("x", 1))), 409, "use one version"),
        (
            encode(Registration(PROTOCOL, "client", "http://x:1", AgentInfo("x", 1, protocol=VERSION))),
            409,
            "check the addresses",
        ),
        (b"x" * (ENVELOPE_BYTES + 1), 413, f"limit of {ENVELOPE_BYTES}"),
    ],
)
async def test_registration_that_does_not_fit_is_told_why(
    bench: HttpBench, body: bytes, status: int, text: str
) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(agent_addresses=address(port))
    client = await bench.client()
    async with client.post(f"{address(port)}/agents/register", data=io.BytesIO(body)) as response:
        assert response.status == status
        assert text in (await response.json())["error"]
    assert not sink.events


async def test_gateway_can_take_registrations(bench: HttpBench) -> None:
    port, own = free_ports(2)
    transport = HttpTransport(HttpConfig.model_validate({"agent_addresses": address(port), "token": "right"}))
    _, _, info = await bench.port(agent_addresses=address(port), agent_listen=address(own), token="right")
    said = msgspec.structs.replace(info, protocol=VERSION)
    body = encode(Registration(PROTOCOL, "agent", address(own), said))
    assert (await transport.register_agent(body, "Bearer right", "here"))[0] == 503
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink := RecordingHubSink())
    bench.stack.push_async_callback(hub.close)
    assert (await transport.register_agent(body, "Bearer wrong", "here"))[0] == 401
    status, answer = await transport.register_agent(body, "Bearer right", "here")
    assert (status, decode(answer, Welcome).hub.hub_id) == (200, "h")
    await sink.event("joined", "a", info.incarnation)


async def test_strangers_disturb_nobody(bench: HttpBench) -> None:
    port, own = free_ports(2)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port), agent_listen=address(own))
    await sink.event("joined", "a")
    client = await bench.client()
    for target in (port, own):
        with socket.create_connection(("127.0.0.1", target)) as raw:
            raw.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        async with client.get(address(target)) as response:
            assert response.status == 404
    for path, data in (("/tasks", encode(request("t"))), ("/control", b""), ("/link", b"?")):
        async with client.post(f"{address(own)}{path}", data=data) as response:
            assert response.status in (400, 410)
    hub.send("a", request("t", body="fine"))
    assert (await sink.final("t")).deltas == ("fine",)
    assert not sink.named("lost")


# Tasks


async def test_attempt_whose_reply_is_let_go_fails_unless_it_was_cancelled(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    for task_id in ("dropped", "cancelled"):
        hub.send("a", request(task_id))
        await agent.event("task", task_id)
    hub.send("a", Cancel("h", "cancelled", 1, "enough"))
    await agent.event("cancel", "cancelled")
    agent.events.clear()
    gc.collect()
    failed = await sink.event("send_failed", "dropped", 1)
    assert isinstance(failed[3], errors.AgentLost)
    assert "without a final chunk" in str(failed[3])
    hub.send("a", request("next"))
    (await agent.event("task", "next"))[4].send(final(request("next")))
    await sink.final("next")
    assert len(sink.named("send_failed")) == 1
    assert not sink.named("lost")


async def test_task_over_the_agents_limit_fails_with_that_and_holds_up_nothing(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    await bench.port(on_task=echo, agent_addresses=address(port), max_message_bytes=2000)
    await sink.event("joined", "a")
    hub.send("a", request("big", body="x" * 200_000))
    hub.send("a", request("small"))
    failed = await sink.event("send_failed", "big", 1)
    assert isinstance(failed[3], errors.PayloadTooLarge)
    assert "2000" in str(failed[3])
    await sink.final("small")


async def test_chunk_over_the_limit_is_refused_and_the_answer_goes_on(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port), max_message_bytes=2000)
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    with pytest.raises(errors.PayloadTooLarge, match="2000"):
        reply.send(final(request("t"), "x" * 3000))
    with pytest.raises(errors.TransportError, match="surrogates not allowed"):
        reply.send(final(request("t"), "\ud800"))
    reply.send(final(request("t"), "short"))
    assert (await sink.final("t")).deltas == ("short",)


async def test_reply_to_a_hub_that_does_not_read_is_congested_and_loses_nothing(bench: HttpBench) -> None:
    port, own = free_ports(2)
    proxy = await bench.proxy(own)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(
        agent_addresses=address(port), agent_listen=address(own), agent_url=address(proxy.port)
    )
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    reply = (await agent.event("task", "t"))[4]
    proxy.hold()
    sent = 0

    async def fill() -> None:
        nonlocal sent
        while True:
            reply.send(Chunk("h", "t", 1, sent, ("y" * 5000,)))
            sent += 1
            await asyncio.sleep(0)

    with pytest.raises(errors.Congested, match="wait for hub h already"):
        await asyncio.wait_for(fill(), PATIENCE)
    assert sent * 5000 >= BUFFER_BYTES
    room = asyncio.ensure_future(reply.drain())
    proxy.flow()
    await asyncio.wait_for(room, PATIENCE)
    reply.send(Chunk("h", "t", 1, sent, final=True))
    await sink.final("t")
    assert [chunk.seq for chunk in sink.chunks("t")] == list(range(sent + 1))


async def test_more_tasks_than_connections_may_be_are_congested_until_some_end(
    bench: HttpBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire_http.tasks, "MOST_TASKS", 5)
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await bench.port("other", echo, agent_addresses=address(port))
    await sink.event("joined", "a")
    await sink.event("joined", "other")
    for number in range(5):
        hub.send("a", request(f"t{number}"))
    with pytest.raises(errors.Congested, match="5 tasks are under way"):
        hub.send("a", request("t5"))
    hub.send("a", Credit("h", "t0", 1, 3))
    hub.send("other", request("o"))
    await sink.final("o")
    await agent.event("credit", "t0")
    room = asyncio.ensure_future(hub.drain("a"))
    await agent.event("task", "t4")
    assert not room.done()
    agent.named("task")[0][4].send(final(request("t0")))
    await asyncio.wait_for(room, PATIENCE)
    hub.send("a", request("t5"))
    await agent.event("task", "t5")


# Commands and progress


async def test_command_whose_reply_is_let_go_fails_unless_it_was_cancelled(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    for command_id in ("cancelled", "dropped"):
        hub.send("a", Command("h", command_id, "logs"))
        await agent.event("command", command_id)
    hub.send("a", Cancel("h", "cancelled", 0))
    await agent.event("cancel", "cancelled", 0)
    agent.events.clear()
    gc.collect()
    failed = (await sink.event("send_failed", "dropped", 0))[3]
    assert isinstance(failed, errors.AgentLost)
    assert "command dropped" in str(failed)
    hub.send("a", request("t"))
    (await agent.event("task", "t"))[4].send(final(request("t")))
    await sink.final("t")
    assert [event[1] for event in sink.named("send_failed")] == ["dropped"]


async def test_second_request_of_a_command_that_is_let_go_says_nothing_of_the_first(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    hub.send("a", Command("h", "c", "load"))
    first = (await agent.event("command", "c"))[4]
    agent.events.clear()
    hub.send("a", Command("h", "c", "load"))
    await agent.event("command", "c")
    agent.events.clear()
    gc.collect()
    hub.send("a", request("t"))
    (await agent.event("task", "t"))[4].send(final(request("t")))
    await sink.final("t")
    first.send(CommandResult("h", "c", 0, "1"))
    first.send(CommandResult("h", "c", 1, "2", True))
    await sink.final_result("c")
    assert [result.data for result in sink.results("c")] == ["1", "2"]
    assert not sink.named("send_failed")


async def test_answer_ends_only_with_what_names_its_own_request(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port))
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    hub.send("a", Command("h", "c", "load"))
    of_task, of_command = (await agent.event("task", "t"))[4], (await agent.event("command", "c"))[4]
    of_task.send(Progress("h", "t", 1, "loading", '{"progress": 1}'))
    of_task.send(CommandResult("h", "c", 0, "", True))
    of_task.send(Chunk("h", "other", 1, 0, final=True))
    of_task.send(final(request("t"), "mine"))
    of_command.send(Chunk("h", "c", 0, 0, final=True))
    of_command.send(CommandResult("h", "c", 1, "mine", True))
    assert (await sink.final("t")).deltas == ("mine",)
    await sink.until(lambda: len(sink.results("c")) == 2)
    assert sink.results("c")[1].data == "mine"
    assert [event[3].detail for event in sink.named("progress")] == ['{"progress": 1}']
    assert not sink.named("send_failed")


async def test_progress_and_results_that_cannot_be_read_are_refused_and_the_answer_goes_on(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port))
    _, agent, _ = await bench.port(agent_addresses=address(port), max_message_bytes=2000)
    await sink.event("joined", "a")
    hub.send("a", Command("h", "c", "load"))
    reply = (await agent.event("command", "c"))[4]
    odd: list[Any] = [
        CommandResult("h", "c", 0, 5),  # type: ignore[arg-type]
        CommandResult("h", "c", "0"),  # type: ignore[arg-type]
        Progress("h", "c", 0, "asleep"),  # type: ignore[arg-type]
        Progress("h", "c", 0, "tool", "\ud800"),
    ]
    for each in odd:
        with pytest.raises(errors.TransportError):
            reply.send(each)
    with pytest.raises(errors.PayloadTooLarge, match="2000"):
        reply.send(CommandResult("h", "c", 0, "x" * 2001))
    reply.send(CommandResult("h", "c", 0, "fine", True))
    assert (await sink.final_result("c")).data == "fine"
    with pytest.raises(errors.TransportError):
        hub.send("a", Cancel("h", "t", 1, 5))  # type: ignore[arg-type]
    hub.send("a", Command("h", "d", "load"))
    await agent.event("command", "d")
    assert not sink.named("lost")


# Tokens


async def test_agents_and_clients_with_the_token_join(bench: HttpBench) -> None:
    port, other = free_ports(2)
    options: dict[str, Any] = {"agent_addresses": address(port), "client_addresses": address(other), "token": "s3cret"}
    hub, sink = await bench.hub(**options)
    await bench.port(on_task=echo, **options)
    await sink.event("joined", "a")
    hub.send("a", request("t"))
    await sink.final("t")
    await bench.port("orchestrator", echo, plane="client", **options)
    client, sink = await bench.hub("c", plane="client", **options)
    await sink.event("joined", "orchestrator")
    client.send("orchestrator", request("t", "c"))
    await sink.final("t")


@pytest.mark.parametrize(
    ("of_hub", "of_agent", "text"),
    [("right", "wrong", "a wrong token"), ("right", None, "no token"), (None, "only agent", "no token")],
)
async def test_without_the_right_token_nobody_joins_both_sides_say_why_and_with_it_they_do(
    bench: HttpBench, log: Log, of_hub: str | None, of_agent: str | None, text: str
) -> None:
    (port,) = free_ports(1)
    hub, sink = await bench.hub(agent_addresses=address(port), token=of_hub)
    end, agent, _ = await bench.port(agent_addresses=address(port), token=of_agent)
    guard = "hub h" if of_hub else "agent a"
    await log.says(f"{guard} refused a request from 127.0.0.1: it came with {text}")
    await log.says(f"registering agent a at {address(port)}")
    assert any("set the same `token` at both ends" in event[0] for event in log.events)
    assert not any(secret in event[0] for event in log.events for secret in ("right", "only agent"))
    assert not sink.events
    assert not agent.events
    if of_hub:
        await end.close()
        await bench.port(agent_addresses=address(port), token=of_hub)
    else:
        await hub.close()
        _, sink = await bench.hub("h2", agent_addresses=address(port), token=of_agent)
    await sink.event("joined", "a")


async def test_client_with_a_wrong_token_is_told(bench: HttpBench, log: Log) -> None:
    (port,) = free_ports(1)
    await bench.port(plane="client", client_addresses=address(port), token="right")
    _, sink = await bench.hub("c", plane="client", client_addresses=address(port), token="wrong")
    await log.says(
        "agent a refused a request from 127.0.0.1: it came with a wrong token", f"{address(port)} refused: the request"
    )
    assert not sink.events


# Addresses


async def test_address_of_another_machine_or_behind_tls_is_passed_over(bench: HttpBench) -> None:
    (port,) = free_ports(1)
    _, sink = await bench.hub(
        agent_addresses=["https://gateway.example/api", "http://192.0.2.1:8090", f"{address(port)}/api/v1"]
    )
    await bench.port(agent_addresses=f"{address(port)}/api/v1")
    await sink.event("joined", "a")


async def test_agent_on_a_wildcard_needs_its_url(bench: HttpBench, log: Log) -> None:
    port, own = free_ports(2)
    _, sink = await bench.hub(agent_addresses=address(port))
    with pytest.raises(errors.TransportUnavailable, match="set agent_url"):
        await bench.port(agent_listen="http://0.0.0.0:0")
    await log.says("set a token")
    await bench.port(agent_addresses=address(port), agent_listen=f"http://0.0.0.0:{own}", agent_url=address(own))
    await sink.event("joined", "a")


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent_addresses": "localhost:8090"}, "use http://host:port"),
        ({"agent_addresses": "http://localhost"}, "name the port"),
        ({"agent_addresses": "http://localhost:99999"}, "is no address"),
        ({"agent_addresses": "http://me:pw@localhost:1"}, "nothing else"),
        ({"client_addresses": []}, "client_addresses"),
        ({"agent_adresses": []}, "did you mean 'agent_addresses'"),
        ({"max_message_bytes": 0}, "greater than or equal to 1024"),
        ({"token": " "}, "protects nothing"),
        ({"token": "schlüssel"}, "ASCII"),
    ],
)
def test_bad_settings_are_answered_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plugins().create("transports", "http", options)


def test_token_is_not_shown() -> None:
    assert "s3cret" not in repr(HttpConfig.model_validate({"token": "s3cret"}))


# Errors


def library_errors() -> list[type[BaseException]]:
    """All but the server's answers, which are no failures: of these only one is ever raised to a handler."""
    found: dict[str, type[BaseException]] = {}
    for module in (aiohttp, http_exceptions, web, msgspec):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Exception) and not issubclass(cls, (Warning, web.HTTPException)):
                found[name] = cls
    return [*found.values(), web.HTTPRequestEntityTooLarge]


def example(cls: type[BaseException]) -> BaseException:
    arguments: list[tuple[Any, ...]] = [
        (),
        ("x",),
        ("x", "y"),
        (1, 2),
        (INFO, ()),
        (b"x", b"y", "h", 1),
        (KEY, OSError(1, "x")),
        (KEY, ValueError()),
    ]
    for each in arguments:
        with suppress(TypeError, AttributeError):
            made = cls(*each)
            str(made)
            return made
    raise AssertionError(f"no way known to make a {cls}")


INFO = aiohttp.RequestInfo(URL("http://h:1/"), "POST", CIMultiDictProxy(CIMultiDict()), URL("http://h:1/"))
KEY: Any = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)


@pytest.mark.parametrize("cls", library_errors(), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_libraries_is_mapped(cls: type[BaseException]) -> None:
    original = example(cls)
    error = mapped(original, "doing this")
    assert isinstance(error, errors.TransportError)
    assert error.__cause__ is original
    assert str(error).startswith("doing this: ")
    assert len(str(error)) > len("doing this: ")


def test_what_is_logged_of_tls_is_the_same_each_time() -> None:
    """So it is logged once, however often it is tried."""
    told = {
        str(mapped(aiohttp.ClientConnectorSSLError(KEY._replace(ssl=ssl.create_default_context()), fault), "dialling"))
        for fault in [ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")] * 2
    }
    assert len(told) == 1
    assert "it speaks no TLS" in told.pop()


def refused() -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "refused"))


@pytest.mark.parametrize(
    ("original", "cls"),
    [
        (refused(), errors.AgentUnavailable),
        (aiohttp.ServerDisconnectedError(), errors.AgentLost),
        (aiohttp.ClientPayloadError("cut"), errors.AgentLost),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), errors.AgentLost),
        (aiohttp.ServerTimeoutError(), errors.AgentLost),
        (aiohttp.InvalidURL("x"), errors.TransportUnavailable),
        (OSError(errno.EADDRINUSE, "in use"), errors.TransportUnavailable),
        (OSError(errno.EMFILE, "too many"), errors.TransportUnavailable),
        (TimeoutError(), errors.AgentLost),
        (web.HTTPRequestEntityTooLarge(1, 2), errors.PayloadTooLarge),
        (web.HTTPUnauthorized(), errors.TransportUnavailable),
        (http_exceptions.BadStatusLine("x"), errors.TransportError),
        (msgspec.DecodeError("x"), errors.TransportError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_errors_mean_what_they_say(original: BaseException, cls: type[errors.AnywireError]) -> None:
    assert type(mapped(original, "x")) is cls


# The wire format

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(min_value=0, max_value=2**63 - 1)
chunks = st.builds(
    Chunk,
    *(texts, texts, numbers, numbers, st.lists(texts).map(tuple), texts, st.booleans(), texts, texts, texts),
    *(numbers, numbers, numbers, numbers, st.booleans(), numbers),
)
others = st.one_of(
    st.builds(
        TaskRequest,
        *(texts, texts, numbers, st.sampled_from(["chat", "completion", "embedding"]), texts, texts),
        *(st.booleans(), texts, st.integers(-(2**63), 2**63 - 1), numbers, numbers, numbers, texts),
        *(st.booleans(), numbers, texts, texts, texts, texts, texts, st.tuples(texts), st.tuples(texts, texts)),
    ),
    st.builds(ControlLine, cancel=st.builds(Cancel, texts, texts, numbers, texts)),
    st.builds(ControlLine, credit=st.builds(Credit, texts, texts, numbers, numbers)),
    st.builds(
        ProgressLine, st.builds(Progress, texts, texts, numbers, st.sampled_from(get_args(ProgressState)), texts)
    ),
    st.builds(Command, texts, texts, texts, texts, st.tuples(texts), numbers, numbers, texts, texts),
    st.builds(CommandResult, texts, texts, numbers, texts, st.booleans(), texts),
    st.builds(LinkLine, status=st.builds(AgentStatus, texts, numbers), goodbye=texts),
    st.builds(HubHello, texts, st.just("agent"), st.builds(HubInfo, texts, numbers, texts, numbers, numbers, texts)),
)


@given(st.one_of(chunks, others))
def test_messages_come_back_as_they_were_and_fill_one_line(message: Any) -> None:
    data = encode(message)
    assert b"\n" not in data
    assert decode(data, type(message)) == message


def test_lines_of_an_answer_that_only_a_neighbouring_version_knows_are_told_from_broken_ones() -> None:
    chunk, result = Chunk("h", "t", 1, 0), CommandResult("h", "c", 0)
    progress = Progress("h", "t", 1, "tool")
    for message, line in ((chunk, chunk), (result, result), (progress, ProgressLine(progress))):
        for expected in (Chunk, CommandResult):
            assert decode_answer(encode(line), expected) == message
    assert decode_answer(b'{"later":{"task_id":"t"}}', Chunk) is None
    for broken in (b'{"task_id":"t"}', b'{"id":5}', b'{"progress":{"state":"asleep"}}', b"[]", b"{"):
        with pytest.raises(msgspec.MsgspecError):
            decode_answer(broken, Chunk)


@given(chunks, st.binary(max_size=6), st.data())
def test_damaged_messages_are_told_as_such(message: Chunk, noise: bytes, data: st.DataObject) -> None:
    good = encode(message)
    cut = data.draw(st.integers(0, len(good)))
    with suppress(msgspec.MsgspecError):
        decode(good[:cut] + noise + good[cut:], Chunk)


class Pieces:
    """A stream that hands out what it got in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


@given(st.lists(chunks, max_size=6), st.data())
def test_lines_survive_being_cut_anywhere(messages: list[Chunk], data: st.DataObject) -> None:
    stream = b"".join(encode(message) + b"\n" for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    async def read() -> list[Chunk]:
        source: Any = Pieces(pieces)
        lines, found = Lines(source, 100_000), []
        while some := await lines.some():
            found += [decode(line, Chunk) for line in some]
        return found

    assert asyncio.run(read()) == messages


async def test_line_without_an_end_is_told() -> None:
    endless: Any = Pieces([b"x" * 50_000] * 4)
    with pytest.raises(msgspec.DecodeError, match="a line has more than"):
        await Lines(endless, 1000).some()
    cut: Any = Pieces([b"{}\n{"])
    lines = Lines(cut, 1000)
    assert await lines.some() == [b"{}"]
    with pytest.raises(msgspec.DecodeError, match="in the middle"):
        await lines.some()
