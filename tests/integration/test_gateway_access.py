"""Who is let in by the gateway `openai` where keys are needed, shown for every endpoint of its table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.integration.refused_endpoints import HANDSHAKE, Example, Examples, answered, requests

from anywire import conversations
from anywire.background import SERVICE, BackgroundTask, BackgroundTasks
from anywire.caller import ROLES, Caller, Role
from anywire.conversations import Items, KeptResponse, Page
from anywire.engine import Delta, EngineProgress
from anywire.events import Event
from anywire.messages import Chunk, TaskRequest
from anywire.route import Request, Response, Route
from anywire.submission import Submission
from anywire_gateway_openai.endpoint_table import BASES
from anywire_gateway_openai.errors import OPENAI_FORM

CHAT = {"model": "m", "messages": MESSAGES}
RANKED = {"model": "m", "query": "hello", "documents": ["hello"]}
EXAMPLES: Examples = {
    ("GET", "/"): Example(),
    ("GET", "/v1"): Example(),
    ("GET", "/api/v1"): Example(),
    ("GET", "/health"): Example(role=None),
    ("GET", "/healthz"): Example(role=None),
    ("GET", "/readyz"): Example(role=None),
    ("GET", "/version"): Example(),
    ("GET", "/metrics"): Example(role="observe"),
    ("GET", "/openapi.json"): Example(),
    ("POST", "/chat/completions"): Example(body=CHAT),
    ("GET", "/chat/completions"): Example(headers=HANDSHAKE),
    ("POST", "/chat/completions_stream"): Example(body=CHAT),
    ("GET", "/ws/chat"): Example(headers=HANDSHAKE),
    ("POST", "/completions"): Example(body={"model": "m", "prompt": "hello"}),
    ("POST", "/embeddings"): Example(body={"model": "m", "input": "hello"}),
    ("POST", "/rerank"): Example(body=RANKED),
    ("POST", "/reranking"): Example(body=RANKED),
    ("POST", "/v2/rerank"): Example(body=RANKED),
    ("POST", "/tokenize"): Example(body={"model": "m", "prompt": "hello"}),
    ("POST", "/detokenize"): Example(body={"model": "m", "tokens": [1]}),
    ("POST", "/audio/transcriptions"): Example(body={"model": "m"}, status=400),  # no form
    ("POST", "/audio/speech"): Example(body={"model": "m", "input": "hello"}),
    ("POST", "/images/generations"): Example(body={"model": "m", "prompt": "hello"}),
    ("POST", "/api/chat"): Example(body=CHAT),
    ("POST", "/api/generate"): Example(body={"model": "m", "prompt": "hello"}),
    ("POST", "/api/embed"): Example(body={"model": "m", "input": "hello"}),
    ("POST", "/api/embeddings"): Example(body={"model": "m", "prompt": "hello"}),
    ("GET", "/api/version"): Example(),
    ("GET", "/api/tags"): Example(),
    ("GET", "/api/ps"): Example(),
    ("POST", "/api/show"): Example(body={"model": "m"}),
    ("POST", "/api/pull"): Example(body={"model": "m"}),
    ("POST", "/api/push"): Example(body={"model": "m"}, status=400),
    ("POST", "/api/create"): Example(body={"model": "n", "from": "m"}, status=400),
    ("POST", "/api/copy"): Example(body={"source": "m", "destination": "n"}, status=400),
    ("DELETE", "/api/delete"): Example(body={"model": "m"}),
    ("GET", "/api/blobs/{id}"): Example("sha256:00", status=400),
    ("POST", "/api/blobs/{id}"): Example("sha256:00", status=400),
    ("POST", "/messages"): Example(body={**CHAT, "max_tokens": 5}),
    ("POST", "/messages/count_tokens"): Example(body=CHAT),
    ("POST", "/responses"): Example(body={"model": "m", "input": "hello"}),
    ("GET", "/responses/{id}"): Example("task", foreign=404),
    ("GET", "/responses/{id}/input_items"): Example("task", foreign=404),
    ("POST", "/responses/{id}/cancel"): Example("task", foreign=404),
    ("DELETE", "/responses/{id}"): Example("task", foreign=404),
    ("GET", "/models"): Example(),
    ("GET", "/models/{id}"): Example("m"),
    ("GET", "/tasks"): Example(),
    ("GET", "/tasks/{id}"): Example("task", foreign=404),
    ("GET", "/tasks/{id}/follow"): Example("task", foreign=404),
    ("DELETE", "/tasks/{id}"): Example("task", foreign=404),
    ("GET", "/tasks/{id}/answer"): Example("task", foreign=404),
    ("DELETE", "/tasks/{id}/answer"): Example("task", foreign=404),
    ("GET", "/events"): Example(),
    ("GET", "/caller"): Example(),
    ("GET", "/agents"): Example(role="observe"),
    ("POST", "/agents/register"): Example(body={"agent_id": "a"}, role=None),
    ("POST", "/agents/{id}/commands/{name}"): Example("agent-1", body={"x": 1}, role="operate"),
    ("POST", "/agents/{id}/drain"): Example("agent-1", body={"reason": "new disk"}, role="operate"),
    ("POST", "/agents/{id}/isolate"): Example("agent-1", body={}, role="operate"),
    ("POST", "/agents/{id}/restore"): Example("agent-1", role="operate"),
    ("GET", "/stats"): Example(role="observe"),
    # those of the service
    ("GET", "/notes"): Example(),
    ("GET", "/notes/{id}"): Example("1", role="observe"),
    ("POST", "/notes/{id}"): Example("1", body={"text": "x"}),
    ("DELETE", "/notes/{id}"): Example("1", role="operate"),
}
EXTRA = {
    "embedding": '[{"index":0,"embedding":[0.5]}]',
    "rerank": '{"results":[]}',
    "tokenize": '{"tokens":[1],"count":1}',
    "detokenize": '{"prompt":"x"}',
    "speech": '{"audio":"AAAA"}',
    "image": '{"data":[]}',
}
"""What the engine answers by the kind of a task."""


class EveryKind(ScriptedEngine):
    capabilities = ("chat", "completion", *EXTRA)


class OneAnswer:
    """What a service ``background`` offers that has an answer of ``alice``, to the task ``task_id``."""

    def __init__(self, seen: list[object]) -> None:
        self.task_id, self._seen = "", seen
        self._submission = Submission("chat", "m", json.dumps(CHAT), caller=Caller("alice", "alice"))

    async def submit(self, submission: Submission, key: str = "", digest: bytes = b"") -> tuple[str, bool]:
        self._seen.append(submission)
        return self.task_id, True

    async def get(self, task_id: str, caller: Caller, wait: float = 0.0) -> BackgroundTask | None:
        if task_id != self.task_id or not caller.may_end(self._submission.caller):
            return None
        return BackgroundTask(task_id, self._submission, Chunk("h", task_id, 1, 0, ("text",), final=True), ended=1.0)

    async def forget(self, task_id: str, caller: Caller) -> bool:
        found = await self.get(task_id, caller) is not None
        if found:
            self._seen.append(f"{task_id} is forgotten")
        return found


class OneResponse:
    """What a service ``conversations`` offers that has a response of ``alice``, named by the task of ``tasks``."""

    def __init__(self, tasks: OneAnswer, seen: list[object]) -> None:
        self._tasks, self._seen = tasks, seen

    async def get(self, response_id: str, caller: Caller) -> KeptResponse | None:
        owner = Caller("alice", "alice")
        if response_id != self._tasks.task_id or not caller.may_end(owner):
            return None
        return KeptResponse(response_id, owner, {"id": response_id, "background": True, "output": []})

    async def input_items(self, response_id: str, caller: Caller, page: Page) -> Items | None:
        return Items([], False) if await self.get(response_id, caller) is not None else None

    async def remove(self, response_id: str, caller: Caller) -> bool:
        found = await self.get(response_id, caller) is not None
        if found:
            self._seen.append(f"{response_id} is removed")
        return found

    async def end(self, response: KeptResponse, **more: Any) -> bool:
        self._seen.append(response)
        return True

    async def running(self) -> list[KeptResponse]:
        return []


class TwoServices(NamedTuple):
    background: BackgroundTasks
    conversations: OneResponse

    def get(self, name: str) -> Any:
        return {SERVICE: self.background, conversations.SERVICE: self.conversations}.get(name)

    def metrics(self) -> tuple[()]:
        return ()


class House(NamedTuple):
    """A gateway with one running task of ``alice``."""

    served: Served
    keys: KnownKeys
    engine: ScriptedEngine
    client: aiohttp.ClientSession
    task: str
    seen: list[object]
    """Every event, and every call of the service."""

    async def state(self) -> object:
        """Everything that a request might have changed."""
        context = self.served.context
        views = context.tasks()
        return (
            context.stats(),
            [(each.task_id, each.place, each.chunks, each.caller) for each in views],
            context.agents(),
            len(self.engine.tasks),
            list(self.seen),
        )


@asynccontextmanager
async def house(**gateway: Any) -> AsyncIterator[House]:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if "hang" in task.body:
            yield Delta("text")
            await asyncio.Event().wait()
        text, extra = ("", EXTRA[task.kind]) if task.kind in EXTRA else ("text", "")
        yield Delta(text, extra, "stop")

    seen: list[object] = []

    async def note(request: Request) -> Response:
        seen.append((request.method, request.path))
        return Response(json.dumps(dict(request.headers)).encode())

    engine, keys = EveryKind(script), KnownKeys(alice="use", bob="use", olga="observe", root="operate")
    keys.gone = {"expired", "revoked"}
    for name in keys.gone:
        keys.add(name, "operate")
    background = OneAnswer(seen)
    services = TwoServices(background, OneResponse(background, seen))
    async with serving(engine, access=keys, services=services, **gateway) as served:
        served.context.routes.add(
            Route("GET", "/notes", note),
            Route("GET", "/notes/{id}", note, role="observe"),
            Route("POST", "/notes/{id}", note, role="use"),
            Route("DELETE", "/notes/{id}", note, role="operate"),
        )
        async with aiohttp.ClientSession(served.url) as client:
            body = CHAT | {"stream": True, "user": "hang"}
            async with client.post("/v1/chat/completions", json=body, headers=bearer("alice")) as running:
                await running.content.readuntil(b"text")
                end = served.context.events.subscribe("test", seen.append, Event)
                background.task_id = running.headers["x-anywire-task"]
                yield House(served, keys, engine, client, background.task_id, seen)
                end()


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"x-anywire-tenant": "alice", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        bearer("wrong"),
        bearer("expired"),
        bearer("revoked"),
        bearer(""),
        {"Authorization": "Basic YWxpY2U6YWxpY2U="},
        {"Authorization": "alice"},
        {"x-api-key": "wrong"},
        {"api-key": "wrong"},
        {"Sec-WebSocket-Protocol": "anywire, anywire-key.wrong"},
        {"Cookie": "Authorization=alice; api_key=alice"},
    ],
    ids=lambda shown: ", ".join(f"{name} {value}" for name, value in shown.items()) or "nothing",
)
async def test_every_endpoint_refuses_who_has_no_key(shown: Mapping[str, str]) -> None:
    async with house() as at:
        before = await at.state()
        for asked in requests(at.served.gateway.endpoints, EXAMPLES, BASES, at.task):
            status, text = await answered(at.client, asked, shown)
            where = f"{asked.method} {asked.path}: {status} {text}"
            if asked.endpoint.role is None:
                assert (status, text) in ((200, '{"status":"ok"}'), (200, "")) or status == 404, where
            else:
                assert status == 401, where
                if asked.method != "HEAD":
                    error = json.loads(text)["error"]
                    if asked.endpoint.errors is OPENAI_FORM:
                        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error"), where
                    else:
                        assert "key" in str(error).lower(), where
        assert await at.state() == before


@pytest.mark.parametrize("role", ROLES)
async def test_every_endpoint_asks_for_its_role(role: Role) -> None:
    async with house() as at:
        before = await at.state()
        key = {"use": "alice", "observe": "olga", "operate": "root"}[role]
        refused = 0
        for asked in requests(at.served.gateway.endpoints, EXAMPLES, BASES, at.task):
            needed = asked.endpoint.role
            if needed is None or ROLES.index(needed) <= ROLES.index(role):
                continue
            status, text = await answered(at.client, asked, bearer(key))
            assert status == 403, f"{asked.method} {asked.path}: {status} {text}"
            refused += 1
        assert (refused > 0) == (role != "operate")
        assert await at.state() == before


async def test_every_endpoint_with_a_task_hides_that_of_another_tenant() -> None:
    async with house() as at:
        before, foreign = await at.state(), 0
        for asked in requests(at.served.gateway.endpoints, EXAMPLES, BASES, at.task):
            if "{id}" in asked.endpoint.path:
                assert asked.example.foreign or asked.example.name != "task"
            if asked.example.foreign:
                foreign += 1
                status, text = await answered(at.client, asked, bearer("bob"))
                assert status == asked.example.foreign, f"{asked.method} {asked.path}: {status} {text}"
                unknown = asked._replace(path=asked.path.replace(at.task, "0" * len(at.task)))
                nothing = await answered(at.client, unknown, bearer("bob"))
                assert nothing == (status, text.replace(at.task, "0" * len(at.task))), (
                    "it tells whether a task is there"
                )
        assert foreign
        async with at.client.get("/v1/tasks", headers=bearer("bob")) as answer:
            assert (await answer.json())["data"] == []
        assert await at.state() == before


async def test_every_endpoint_answers_who_may() -> None:
    async with house() as at:
        for asked in requests(at.served.gateway.endpoints, EXAMPLES, BASES, at.task):
            if asked.endpoint.method == "DELETE" or asked.endpoint.path.endswith("/isolate"):
                continue
            if asked.method == "HEAD" and asked.example.headers:
                continue  # no handshake
            status, text = await answered(at.client, asked, bearer("root"))
            expected = 101 if asked.example.headers else 404 if "register" in asked.path else asked.example.status
            assert status == expected, f"{asked.method} {asked.path}: {status} {text}"
        async with at.client.delete(f"/v1/tasks/{at.task}", headers=bearer("alice")) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("header", ["Authorization", "authorization", "x-api-key", "api-key"])
async def test_a_key_is_taken_from_each_of_its_headers(header: str) -> None:
    async with house() as at:
        value = "bearer alice" if header == "authorization" else "Bearer alice" if "A" in header else "alice"
        async with at.client.get("/v1/tasks", headers={header: value}) as answer:
            assert [each["id"] for each in (await answer.json())["data"]] == [at.task]


async def test_a_client_without_a_key_is_answered_before_its_body() -> None:
    async with house() as at:
        raw = await at.served.raw({})
        await raw.reader.readuntil(b"}}")
        raw.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await raw.reader.readline()).startswith(b"HTTP/1.1 401")
        await raw.close()


@pytest.mark.parametrize("query", ["api_key=alice", "a=b&API-KEY=alice", "apikey=x", "access_token=x",
                                   "after=aw-abcdefghij23-secret"])  # fmt: skip
async def test_a_key_in_the_url_is_refused_and_logged_nowhere(query: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with house() as at:
        for headers in ({}, bearer("alice")):
            async with at.client.get(f"/v1/tasks?{query}", headers=headers) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (400, "key_in_url")
                assert "Authorization: Bearer" in error["message"]
    assert query.rpartition("=")[2] not in " ".join(
        record.getMessage() for record in caplog.records if record.name.startswith("anywire")
    ).replace("alice has", "")


async def test_a_service_sees_the_caller_and_no_key() -> None:
    async with house() as at:
        sent = bearer("alice") | {"x-own": "1", "x-api-key": "alice", "api-key": "alice"}
        async with at.client.get("/v1/notes", headers=sent) as answer:
            told = await answer.json()
        assert told["x-own"] == "1"
        assert "alice" not in json.dumps(told)


async def test_a_preflight_needs_no_key_and_allows_the_key_to_allowed_pages_alone() -> None:
    page = "https://chat.example.org"
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with house(allowed_origins=[page]) as at:
        async with at.client.options("/v1/chat/completions", headers=asking | {"Origin": page}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Headers"]) == (204, "authorization")
            assert answer.headers["Access-Control-Allow-Origin"] == page
            assert "Access-Control-Allow-Credentials" not in answer.headers
        async with at.client.options(
            "/v1/chat/completions", headers=asking | {"Origin": "https://a.example"}
        ) as answer:
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
        sent = bearer("alice") | {"Origin": "https://a.example"}
        async with at.client.post("/v1/chat/completions", json=CHAT, headers=sent) as answer:
            assert answer.status == 403, "a page that is not allowed is refused with a key too"
        async with at.client.get("/v1/models", headers={"Origin": page}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, page)
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="anywire"'


async def test_what_a_page_may_do_on_this_machine_needs_a_key_too() -> None:
    async with house() as at, at.client.get("/v1/agents", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 401


async def test_what_is_no_http_is_answered_without_what_it_held(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with house() as at:
        for head in (
            b"GET / HTTP/1.1\r\nAuthorization: Bearer planted" + b"x" * 20000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nAuthorization\x01: Bearer planted\r\n\r\n",
            b"planted planted planted planted\r\n\r\n",
        ):
            raw = await at.served.raw({})
            await raw.reader.readuntil(b"}}")
            raw.writer.write(head)
            told = await raw.reader.read()
            assert b" 400 " in told, told
            assert b"planted" not in told
            await raw.close()
    assert "planted" not in caplog.text


async def test_the_log_names_the_address_of_who_is_refused_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anywire.request_log")
    async with house(trusted_proxies=["127.0.0.1"]) as at:
        caplog.clear()
        async with at.client.get("/v1/stats?planted=1", headers={"X-Forwarded-For": "203.0.113.9"}) as answer:
            assert answer.status == 401
        async with at.client.get("/v1/stats?planted=1", headers=bearer("root")) as answer:
            assert answer.status == 200
    lines = [each.getMessage() for each in caplog.records if "/v1/stats" in each.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("GET /v1/stats 401 ")
    assert " error=invalid_api_key client=203.0.113.9 " in lines[0]
