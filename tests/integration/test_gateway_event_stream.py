"""``GET /v1/events`` and ``/v1/tasks``: what happens is told, resumed and filtered; a slow client slows nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, Raw, ScriptedEngine, Served, hangs, says, serving

from anywire.engine import Delta
from anywire.events import EVENTS
from anywire.messages import TaskRequest
from anywire_gateway_openai import event_streams
from anywire_gateway_openai.caller import is_local_origin, is_local_peer

ASK = {"model": "m", "messages": MESSAGES}
PROXIED = {"X-Forwarded-For": "192.0.2.1"}


class Stream:
    """The events of a response, as an EventSource would read them."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.response = response.status_code, response
        self._lines = response.aiter_lines()

    async def event(self) -> tuple[str, str, Any] | None:
        """Type, id and data; a comment is an event of type ``:``, the end is None."""
        kind = number = data = ""
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if line == ":":
                kind = ":"
            elif name == "event":
                kind = value
            elif name == "id":
                number = value
            elif name == "data":
                data = value
            elif not line:
                return kind, number, json.loads(data) if data else None
        return None

    async def until(self, kind: str) -> list[tuple[str, str, Any]]:
        found = []
        while (event := await self.event()) is not None:
            if event[0] != ":":
                found.append(event)
            if event[0] == kind:
                break
        return found


@asynccontextmanager
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=TIMEOUT, trust_env=False) as client:
        yield client


@asynccontextmanager
async def events(client: httpx.AsyncClient, path: str = "/v1/events", **options: Any) -> AsyncIterator[Stream]:
    async with client.stream("GET", path, **options) as response:
        stream = Stream(response)
        if response.status_code == 200:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert await stream.event() == (":", "", None), "the stream has begun"
        yield stream


async def ask(client: httpx.AsyncClient, **headers: str) -> str:
    answer = await client.post("/v1/chat/completions", json=ASK, headers=headers)
    assert answer.status_code == 200
    return answer.headers["x-anywire-task"]


# Events


async def test_a_task_s_events_come_with_id_type_and_data() -> None:
    async with serving(says("a", "b")) as served, http(served) as client, events(client) as stream:
        task_id = await ask(client, traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
        found = await stream.until("task.ended")
        kinds = [kind for kind, _, _ in found]
        assert kinds[0] == "task.admitted"
        assert set(kinds) <= set(EVENTS)
        for kind, number, data in found:
            assert (data["type"], data["id"]) == (kind, number)
        assert {data["task_id"] for _, _, data in found} == {task_id}
        assert found[0][2]["trace"].startswith("00-1")
        assert "hello" not in json.dumps(found), "texts of tasks are in no event"


@pytest.mark.parametrize("by", ["query", "header"])
async def test_a_client_that_comes_back_goes_on_where_it_was(by: str) -> None:
    async with serving(says("a")) as served, http(served) as client:
        async with events(client) as stream:
            await ask(client)
            before = await stream.until("task.ended")
        await ask(client)
        after = before[2][1]
        options: dict[str, Any] = {"params": {"after": after}}
        if by == "header":
            options = {"params": {"after": "older-1"}, "headers": {"Last-Event-ID": after}}
        async with events(client, **options) as stream:
            again = await stream.until("task.ended")
            assert again == before[3:]
            assert (await stream.until("task.ended"))[0][0] == "task.admitted", "nothing in between was lost"
        async with events(client, params={"after": "otherlife-7"}) as stream:
            reset, *rest = await stream.until("task.ended")
            assert reset == ("reset", "", {})
            assert rest == before


async def test_types_are_chosen_by_name_and_by_beginning() -> None:
    async with serving(says("a")) as served, http(served) as client:
        async with events(client, params={"types": "task.ended,attempt.*"}) as stream:
            await ask(client)
            kinds = [kind for kind, _, _ in await stream.until("task.ended")]
            assert {kind.partition(".")[0] for kind in kinds[:-1]} == {"attempt"}
        for bad in ({"types": "task.finished"}, {"types": "x" * 2000}, {"after": "x" * 100}):
            answer = await client.get("/v1/events", params=bad)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == next(iter(bad))


async def test_events_are_gathered_where_that_is_asked_for(monkeypatch: Any) -> None:
    written: list[int] = []
    encoded = event_streams.encoded

    def counted(events: Any) -> bytes:
        written.append(len(events))
        return encoded(events)

    monkeypatch.setattr(event_streams, "encoded", counted)
    async with serving(says("x")) as served, http(served) as client:
        async with events(client, "/v1/events?types=task.ended&gather=1000") as stream:
            for _ in range(3):
                await ask(client)
            for _ in range(3):
                assert (await stream.until("task.ended"))[-1][0] == "task.ended"
        assert sum(written) == 3
        assert len(written) <= 2
        for gather in ("1001", "-1", "x", "1.5", "\u0661"):
            assert (await client.get("/v1/events", params={"gather": gather})).status_code == 400


async def test_a_list_of_tasks_is_as_long_as_asked_for() -> None:
    async with serving(hangs("x")) as served, http(served) as client:
        body = ASK | {"stream": True}
        async with (
            client.stream("POST", "/v1/chat/completions", json=body) as one,
            client.stream("POST", "/v1/chat/completions", json=body) as other,
        ):
            tasks = [each.headers["x-anywire-task"] for each in (one, other)]
            for limit, listed in (("1", 1), ("2", 2), ("", 2), ("0", 2), ("100000", 2)):
                told = (await client.get("/v1/tasks", params={"limit": limit})).json()
                assert ([each["id"] for each in told["data"]], told["more"]) == (tasks[:listed], 2 - listed)
            assert (await client.get("/v1/tasks", params={"limit": "x"})).status_code == 400


async def test_silence_is_filled_with_comments() -> None:
    async with serving(says("a"), heartbeat=0.05) as served, http(served) as client, events(client) as stream:
        assert await stream.event() == (":", "", None)
        assert await stream.event() == (":", "", None)
        await ask(client)
        assert (await stream.until("task.ended"))[-1][0] == "task.ended"


async def test_a_slow_client_misses_events_and_slows_nobody(monkeypatch: Any) -> None:
    monkeypatch.setattr(event_streams, "WAITING", 8)
    async with serving(says("a")) as served, http(served) as client:
        slow = Raw(*await asyncio.open_connection("127.0.0.1", served.port, limit=1024))
        slow.writer.write(b"GET /v1/events?types=plugin.event HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await slow.reader.readuntil(b":\n\n")
        bus = served.orchestrator.events
        padding = "x" * 60_000
        for number in range(400):  # far more than the sockets between take
            bus.publish_plugin("test", "big", [number, padding])
            await asyncio.sleep(0)
        assert await ask(client)
        data = b""
        while b"event: missed" not in data:
            data = data[-100:] + await slow.reader.read(100_000)
            bus.publish_plugin("test", "small", [])
        await slow.close()


async def test_streams_end_when_the_server_shuts_down_and_tell_how_it_ended() -> None:
    engine = hangs("text")
    async with serving(engine, shutdown_grace=30) as served, http(served) as client, events(client) as stream:
        hanging = asyncio.ensure_future(client.post("/v1/chat/completions", json=ASK))
        await engine.began.wait()
        closing = asyncio.ensure_future(served.gateway.close())
        served.orchestrator.close_gate()
        assert (await stream.until("orchestrator.changed"))[-1][2]["state"] == "closing"
        (task,) = served.orchestrator.tasks()
        served.orchestrator.cancel(task.task_id)
        assert (await hanging).status_code == 499
        rest = await stream.until("never")
        assert "task.ended" in [kind for kind, _, _ in rest], "the end of what ran is told"
        await asyncio.wait_for(closing, TIMEOUT)


async def test_a_head_request_gets_no_events_and_keeps_its_connection() -> None:
    engine = hangs("text")
    async with serving(engine) as served, http(served) as client:
        running = await served.raw(ASK | {"stream": True})
        await running.reader.readuntil(b"text")
        (task,) = served.orchestrator.tasks()
        for path in ("/v1/events", f"/v1/tasks/{task.task_id}/follow"):
            answer = await client.head(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (await client.get("/v1/tasks")).status_code == 200, "nothing of the streams is in its way"
        await running.close()


async def test_there_is_a_bound_of_streams(monkeypatch: Any) -> None:
    monkeypatch.setattr(event_streams, "MAX_STREAMS", 1)
    async with serving(says("a")) as served, http(served) as client:
        async with events(client), events(client) as second:
            assert second.status == 429
        async with events(client) as third:
            assert third.status == 200


# Tasks


async def test_a_connection_can_be_used_again_after_a_task_was_followed_to_its_end() -> None:
    go = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("one ")
        await go.wait()
        yield Delta("two")

    async with serving(ScriptedEngine(script)) as served:
        running = await served.raw(ASK | {"stream": True})
        await running.reader.readuntil(b"one ")
        (task,) = served.orchestrator.tasks()
        follower = Raw(*await asyncio.open_connection("127.0.0.1", served.port))
        follower.writer.write(f"GET /v1/tasks/{task.task_id}/follow HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await follower.reader.readuntil(b":\n\n\r\n")
        go.set()
        await follower.reader.readuntil(b"\r\n0\r\n\r\n")
        follower.writer.write(b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await follower.reader.readexactly(12) == b"HTTP/1.1 200"
        await follower.close()
        await running.close()


async def test_tasks_are_listed_looked_at_and_followed() -> None:
    engine = hangs("one ", "two")
    async with serving(engine, slots=1) as served, http(served) as client:
        running = await served.raw(ASK | {"stream": True})
        await running.reader.readuntil(b"two")
        queued = await served.raw(ASK)
        await served.observer.submitted(2)
        first, second = (await client.get("/v1/tasks")).json()["data"]
        assert (first["place"], first["agent_id"]) == ("running", "agent-1")
        assert first["chunks"] >= 1
        assert (second["place"], second["agent_id"]) == ("queued", "")
        assert first["age_ms"] >= second["age_ms"] > 0
        one = (await client.get(f"/v1/tasks/chatcmpl-{first['id']}")).json()
        assert {name: one[name] for name in first} | {"age_ms": 0} == {**first, "age_ms": 0}
        assert one.keys() - first.keys() == {"decisions", "error", "message", "stages_ms"}
        assert (await client.get("/v1/tasks/unknown")).status_code == 404
        assert (await client.get("/v1/tasks/unknown/follow")).status_code == 404
        assert (await client.post("/v1/tasks/unknown")).headers["allow"] == "GET, DELETE"
        async with events(client, f"/v1/tasks/{first['id']}/follow") as stream:
            assert (await client.delete(f"/v1/tasks/{first['id']}")).json()["cancelled"]
            ((kind, _, data),) = await stream.until("error")
            assert (kind, data["error"]["code"]) == ("error", "cancelled")
            assert await stream.event() is None
        await running.close()
        await queued.close()


async def test_a_follower_gets_the_text_from_then_on() -> None:
    go = asyncio.Event()

    async def script(task: Any) -> Any:
        from anywire.engine import Delta

        yield Delta("before")
        await go.wait()
        yield Delta("after", finish_reason="stop", usage='{"completion_tokens":2}')

    engine = hangs()
    engine.script = script
    async with serving(engine) as served, http(served) as client:
        asking = await served.raw(ASK | {"stream": True})
        await asking.reader.readuntil(b"before")
        (task,) = (await client.get("/v1/tasks")).json()["data"]
        async with events(client, f"/v1/tasks/{task['id']}/follow") as stream:
            go.set()
            chunks = [data for _, _, data in await stream.until("never")]
        assert "".join(each["text"] for each in chunks) == "after"
        assert chunks[-1]["final"]
        assert chunks[-1]["usage"] == {"completion_tokens": 2}
        await asking.close()


# Callers


async def test_others_see_their_own_tasks_only() -> None:
    """Behind a proxy nobody is known to be of this machine."""
    engine = hangs("text")
    async with serving(engine) as served, http(served) as client:
        mine = PROXIED | {"x-anywire-tenant": "mine"}
        async with events(client, headers=mine) as own, events(client, headers=PROXIED) as nobodys:
            asking = [
                asyncio.ensure_future(client.post("/v1/chat/completions", json=ASK, headers={"x-anywire-tenant": name}))
                for name in ("other", "mine")
            ]
            await served.observer.submitted(2)
            (listed,) = (await client.get("/v1/tasks", headers=mine)).json()["data"]
            assert listed["tenant"] == "mine"
            everything = (await client.get("/v1/tasks")).json()["data"]
            assert {each["tenant"] for each in everything} == {"mine", "other"}
            (foreign,) = [each["id"] for each in everything if each["tenant"] == "other"]
            assert (await client.get("/v1/tasks", headers=PROXIED)).json()["data"] == []
            for answer in (
                await client.get(f"/v1/tasks/{foreign}", headers=mine),
                await client.get(f"/v1/tasks/{foreign}/follow", headers=mine),
                await client.delete(f"/v1/tasks/{foreign}", headers=mine),
            ):
                assert answer.status_code == 404
            assert (await client.delete(f"/v1/tasks/{foreign}")).status_code == 200
            assert (await client.delete(f"/v1/tasks/{listed['id']}", headers=mine)).status_code == 200
            await asyncio.gather(*asking)
            told = await own.until("task.ended")
            assert {data["tenant"] for kind, _, data in told if kind.startswith(("task.", "attempt."))} == {"mine"}
            await served.gateway.close()
            assert not [kind for kind, _, _ in await nobodys.until("never") if kind.startswith(("task.", "attempt."))]


async def test_a_tenant_that_is_none_is_refused() -> None:
    async with serving(says("a")) as served, http(served) as client:
        for tenant in ("", "x" * 129):
            answer = await client.post("/v1/chat/completions", json=ASK, headers={"x-anywire-tenant": tenant})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "x-anywire-tenant"


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:192.0.2.1", 1, 0, 0), False),
        (("192.0.2.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (("nonsense", 1), False),
        ("", True),
        (b"\0abstract", True),
        (None, False),
        ((), False),
    ],
)
def test_who_is_of_this_machine(peer: object, local: bool) -> None:
    assert is_local_peer(peer) is local


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("http://localhost:3000", True),
        ("http://[::1]:80", True),
        ("http://app.localhost", True),
        ("https://example.org", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_which_pages_are_of_this_machine(origin: str, local: bool) -> None:
    assert is_local_origin(origin) is local


@pytest.mark.parametrize(("host", "listed"), [("127.0.0.1:1", 1), ("[::1]", 1), ("a.localhost", 1), ("a.example", 0)])
async def test_a_page_whose_own_name_leads_here_is_no_operator(host: str, listed: int) -> None:
    engine = hangs("text")
    async with serving(engine) as served, http(served) as client:
        running = await served.raw(ASK | {"stream": True})
        await running.reader.readuntil(b"text")
        assert len((await client.get("/v1/tasks", headers={"Host": host})).json()["data"]) == listed
        await running.close()
