"""Limits and tenants through HTTP: two hundred clients at once, and what one tenant is told of another."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, serving

from anywire.caller import Limits, Role
from anywire.engine import Delta
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from anywire.offers import offers

USAGE = '{"prompt_tokens": 3, "completion_tokens": 2}'
CHAT = {"model": "m", "messages": MESSAGES}
UNKNOWN_ID = "0" * 24


class Keys:
    """Keys in a file, each with what it sends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"
        self.ids: dict[str, str] = {}
        self._texts: dict[str, str] = {}

    def add(self, name: str, role: Role = "use", **limits: Any) -> None:
        key = new_key()
        add_key(self.path, record_of(key, label=name, tenant=f"{name}-tenant", role=role, limits=Limits(**limits)))
        self.ids[name], self._texts[name] = key.id, str(key)

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._texts[name]}"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def client(served: Served) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(limit=0))


async def test_two_hundred_clients_at_once_are_counted_exactly(keys: Keys) -> None:
    keys.add("rate", requests_per_minute=37)
    keys.add("at once", concurrency=23)
    keys.add("tokens", tokens_per_day=1_000_000)
    keys.add("free")
    refused = 13 + 27
    all_refused = asyncio.Event()
    statuses: Counter[tuple[str, int]] = Counter()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await all_refused.wait()
        yield Delta("x")
        yield Delta("", finish_reason="stop", usage=USAGE)

    async with (
        serving(ScriptedEngine(script), slots=200, access=KeyAccess(keys.path)) as served,
        client(served) as http,
    ):

        async def ask(name: str) -> None:
            async with http.post("/v1/chat/completions", json=CHAT, headers=keys.headers(name)) as answer:
                told = await answer.json()
            statuses[name, answer.status] += 1
            if answer.status == 429:
                assert told["error"]["code"] == "limit_reached"
                assert int(answer.headers["Retry-After"]) >= 1
                if sum(count for (_, status), count in statuses.items() if status == 429) == refused:
                    all_refused.set()

        await asyncio.gather(*(ask(name) for _ in range(50) for name in keys.ids))
        assert statuses == {
            ("rate", 200): 37,
            ("rate", 429): 13,
            ("at once", 200): 23,
            ("at once", 429): 27,
            ("tokens", 200): 50,
            ("free", 200): 50,
        }
        assert served.orchestrator.limits.take_unsaved()[1] == {keys.ids["tokens"]: 250}
        assert served.orchestrator.stats()["events"]["limits_reached"] == refused


async def test_nothing_that_is_answered_names_another_tenant(keys: Keys) -> None:
    keys.add("acme", tokens_per_day=1000, concurrency=50)
    keys.add("other", models=("m",), concurrency=1, max_priority=5)
    keys.add("observer", "observe")
    running = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("acme answer")
        if "hold" in task.body:
            running.set()
            await asyncio.Event().wait()

    engine = ScriptedEngine(script, offers("m", "acme-model"))
    async with (
        serving(engine, access=KeyAccess(keys.path), scheduler={"max_queue_size": 1}) as served,
        client(served) as http,
    ):

        async def get(name: str, path: str, **more: Any) -> str:
            async with http.get(path, headers=keys.headers(name), **more) as answer:
                return f"{answer.status} {sorted(answer.headers.items())} {await answer.text()}"

        events = await http.get("/v1/events", headers=keys.headers("other"))
        trace = "ac" * 16
        beside = {"x-anywire-session": "acme-session", "traceparent": f"00-{trace}-{'1' * 16}-01"}
        body = {"model": "acme-model", "messages": [{"role": "user", "content": "acme prompt hold"}], "stream": True}
        held = await http.post("/v1/chat/completions", json=body, headers=keys.headers("acme") | beside)
        await running.wait()
        async with http.post("/v1/chat/completions", json=CHAT, headers=keys.headers("acme") | beside) as answer:
            assert answer.status == 200
            ended = answer.headers["x-anywire-task"]
        (view,) = served.orchestrator.tasks()
        planted = ["acme", keys.ids["acme"], trace, view.task_id, ended]

        told: list[str] = []
        assert served.gateway._routes is not None
        for endpoint in served.gateway._routes.endpoints:
            path = endpoint.path
            if endpoint.method != "GET" or path.endswith("/events") or not path.startswith("/"):
                continue
            if "{" not in path:
                told.append(await get("other", path))
                continue
            for task_id in (view.task_id, ended):
                of_another = await get("other", path.replace("{id}", task_id))
                of_nobody = await get("other", path.replace("{id}", UNKNOWN_ID))
                assert _alike(of_another, task_id) == _alike(of_nobody, UNKNOWN_ID)
        for name, more, status in (
            ("other", {"model": "m2"}, 403),
            ("other", {}, 200),
            ("other", {"model": None}, 200),
        ):
            headers = keys.headers(name)
            async with http.post("/v1/chat/completions", json=CHAT | more, headers=headers) as answer:
                told.append(f"{sorted(answer.headers.items())} {await answer.text()}".replace("acme answer", ""))
                assert answer.status == status, told[-1]
                mine = answer.headers.get("x-anywire-task", "")
        async with http.delete(f"/v1/tasks/{view.task_id}", headers=keys.headers("other")) as answer:
            assert answer.status == 404
        assert [each.task_id for each in served.orchestrator.tasks()] == [view.task_id]
        seen = b""
        while not any(b"task.ended" in block and mine.encode() in block for block in seen.split(b"\n\n")):
            seen += await events.content.readany()
        told.append(seen.decode())
        events.close()

        text = "\n".join(told)
        for each in planted:
            found = text.find(each)
            assert found < 0, text[max(0, found - 300) : found + 100]
        assert '"id":"m"' in text
        # Who observes is told of tasks, and of nobody in the labels of metrics.
        observed = await get("observer", "/v1/tasks")
        assert all(each in observed for each in ("acme-tenant", keys.ids["acme"], "acme-session", view.task_id))
        metrics = await get("observer", "/metrics")
        assert "acme-model" not in json.dumps([await get("other", "/v1/models")])
        for each in ("acme-tenant", "acme-session", "acme prompt", *planted[1:]):
            assert each not in metrics
        held.close()


def _alike(answer: str, task_id: str) -> str:
    """Without the id that was asked for, and what differs between any two answers."""
    status, _, body = answer.partition(" ")
    return f"{status} {body.partition('] ')[2].replace(task_id, 'ID')}"
