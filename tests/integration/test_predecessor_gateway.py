"""The gateway and the transport ``predecessor``: clients and agents that were written for it, over HTTP and DDS."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from openai._streaming import SSEDecoder
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, Served, hangs, says, serving
from tests.patience import PATIENCE

from anywire.engine import Delta
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import TaskRequest
from anywire_gateway_predecessor import (
    PredecessorGateway,
    PredecessorGatewayConfig,
    PredecessorTransport,
    PredecessorTransportConfig,
)
from anywire_gateway_predecessor.topic_types import ClientRequest, ClientResponse

JSON = dict[str, Any]
USAGE = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
BASES = ["", "/api/v1"]


class Front:
    def __init__(self, served: Served, client: httpx.AsyncClient) -> None:
        self.served, self.client = served, client

    async def get(self, path: str, status: int = 200, method: str = "GET", **options: Any) -> JSON:
        answer = await self.client.request(method, path, **options)
        assert answer.status_code == status, answer.text
        told: JSON = answer.json()
        return told

    async def post(self, path: str, body: Any, status: int = 200, **options: Any) -> JSON:
        return await self.get(path, status, "POST", json=body, **options)

    async def agents(self, condition: Callable[[list[JSON]], bool]) -> list[JSON]:
        async with asyncio.timeout(PATIENCE):
            while True:
                found: list[JSON] = (await self.get("/agents"))["agents"]
                if condition(found):
                    return found


@asynccontextmanager
async def front(engine: ScriptedEngine, *, agents: JSON | None = None, **options: Any) -> AsyncIterator[Front]:
    """With ``agents``, options of the transport, agents may register."""
    transports = [PredecessorTransport(PredecessorTransportConfig(**agents))] if agents is not None else []
    async with serving(engine, transports=transports, pipeline={"max_attempts": 3}) as served:
        gateway = PredecessorGateway(PredecessorGatewayConfig(**{"port": 0, "shutdown_grace": 0.2} | options))
        await gateway.start(served.context)
        try:
            async with httpx.AsyncClient(base_url=gateway.address, timeout=TIMEOUT, trust_env=False) as client:
                yield Front(served, client)
        finally:
            await gateway.close()


class ForeignAgent:
    """An agent of the predecessor: an HTTP server with ``POST /chat``."""

    def __init__(self) -> None:
        self.asked: list[JSON] = []
        self.answer: Any = {"response": "from afar", "processing_time_ms": 3, "success": True}
        self.status = 200
        self.hang = False
        self.begun, self.left = asyncio.Event(), asyncio.Event()
        self.port = 0

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        if (request.method, request.path) != ("POST", "/chat"):
            return web.Response(status=404)
        self.asked.append(json.loads(await request.read()))
        self.begun.set()
        try:
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.left.set()
        body = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return web.Response(status=self.status, body=body, headers={"Location": "/elsewhere"})

    def registration(self, **members: Any) -> JSON:
        return {
            "agent_id": "old-1",
            "hostname": "127.0.0.1",
            "port": self.port,
            "model": "old",
            "slots_total": 2,
        } | members


@asynccontextmanager
async def foreign_agent() -> AsyncIterator[ForeignAgent]:
    agent = ForeignAgent()
    server = web.Server(agent.chat, handler_cancellation=True, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    agent.port = listening.sockets[0].getsockname()[1]
    try:
        yield agent
    finally:
        listening.close()
        await server.shutdown(0.1)


# Clients over HTTP


@pytest.mark.parametrize("path", ["/chat", "/api/v1/chat", "/v1/chat/completions", "/api/v1/chat/completions"])
async def test_a_chat_is_answered_in_its_form(path: str) -> None:
    engine = says("Hel", Delta("lo", finish_reason="stop", usage=USAGE))
    async with front(engine) as at:
        told = await at.post(
            path,
            {"messages": MESSAGES, "max_tokens": 20, "temperature": 0.5, "priority": 10, "urgency": 7, "complexity": 2,
             "task_type": "chat", "timeout_ms": 30_000, "protocol": "dds", "session_id": "s1"},
        )  # fmt: skip
        assert told["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
        assert told["choices"][0]["finish_reason"] == "stop"
        assert (told["agent_id"], told["usage"]["total_tokens"], told["object"]) == ("agent-1", 5, "chat.completion")
        assert told["processing_time_ms"] >= 0
        (task,) = engine.tasks
        assert json.loads(task.body) == {
            "model": "m", "messages": MESSAGES, "max_tokens": 20, "temperature": 0.5,
        }  # fmt: skip
        assert (task.priority, task.session, json.loads(task.hints)) == (
            5, "s1", {"urgency": 7, "complexity": 2, "task_type": "chat"},
        )  # fmt: skip
        assert 0 < task.time_left_ms <= 30_000
        kept = await at.get(f"/tasks/{told['id']}")
        assert (kept["status"], kept["response"], kept["error"]) == ("completed", "Hello", None)
        assert kept["completed_at"] >= kept["created_at"] > time.time() - 3600


async def test_a_chat_is_streamed() -> None:
    async with front(says("Hel", "lo")) as at:
        answer = await at.client.post("/chat", json={"messages": MESSAGES, "stream": True})
        *events, done = [event.data for event in SSEDecoder().iter_bytes(iter([answer.content]))]
        assert done == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
        assert "".join(deltas) == "Hello"


async def test_a_prompt_is_generated_from() -> None:
    engine = says("Hello")
    async with front(engine) as at:
        for path in ("/generate", "/v1/completions", "/api/v1/generate"):
            told = await at.post(path, {"prompt": "say hello", "max_tokens": 0, "temperature": -1})
            assert (told["response"], told["success"], told["agent_id"]) == ("Hello", True, "agent-1")
        assert json.loads(engine.tasks[0].body) == {
            "model": "m", "messages": [{"role": "user", "content": "say hello"}],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/chat", b"{nonsense", 400, "Invalid JSON"),
        ("/chat", b"[]", 400, "Invalid JSON"),
        ("/chat", b"\xff", 400, "Invalid JSON"),
        ("/chat", b"{}", 400, "No messages provided"),
        ("/generate", b"{}", 400, "No messages provided"),
        ("/chat", b'{"messages": [{"role": 3, "content": "y"}]}', 400, "role"),
        ("/chat", b'{"messages": [{"role": "user", "content": "y"}], "priority": "high"}', 400, "priority"),
        ("/chat", b'{"messages": [{"role": "user", "content": "y"}], "model": "other"}', 404, "other"),
        ("/chat", b"[" * 100_000, 400, "Invalid JSON"),
        ("/chat", b'{"messages": ' + b"[" * 500_000, 400, "Invalid JSON"),
        ("/chat", b'{"messages": [' + b"[]," * 200_000 + b"[]]}", 413, "lists and objects"),
        ("/chat", b'{"messages": [{"role": "user", "content": "y"}], "session_id": "\\ud800"}', 400, "session_id"),
        ("/chat", b'{"messages": [{"role": "user", "content": "a\\ud83e"}]}', 400, "messages[0].content holds half"),
        ("/chat", b'{"messages": [{"role": "user", "content": "y"}], "urgency": [1]}', 400, "urgency"),
        ("/nothing", b"", 404, "nothing at"),
        ("/health", b"", 405, "answers GET"),
        ("/agents/x/heartbeat", b"", 403, "transports"),
        ("/agents/register", b"{}", 403, "transports"),
    ],
)
async def test_errors_have_its_form(path: str, body: bytes, status: int, said: str) -> None:
    async with front(says("x")) as at:
        for base in BASES:
            told = await at.get(base + path, status, "POST", content=body)
            assert told.keys() <= {"error", "code"}
            assert said in told["error"]


async def test_an_engine_s_failure_has_a_status_and_is_kept() -> None:
    async with front(says(then=EngineFailed("it broke"))) as at:
        told = await at.post("/chat", {"messages": MESSAGES}, 502)
        assert (told["code"], "it broke" in told["error"]) == ("ENGINE_FAILED", True)
        (kept,) = (await at.get("/tasks"))["tasks"]
        assert kept["status"] == "failed"
    async with front(says("begun", then=EngineFailed("it broke"))) as at:
        answer = await at.client.post("/chat", json={"messages": MESSAGES, "stream": True})
        last = [event.data for event in SSEDecoder().iter_bytes(iter([answer.content]))][-1]
        assert "it broke" in json.loads(last)["error"]


async def test_a_busy_server_says_when_to_come_back() -> None:
    for status, pause, told in ((429, 6.2, "7"), (503, 0.0, "1"), (500, 0.0, None)):
        failure = EngineFailed("busy", phase="maybe_sent", status=status, retry_after=pause)
        async with front(says(then=failure)) as at:
            answer = await at.client.post("/chat", json={"messages": MESSAGES})
            assert answer.status_code == (502 if status == 500 else status)
            assert answer.headers.get("Retry-After") == told


@pytest.mark.parametrize("base", BASES)
async def test_what_it_tells_of_itself(base: str) -> None:
    engine = hangs("x")
    async with front(engine) as at:
        health = await at.get(f"{base}/health")
        assert (health["status"], health["dds_available"]) == ("healthy", False)
        (agent,) = (await at.get(f"{base}/agents"))["agents"]
        assert agent.keys() == {"agent_id", "hostname", "port", "model", "status", "slots_idle"}
        assert (agent["agent_id"], agent["model"], agent["status"], agent["slots_idle"]) == ("agent-1", "m", "idle", 64)
        assert (await at.get(f"{base}/agents/agent-1"))["slots_total"] == 64
        assert (await at.get(f"{base}/agents/nobody", 404))["error"] == "Agent not found"

        asking = asyncio.create_task(at.client.post("/chat", json={"messages": MESSAGES}))
        await engine.began.wait()
        (task,) = (await at.get(f"{base}/tasks?status=running"))["tasks"]
        assert (await at.get(f"{base}/tasks/{task['task_id']}"))["status"] == "running"
        status = await at.get(f"{base}/status")
        assert (status["registry"]["total_agents"], status["scheduler"]["running"]) == (1, 1)
        assert (await at.get(f"{base}/pool/status"))["slots_idle"] == 63
        assert (await at.get(f"{base}/metrics/summary"))["tasks"]["running"] == 1
        assert await at.get(f"{base}/tasks/{task['task_id']}", method="DELETE") == {"success": True}
        assert (await asking).status_code == 499
        assert (await at.get(f"{base}/tasks/{task['task_id']}", 404, method="DELETE"))["error"]
        told = await at.get(f"{base}/routing/algorithm", 409, "PUT", json={"algorithm": "fuzzy"})
        assert "selector.name" in told["error"]


async def test_a_client_that_goes_away_cancels_its_task() -> None:
    engine = hangs("x")
    async with front(engine) as at:
        asking = asyncio.create_task(at.client.post("/chat", json={"messages": MESSAGES}))
        await engine.began.wait()
        asking.cancel()
        await engine.cancelled.wait()


async def test_a_page_of_another_site_is_refused() -> None:
    async with front(says("x"), agents={}) as at:
        for path in ("/chat", "/agents/register"):
            told = await at.post(path, {"messages": MESSAGES}, 403, headers={"Origin": "https://evil.example"})
            assert told["code"] == "ORIGIN_NOT_ALLOWED"
        told = await at.post("/agents/register", {}, 403, headers={"Origin": "http://localhost:1"})
        assert told["code"] == "NOT_ADMITTED"


async def test_an_allowed_page_may_ask_and_read() -> None:
    page = "https://chat.example.org"
    async with front(says("x"), allowed_origins=[page]) as at:
        for base in BASES:
            asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
            told = await at.client.options(f"{base}/chat", headers=asked)
            assert told.status_code == 204
            assert told.headers["Access-Control-Allow-Origin"] == page
            assert "POST" in told.headers["Access-Control-Allow-Methods"]
        for stream in (True, False):
            body = {"messages": MESSAGES, "stream": stream}
            answer = await at.client.post("/chat", json=body, headers={"Origin": page})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, page)
        for path in ("/agents/nobody", "/nothing"):
            answer = await at.client.get(path, headers={"Origin": page})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (404, page)
        assert (await at.client.options("/chat", headers={"Origin": "https://evil.example"})).status_code == 403


async def test_a_page_that_lets_its_name_lead_here_reads_no_agents() -> None:
    async with front(says("x")) as at:
        for path in ("/agents", "/agents/agent-1"):
            assert (await at.client.get(path)).status_code == 200
            told = await at.get(path, 403, headers={"Host": "evil.example"})
            assert told["code"] == "FORBIDDEN"


@pytest.mark.parametrize("path", ["/chat/", "//chat", "/api/v1//chat/"])
async def test_slashes_and_a_mark_more_are_no_matter(path: str) -> None:
    async with front(says("Hello")) as at:
        body = b"\xef\xbb\xbf" + json.dumps({"messages": MESSAGES}).encode()
        told = await at.get(str(at.client.base_url).rstrip("/") + path, method="POST", content=body)
        assert told["choices"][0]["message"]["content"] == "Hello"
        assert (await at.get("/agents/"))["agents"]


@pytest.mark.parametrize("before", [[], ["x"]])
async def test_a_silent_stream_is_kept_alive(before: list[str]) -> None:
    body = {"messages": MESSAGES, "stream": True}
    async with (
        front(hangs(*before), keep_alive=0.02) as at,
        at.client.stream("POST", "/chat", json=body) as answer,
    ):
        assert answer.status_code == 200
        seen = ""
        async for piece in answer.aiter_text():
            seen += piece
            if seen.endswith(": keep-alive\n\n") and all(f'"{text}"' in seen for text in before):
                break


async def test_what_is_no_http_is_told_in_its_form() -> None:
    async with front(says("x")) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.client.base_url.port or 0)
        writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() == {"error", "code"}
        writer.close()


# Its agents


async def test_an_agent_registers_is_asked_and_leaves() -> None:
    async with front(says("x"), agents={}) as at, foreign_agent() as agent:
        assert await at.post("/agents/register", agent.registration()) == {"success": True, "agent_id": "old-1"}
        found = await at.agents(lambda agents: len(agents) == 2)
        (listed,) = [each for each in found if each["agent_id"] == "old-1"]
        assert listed == {
            "agent_id": "old-1", "hostname": "127.0.0.1", "port": agent.port, "model": "old", "status": "idle",
            "slots_idle": 2,
        }  # fmt: skip
        for stream in (False, True):
            answer = await at.client.post("/chat", json={"model": "old", "messages": MESSAGES, "stream": stream})
            assert answer.status_code == 200
            assert "from afar" in answer.text
        asked = agent.asked[0]
        assert (asked["messages"], asked["model"], asked["stream"]) == (MESSAGES, "old", False)
        assert asked["task_id"]
        # OpenAI's clients reach it too.
        async with at.served.client() as client:
            whole = await client.chat.completions.create(model="old", messages=MESSAGES, max_tokens=9)
            assert whole.choices[0].message.content == "from afar"
            assert agent.asked[-1]["max_tokens"] == 9
        assert await at.post("/agents/old-1/heartbeat", {"status": "idle", "slots_idle": 2}) == {"success": True}
        assert await at.post("/api/v1/agents/old-1/heartbeat", None) == {"success": True}
        assert (await at.get("/agents/old-1", method="DELETE")) == {"success": True}
        await at.agents(lambda agents: len(agents) == 1)
        await at.get("/agents/old-1", 404, "DELETE")


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        ({"content": "a"}, 200, "a"),
        ({"text": "b", "prompt_tokens": 1, "completion_tokens": 2}, 200, "b"),
        ({"choices": [{"message": {"content": "c"}, "finish_reason": "length"}]}, 200, "c"),
        ({"choices": [{"text": "d"}]}, 200, "d"),
        ({"success": False, "error": "out of memory"}, 200, None),
        ({"error": {"message": "out of memory"}}, 500, None),
        ({"response": 3}, 200, None),
        ({"choices": []}, 200, None),
        (b"\xff nonsense", 200, None),
        (b"[" * 100_000, 200, None),
        ({}, 302, None),
        ({"response": "x" * 2000}, 200, None),
    ],
)
async def test_whatever_an_agent_answers_is_an_answer_or_its_failure(
    answer: Any, status: int, text: str | None
) -> None:
    async with front(says("x"), agents={"max_message_bytes": 1024}) as at, foreign_agent() as agent:
        agent.answer, agent.status = answer, status
        await at.post("/agents/register", agent.registration())
        if text is None:
            told = await at.post("/chat", {"model": "old", "messages": MESSAGES}, 502)
            assert "agent" in told["error"]
        else:
            told = await at.post("/chat", {"model": "old", "messages": MESSAGES})
            assert told["choices"][0]["message"]["content"] == text
        # It is still there, and nobody else was harmed.
        assert len((await at.get("/agents"))["agents"]) == 2
        assert (await at.post("/chat", {"model": "m", "messages": MESSAGES}))["agent_id"] == "agent-1"


async def test_a_cancelled_task_is_ended_at_its_agent() -> None:
    async with front(says("x"), agents={}) as at, foreign_agent() as agent:
        agent.hang = True
        await at.post("/agents/register", agent.registration())
        asking = asyncio.create_task(at.client.post("/chat", json={"model": "old", "messages": MESSAGES}))
        await agent.begun.wait()
        asking.cancel()
        await asyncio.wait_for(agent.left.wait(), PATIENCE)
        await at.agents(lambda agents: all(each["status"] == "idle" for each in agents))


async def test_an_agent_that_takes_no_connection_is_lost_and_its_task_goes_elsewhere() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens never
        async with front(says("here"), agents={}) as at:
            gone = {"agent_id": "gone", "hostname": "127.0.0.1", "port": taken.getsockname()[1], "model": "m",
                    "slots_total": 1000}  # fmt: skip
            await at.post("/agents/register", gone)
            for _ in range(3):
                told = await at.post("/chat", {"model": "m", "messages": MESSAGES})
                assert (told["agent_id"], told["choices"][0]["message"]["content"]) == ("agent-1", "here")
            assert len((await at.get("/agents"))["agents"]) in (1, 2)


async def test_a_silent_agent_is_lost() -> None:
    async with front(says("x"), agents={"heartbeat_timeout": 0.3}) as at, foreign_agent() as agent:
        await at.post("/agents/register", agent.registration())
        await at.agents(lambda agents: len(agents) == 1)
        assert await at.post("/agents/old-1/heartbeat", {}) == {"success": False}


async def test_an_agent_that_says_error_gets_no_task() -> None:
    async with front(says("x"), agents={}) as at, foreign_agent() as agent:
        await at.post("/agents/register", agent.registration())
        await at.post("/agents/old-1/heartbeat", {"status": "error"})
        await at.agents(lambda agents: any(each["status"] == "error" for each in agents))
        await at.post("/agents/old-1/heartbeat", {"status": "idle"})
        await at.agents(lambda agents: not any(each["status"] == "error" for each in agents))


@pytest.mark.parametrize(
    ("members", "status", "said"),
    [
        ({"hostname": "192.0.2.1"}, 403, "192.0.2.1"),
        ({"hostname": "169.254.169.254"}, 403, "allow"),
        ({"hostname": "no.such.host.invalid"}, 400, "not known"),
        ({"hostname": "127.0.0.1\r\nx: y"}, 400, "hostname"),
        ({"hostname": "127.0.0.1/x"}, 400, "not known"),
        ({"port": 0}, 400, "port"),
        ({"port": "80"}, 400, "port"),
        ({"port": 70000}, 400, "port"),
        ({"model": ""}, 400, "model"),
        ({"model": None}, 400, "model"),
        ({"model": "\x1b[2J"}, 400, "model"),
        ({"slots_total": 10**9}, 400, "slots_total"),
        ({"agent_id": "a/b"}, 400, "agent_id"),
        ({"agent_id": ["x"]}, 400, "agent_id"),
        ({"agent_id": "x" * 300}, 400, "agent_id"),
    ],
)
async def test_a_registration_that_cannot_be_is_refused(members: JSON, status: int, said: str) -> None:
    async with front(says("x"), agents={}) as at, foreign_agent() as agent:
        told = await at.post("/agents/register", agent.registration(**members), status)
        assert said in told["error"]
        assert len((await at.get("/agents"))["agents"]) == 1


async def test_nobody_takes_the_name_of_an_agent_that_is_there() -> None:
    async with front(says("x"), agents={}) as at, foreign_agent() as first, foreign_agent() as second:
        await at.post("/agents/register", first.registration())
        assert (await at.post("/agents/register", second.registration(), 409))["code"] == "TAKEN"
        # Nor that of an agent of ours.
        await at.post("/agents/register", second.registration(agent_id="agent-1", model="m"))
        assert at.served.orchestrator.agents()[0].agent_id == "agent-1"
        assert len(at.served.orchestrator.agents()) == 3
        await at.post("/agents/register", first.registration(slots_total=7))
        found = await at.agents(lambda agents: any(each["slots_idle"] == 7 for each in agents))
        assert len(found) == 3


async def test_agents_come_from_where_they_may_only() -> None:
    async with front(says("x"), agents={"allow": ["192.0.2.0/24"]}) as at, foreign_agent() as agent:
        assert (await at.post("/agents/register", agent.registration(), 403))["code"] == "NOT_ADMITTED"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
async def test_no_agent_comes_by_a_proxy_that_is_not_trusted(header: str) -> None:
    """Everybody whom the proxy passes on has its address, which may register."""
    async with front(says("x"), agents={}) as at, foreign_agent() as agent:
        await at.post("/agents/register", agent.registration())
        name = agent.registration()["agent_id"]
        for method, path in (("POST", "register"), ("POST", f"{name}/heartbeat"), ("DELETE", str(name))):
            body = agent.registration(agent_id="another")
            answer = await at.client.request(method, f"/agents/{path}", json=body, headers={header: "for=192.0.2.7"})
            assert (answer.status_code, answer.json()["code"]) == (403, "NOT_ADMITTED")
        assert len((await at.get("/agents"))["agents"]) == 2


def test_networks_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="localhost"):
        PredecessorTransportConfig(allow=["localhost"])


# Clients over DDS

QOS = Qos(Policy.Reliability.Reliable(duration(seconds=120)), Policy.Durability.Volatile, Policy.History.KeepLast(128))


class DdsClient:
    """As existing ones are: it looks into its reader now and then."""

    def __init__(self, domain: int) -> None:
        self.participant = DomainParticipant(domain)
        self.writer = DataWriter(self.participant, Topic(self.participant, "client/request", ClientRequest), qos=QOS)
        self.reader = DataReader(self.participant, Topic(self.participant, "client/response", ClientResponse), qos=QOS)
        self.responses: dict[str, list[ClientResponse]] = {}

    async def found(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (  # noqa: ASYNC110 - nothing wakes an event loop here
                self.writer.get_matched_subscriptions() and self.reader.get_matched_publications()
            ):
                await asyncio.sleep(0.01)

    def ask(self, request_id: str, messages: Any = MESSAGES, **members: Any) -> None:
        text = messages if isinstance(messages, str) else json.dumps(messages)
        fields = {"priority": 5, "timeout_ms": 60_000, "stream": False, "max_tokens": 0, "temperature": -1.0} | members
        self.writer.write(
            ClientRequest(request_id, "client-1", "chat", text, requires_context=False, created_at=1, **fields)
        )

    async def answer(self, request_id: str) -> list[ClientResponse]:
        async with asyncio.timeout(PATIENCE):
            while True:
                for sample in self.reader.take(32):
                    if isinstance(sample, ClientResponse):
                        self.responses.setdefault(sample.request_id, []).append(sample)
                found = self.responses.get(request_id, [])
                if found and found[-1].is_final:
                    return found
                await asyncio.sleep(0.01)


async def test_clients_over_dds_are_answered(dds_domain: int) -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if "fail" in task.body:
            raise EngineFailed("it broke")
        for number in range(20):
            yield Delta(f"{number} ")
            await asyncio.sleep(0)
        yield Delta(finish_reason="stop", usage=USAGE)

    engine = ScriptedEngine(script)
    said = "".join(f"{number} " for number in range(20))
    async with front(engine, dds={"domain": dds_domain}) as at:
        assert (await at.get("/health"))["dds_available"]
        client = DdsClient(dds_domain)
        await client.found()
        client.ask("one", priority=9)
        (response,) = await client.answer("one")
        assert (response.content, response.client_id, response.success) == (said, "client-1", True)
        assert (response.prompt_tokens, response.completion_tokens, response.error_message) == (3, 2, "")
        assert json.loads(engine.tasks[0].body) == {"model": "m", "messages": MESSAGES, "stream": False}
        assert engine.tasks[0].priority == 4

        client.ask("two", stream=True, max_tokens=9, temperature=0.5)
        responses = await client.answer("two")
        assert "".join(each.content for each in responses) == said
        assert [each.is_final for each in responses] == [False] * (len(responses) - 1) + [True]

        for request_id, messages in (
            ("bad", "{nonsense"),
            ("none", []),
            ("fail", [{"role": "user", "content": "fail"}]),
        ):
            client.ask(request_id, messages)
            (response,) = await client.answer(request_id)
            assert (response.success, response.content) == (False, "")
            assert response.error_message

        for number in range(40):
            client.ask(f"many-{number}")
        for number in range(40):
            assert (await client.answer(f"many-{number}"))[0].content == said
        client.participant.__del__()


async def test_without_anywire_dds_all_but_its_topics_is_there() -> None:
    program = (
        "import sys; sys.modules['anywire_dds'] = sys.modules['cyclonedds'] = None\n"
        "import asyncio, anywire_gateway_predecessor as ours\n"
        "from anywire_gateway_predecessor.gateway import _open_topics\n"
        "try: asyncio.run(_open_topics(None, ours.PredecessorGatewayConfig(dds={}), None))\n"
        "except Exception as error: print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert b"pip install anywire-dds" in out


async def test_options_of_dds_are_checked() -> None:
    async with serving(says("x")) as served:
        gateway = PredecessorGateway(PredecessorGatewayConfig(port=0, dds={"domian": 3}))
        with pytest.raises(ConfigError, match="domian"):
            await gateway.start(served.context)


async def test_a_port_in_use_is_told() -> None:
    async with serving(says("x")) as served:
        gateway = PredecessorGateway(PredecessorGatewayConfig(port=served.port))
        with pytest.raises(ConfigError, match=str(served.port)):
            await gateway.start(served.context)
