"""Background tasks over HTTP, with OpenAI's own client: taken in, answered later, to whom they belong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, Served, serving
from tests.integration.known_keys import KnownKeys, bearer

from anywire.access import Access
from anywire.background import SERVICE
from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire.roles.context import OrchestratorContext
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.service import Background

HEADER = {"x-anywire-background": "true"}
KEY = {"Idempotency-Key": "k"}
CHAT: Any = {"model": "m", "messages": MESSAGES}


class Answering:
    """An engine that answers once it may, and fails where the body says so."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.engine = ScriptedEngine(self._script)

    async def _script(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await self.may.wait()
        if "fail" in task.body:
            raise EngineFailed("broken", status=503)
        if task.kind == "embedding":
            yield Delta(extra='[{"object":"embedding","index":0,"embedding":[0.5,0.25]}]', finish_reason="stop")
        else:
            yield Delta("an ")
            yield Delta("answer", "", "stop", '{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}')


class OneService(NamedTuple):
    service: Background

    def get(self, name: str) -> Any:
        return self.service.offered if name == SERVICE else None

    def metrics(self) -> tuple[()]:
        return ()


class House(NamedTuple):
    served: Served
    answering: Answering
    client: openai.AsyncOpenAI
    http: aiohttp.ClientSession


@asynccontextmanager
async def house(folder: Path, access: Access | None = None, **gateway: Any) -> AsyncIterator[House]:
    service, answering = Background(BackgroundConfig(folder=folder / "tasks")), Answering()
    async with serving(answering.engine, access=access, services=OneService(service), **gateway) as served:
        context = OrchestratorContext(served.orchestrator, "background", access=access, is_service=True)
        await service.start(context)
        try:
            async with aiohttp.ClientSession(served.url) as http, served.client() as client:
                yield House(served, answering, client, http)
        finally:
            answering.may.set()
            service.gate_closed()
            await service.close()


async def asked(
    at: House, body: Any = CHAT, headers: Mapping[str, str] = {}, status: int = 202
) -> tuple[dict[str, Any], Any]:
    async with at.http.post("/v1/chat/completions", json=body, headers={**HEADER, **headers}) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(), answer.headers


async def test_openais_client_gets_its_id_at_once_and_its_answer_later(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        raw = await at.client.chat.completions.with_raw_response.create(**CHAT, extra_headers=HEADER)
        assert raw.status_code == 202
        task_id = raw.headers["x-anywire-task"]
        assert raw.headers["location"] == f"/v1/tasks/{task_id}/answer"
        assert raw.http_response.json() == {
            "id": task_id, "object": "task", "background": True, "answer": f"/v1/tasks/{task_id}/answer",
        }  # fmt: skip
        async with at.http.get(raw.headers["location"]) as early:
            assert (early.status, early.headers["retry-after"]) == (202, "1")
        waits = asyncio.ensure_future(at.client.get(f"/tasks/{task_id}/answer?wait=60", cast_to=ChatCompletion))
        await at.answering.engine.began.wait()
        at.answering.may.set()
        answer = await waits
        assert answer.id == f"chatcmpl-{task_id}"
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("an answer", "stop")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 3
        direct = await at.client.chat.completions.create(**CHAT)
        same = {"id", "created"}
        assert direct.model_dump(exclude=same) == answer.model_dump(exclude=same)
        async with at.http.get(raw.headers["location"]) as again:
            assert (again.status, again.headers["x-anywire-agent"]) == (200, "agent-1")
            assert (await again.json())["created"] == answer.created
        async with at.http.head(f"/v1/tasks/{answer.id}/answer") as head:
            assert (head.status, await head.read()) == (200, b"")


async def test_every_kind_is_answered_as_it_was_asked_for(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        at.answering.may.set()
        embedding = await at.client.embeddings.with_raw_response.create(
            model="m", input="hello", encoding_format="base64", extra_headers=HEADER
        )
        completion = await at.client.completions.with_raw_response.create(model="m", prompt="hi", extra_headers=HEADER)
        ids = [each.headers["x-anywire-task"] for each in (embedding, completion)]
        found: Any = await at.client.get(f"/tasks/{ids[0]}/answer?wait=60", cast_to=CreateEmbeddingResponse)
        assert found.data[0].embedding == "AAAAPwAAgD4=", "as base64"
        told = await at.client.get(f"/tasks/{ids[1]}/answer?wait=60", cast_to=Completion)
        assert told.choices[0].text == "an answer"
        async with at.http.post("/api/v1/chat/completions", json=CHAT, headers=HEADER) as answer:
            where = answer.headers["location"]
        assert where.startswith("/api/v1/tasks/")
        async with at.http.get(f"{where}?wait=60") as answer:
            assert answer.status == 200
        large = CHAT | {"messages": [{"role": "user", "content": "x" * 1_000_000}]}
        task, _ = await asked(at, large)
        async with at.http.get(f"{task['answer']}?wait=60") as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "an answer"


async def test_a_failure_is_told_and_no_client_asks_again(tmp_path: Path) -> None:
    requests: list[str] = []

    async def seen(request: Any) -> None:
        requests.append(request.method)

    async with house(tmp_path) as at, openai.DefaultAsyncHttpxClient(event_hooks={"request": [seen]}) as http:
        at.answering.may.set()
        task, _ = await asked(at, CHAT | {"user": "fail"})
        client = openai.AsyncOpenAI(
            base_url=f"{at.served.url}/v1", api_key="none", max_retries=5, timeout=TIMEOUT, http_client=http
        )
        with pytest.raises(openai.InternalServerError, match="broken") as failure:
            await client.get(f"/tasks/{task['id']}/answer?wait=60", cast_to=ChatCompletion)
        headers = failure.value.response.headers
        assert (failure.value.status_code, headers["x-should-retry"], len(requests)) == (503, "false", 1)
        assert (headers["x-anywire-task"], headers["x-anywire-agent"]) == (task["id"], "agent-1")
        assert "retry-after" not in headers


async def test_what_cannot_be_a_background_task_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        told, headers = await asked(at, CHAT | {"stream": True}, status=400)
        assert (told["error"]["param"], headers["x-should-retry"]) == ("stream", "false")
        told, _ = await asked(at, CHAT, {"x-anywire-background": "perhaps"}, status=400)
        assert told["error"]["param"] == "x-anywire-background"
        for wait in ("61", "-1", "nan", "x"):
            async with at.http.get(f"/v1/tasks/x/answer?wait={wait}") as answer:
                assert (answer.status, (await answer.json())["error"]["param"]) == (400, "wait")
        for method in ("GET", "DELETE"):
            async with at.http.request(method, "/v1/tasks/unknown/answer") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (404, "task_not_found")
    async with serving(at.answering.engine) as served, aiohttp.ClientSession(served.url) as http:
        async with http.post("/v1/chat/completions", json=CHAT, headers=HEADER) as answer:
            assert answer.status == 400
            assert "services: [background]" in (await answer.json())["error"]["message"]
        async with http.get("/v1/tasks/unknown/answer") as answer:
            assert answer.status == 404


async def test_a_request_that_is_sent_again_is_the_same_task(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        first, headers = await asked(at, CHAT, KEY)
        assert "x-anywire-replayed" not in headers
        again, headers = await asked(at, CHAT, KEY)
        assert (again, headers["x-anywire-replayed"]) == (first, "true")
        told, _ = await asked(at, CHAT | {"user": "other"}, KEY, status=422)
        assert told["error"]["code"] == "idempotency_key_reused"
        assert len(at.served.context.tasks()) == 1


async def test_a_task_is_its_tenants_alone_and_ends_with_its_key(tmp_path: Path) -> None:
    keys = KnownKeys(alice="use", bob="use", root="operate")
    async with house(tmp_path, keys) as at:
        task, _ = await asked(at, CHAT, bearer("alice"))
        for method, path in (("GET", task["answer"]), ("DELETE", task["answer"]), ("GET", f"/v1/tasks/{task['id']}")):
            async with at.http.request(method, path, headers=bearer("bob")) as answer:
                assert answer.status == 404
        async with at.http.get(task["answer"], headers=bearer("alice")) as answer:
            assert answer.status == 202
        await at.answering.engine.began.wait()
        waits = asyncio.ensure_future(at.http.get(f"{task['answer']}?wait=60", headers=bearer("alice")))
        async with at.http.get(task["answer"], headers=bearer("root")) as answer:
            assert answer.status == 202
        keys.revoke("alice")
        assert (await waits).status == 401, "it waited when its key went"
        async with at.http.get(f"{task['answer']}?wait=60", headers=bearer("root")) as answer:
            assert answer.status == 403, "it is not the key of who asks"
            assert "counts no more" in (await answer.json())["error"]["message"]
        async with at.http.delete(task["answer"], headers=bearer("root")) as answer:
            assert await answer.json() == {"id": task["id"], "object": "task", "deleted": True}
        async with at.http.get(task["answer"], headers=bearer("root")) as answer:
            assert answer.status == 404


async def test_without_the_header_no_service_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    get = OneService.get

    def told(self: OneService, name: str) -> Any:
        looked_up.append(name)
        return get(self, name)

    monkeypatch.setattr(OneService, "get", told)
    async with house(tmp_path) as at:
        looked_up.clear()  # by the gateway's start
        at.answering.may.set()
        await at.client.chat.completions.create(**CHAT)
        await at.client.chat.completions.create(**CHAT, extra_headers={"x-anywire-background": "false"})
        assert looked_up == []
        await asked(at)
        assert looked_up == [SERVICE]
