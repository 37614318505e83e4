"""Gateways in several processes before one orchestrator: what a client sees is what it would see without them."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, hangs, says
from tests.integration.gateways_before_one import gateways_before
from tests.integration.test_gateway_limits import Keys
from tests.patience import PATIENCE

from anywire.engine import Delta
from anywire.keys.key_records import revoke_keys
from anywire.messages import TaskRequest

CHAT = {"model": "m", "messages": MESSAGES}
STREAM = CHAT | {"stream": True}
ASKED = "/v1/chat/completions"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


async def text_of(answer: aiohttp.ClientResponse) -> str:
    text = ""
    async for line in answer.content:
        if line.startswith(b"data: {"):
            text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return text


async def test_tasks_are_answered_and_keep_their_id_at_the_orchestrator(tmp_path: Path) -> None:
    async with gateways_before(says("a", "b"), tmp_path) as before:
        for number in range(4):
            async with before.http(number) as http:
                async with http.post(ASKED, json=CHAT) as answer:
                    assert answer.status == 200
                    assert (await answer.json())["choices"][0]["message"]["content"] == "ab"
                    ended = await before.served.observer.ended.get()
                    assert ended.task_id == answer.headers["x-anywire-task"]
                async with http.post(ASKED, json=STREAM) as answer:
                    assert await text_of(answer) == "ab"
                async with http.get(f"/v1/tasks/{answer.headers['x-anywire-task']}") as found:
                    assert (await found.json())["place"] == "ended"
                await before.served.observer.ended.get()
        assert before.served.orchestrator.stats()["tasks"]["ended"] == {"answered": 8}


async def test_what_is_no_task_is_what_the_orchestrator_says(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http, before.at_orchestrator() as own:
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/v1/models/m"),
            ("GET", "/v1/models/none"),
            ("GET", "/healthz"),
            ("GET", "/v1/nothing/here"),
            ("GET", "/v1//models/"),
            ("GET", "/v1/tasks?a=%20b&c"),
            ("PUT", "/v1/models"),
            ("HEAD", "/v1/models"),
            ("OPTIONS", "/v1/models"),
            ("DELETE", "/v1/tasks/unknown"),
            ("POST", "/v1/rerank"),
        ):
            seen = []
            for client in (http, own):
                async with client.request(method, path) as answer:
                    kept = {
                        name: value
                        for name, value in answer.headers.items()
                        if name.lower() not in ("date", "connection", "x-request-id")
                    }
                    seen.append((answer.status, kept, await answer.read()))
            assert seen[0] == seen[1], (method, path)
        async with http.get("/v1/agents") as answer:
            assert [each["id"] for each in (await answer.json())["data"]] == ["agent-1"]


async def test_a_request_keeps_its_id_and_its_page(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http:
        headers = {"x-request-id": "mine", "Origin": "http://localhost:3000"}
        async with http.get("/v1/models", headers=headers) as answer:
            assert answer.headers.getall("x-request-id") == ["mine"]
            assert answer.headers.getall("Access-Control-Allow-Origin") == ["http://localhost:3000"]
        async with http.get("/v1/models", headers={"Origin": "https://elsewhere.example"}) as answer:
            assert answer.status == 403


async def test_events_pass_as_they_come_until_their_reader_goes(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http:
        async with http.get("/v1/events", params={"types": "task.ended"}) as events:
            assert events.status == 200
            async with before.http(1) as other, other.post(ASKED, json=CHAT) as answer:
                task_id = answer.headers["x-anywire-task"]
            async with asyncio.timeout(PATIENCE):
                while task_id not in (await events.content.readline()).decode():
                    pass
        own = before.served.gateway
        assert own._routes is not None
        async with asyncio.timeout(PATIENCE):
            while own._routes._active:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.mark.parametrize("limit", [{"requests_per_minute": 3}, {"concurrency": 3}])
async def test_limits_of_a_key_hold_across_gateways(keys: Keys, tmp_path: Path, limit: dict[str, Any]) -> None:
    keys.add("k", **limit)
    release = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await release.wait()
        yield Delta("x")

    statuses: Counter[int] = Counter()
    refused = asyncio.Event()
    async with gateways_before(ScriptedEngine(script), tmp_path, keys=keys.path) as before:

        async def ask(number: int) -> None:
            async with before.http(number) as http, http.post(ASKED, json=CHAT, headers=keys.headers("k")) as answer:
                statuses[answer.status] += 1
                if answer.status == 429:
                    assert (await answer.json())["error"]["code"] == "limit_reached"
                    assert int(answer.headers["Retry-After"]) >= 1
                    if statuses[429] == 5:
                        refused.set()

        async with asyncio.TaskGroup() as asking:
            for number in range(8):
                asking.create_task(ask(number))
            await asyncio.wait_for(refused.wait(), PATIENCE)
            release.set()
        assert statuses == {200: 3, 429: 5}


async def test_what_a_key_is_not_for_is_refused_at_the_gateway(keys: Keys, tmp_path: Path) -> None:
    keys.add("k", models=("other",), max_priority=0)
    engine = says("a")
    async with gateways_before(engine, tmp_path, keys=keys.path) as before, before.http() as http:
        async with http.post(ASKED, json=CHAT, headers=keys.headers("k")) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "forbidden")
        async with http.post(ASKED, json=CHAT) as answer:
            assert answer.status == 401
        async with http.get("/v1/models") as answer:
            assert answer.status == 401, "the orchestrator asks for what is passed on"
        async with http.get("/v1/models", headers=keys.headers("k")) as answer:
            assert (await answer.json())["data"] == []
    assert not engine.tasks


async def test_tokens_of_a_day_are_counted_where_all_tasks_meet(keys: Keys, tmp_path: Path) -> None:
    keys.add("k", tokens_per_day=30)
    usage = '{"prompt_tokens": 10, "completion_tokens": 20}'
    engine = says(Delta("a"), Delta("", finish_reason="stop", usage=usage))
    async with gateways_before(engine, tmp_path, keys=keys.path) as before:
        seen = []
        for number in range(3):
            async with before.http(number) as http, http.post(ASKED, json=CHAT, headers=keys.headers("k")) as answer:
                seen.append(answer.status)
        assert seen == [200, 429, 429]


async def test_a_key_that_is_revoked_ends_what_runs(keys: Keys, tmp_path: Path) -> None:
    keys.add("k")
    engine = hangs("a")
    async with gateways_before(engine, tmp_path, keys=keys.path) as before, before.http() as http:
        async with http.post(ASKED, json=STREAM, headers=keys.headers("k")) as answer:
            await answer.content.readline()
            revoke_keys(keys.path, [keys.ids["k"]])
            async with asyncio.timeout(PATIENCE):
                assert b"invalid_api_key" in await answer.read()
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)


async def test_a_task_is_cancelled_through_any_gateway(tmp_path: Path) -> None:
    engine = hangs("a")
    async with gateways_before(engine, tmp_path) as before, before.http() as http, before.http(1) as other:
        async with http.post(ASKED, json=STREAM) as answer:
            await answer.content.readline()
            async with other.delete(f"/v1/tasks/{answer.headers['x-anywire-task']}") as cancelled:
                assert cancelled.status == 200
            async with asyncio.timeout(PATIENCE):
                assert b"cancelled" in await answer.read()
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)


async def test_a_client_that_goes_away_frees_its_slot(tmp_path: Path) -> None:
    engine = hangs("a")
    async with gateways_before(engine, tmp_path) as before, before.http() as http:
        answer = await http.post(ASKED, json=STREAM)
        await answer.content.readline()
        answer.close()
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)


async def test_a_reader_that_pauses_pauses_the_engine(tmp_path: Path) -> None:
    sent = 0

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        nonlocal sent
        while True:
            sent += 1
            yield Delta("x" * 4096)
            await asyncio.sleep(0)

    async with (
        gateways_before(ScriptedEngine(script), tmp_path) as before,
        before.http() as http,
        http.post(ASKED, json=STREAM) as answer,
    ):
        await answer.content.readline()
        seen = -1
        async with asyncio.timeout(PATIENCE):
            while seen != sent:  # until it stands still
                seen = sent
                await asyncio.sleep(0.3)
        assert sent < 6000, "window, buffers and the kernel's hold some megabytes"


async def test_a_request_that_is_sent_again_to_another_gateway_runs_once(tmp_path: Path) -> None:
    engine = says("a")
    async with gateways_before(engine, tmp_path) as before:
        for number in range(2):
            async with (
                before.http(number) as http,
                http.post(ASKED, json=CHAT, headers={"Idempotency-Key": "once"}) as answer,
            ):
                assert answer.status == 200
                assert answer.headers.get("x-anywire-replayed") == (None, "true")[number]
    assert len(engine.tasks) == 1


async def test_a_large_request_and_a_large_answer_pass(tmp_path: Path) -> None:
    large = "y" * 3_000_000
    engine = says(large)
    asked = json.dumps({"model": "m", "messages": [{"role": "user", "content": large}]}).encode()
    json_type = {"Content-Type": "application/json"}
    async with gateways_before(engine, tmp_path) as before, before.http() as http:
        for headers in ({}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "l", "Expect": "100-continue"}):
            async with http.post(ASKED, data=io.BytesIO(asked), headers=headers | json_type) as answer:
                assert (await answer.json())["choices"][0]["message"]["content"] == large
        async with http.post(ASKED, data=io.BytesIO(b"[" * 40_000_000), headers=json_type) as answer:
            assert answer.status == 413


async def test_chat_over_websocket(tmp_path: Path) -> None:
    async with (
        gateways_before(says("a", "b"), tmp_path) as before,
        before.http() as http,
        http.ws_connect("/v1/ws/chat") as socket,
    ):
        await socket.send_json(CHAT)
        text = ""
        async with asyncio.timeout(PATIENCE):
            async for frame in socket:
                if frame.data == "[DONE]":
                    break
                text += json.loads(frame.data)["choices"][0]["delta"].get("content", "")
        assert text == "ab"


@pytest.mark.parametrize(
    ("headers", "drained", "listed"),
    [
        ({}, 200, 200),
        ({"X-Forwarded-For": "127.0.0.1"}, 403, 200),
        ({"Forwarded": "for=127.0.0.1"}, 403, 200),
        ({"Via": "1.1 somebody"}, 403, 200),
        ({"X-Real-IP": "127.0.0.1"}, 403, 200),
        ({"Host": "evil.example"}, 403, 403),
        ({"Origin": "http://localhost:1"}, 200, 200),
    ],
)
async def test_nobody_becomes_an_operator_by_what_he_says_of_himself(
    tmp_path: Path, headers: dict[str, str], drained: int, listed: int
) -> None:
    """As without gateway processes: see the tests of proxies and pages."""
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http:
        async with http.post("/v1/agents/agent-1/drain", headers=headers) as answer:
            assert answer.status == drained
        async with http.get("/v1/agents", headers=headers) as answer:
            assert answer.status == listed


async def test_a_trusted_proxy_speaks_for_its_clients(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path, trusted_proxies=["127.0.0.1"]) as before, before.http() as http:
        for name in ("X-Forwarded-For", "Forwarded"):
            for address, drained in (("10.0.0.1", 403), ("127.0.0.1", 200), ("10.0.0.1, 127.0.0.1", 403)):
                said = address if name != "Forwarded" else ", ".join(f"for={each}" for each in address.split(", "))
                async with http.post("/v1/agents/agent-1/drain", headers={name: said}) as answer:
                    assert answer.status == drained, (name, address)


async def test_an_orchestrator_that_is_gone_is_said(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http:
        before.own.unlink()
        async with http.get("/v1/models") as answer:
            assert answer.status in (200, 503)  # a connection may be kept from before
        async with http.get("/v1/models") as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "orchestrator_gone"


async def test_errors_of_the_engine_and_unknown_models_are_told_as_without_gateways(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http, before.at_orchestrator() as own:
        for asked in (
            CHAT | {"model": "none"},
            CHAT | {"messages": 1},
            CHAT | {"max_tokens": -1},
            {"model": "m"},
        ):
            seen: list[Any] = []
            for client in (http, own):
                async with client.post(ASKED, json=asked) as answer:
                    told = (await answer.json()).get("error", {})
                    seen.append((answer.status, told.get("code"), told.get("param"), told.get("message")))
            assert seen[0] == seen[1]


async def test_a_flood_of_clients_that_break_off_leaves_nothing(tmp_path: Path) -> None:
    engine = hangs("a")
    async with gateways_before(engine, tmp_path) as before:

        async def ask(number: int) -> None:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with (
                    asyncio.timeout(0.01 * (number % 7)),
                    before.http(number) as http,
                    http.post(ASKED, json=STREAM) as answer,
                ):
                    await answer.read()

        await asyncio.gather(*(ask(number) for number in range(60)))
        async with asyncio.timeout(PATIENCE):
            while before.served.orchestrator.tasks():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("named", ["X-Forwarded-For", "x-forwarded-for, close", "Forwarded"])
async def test_a_client_of_a_trusted_proxy_takes_none_of_its_words_away(tmp_path: Path, named: str) -> None:
    """A proxy may pass on what its client says of the connection."""
    said = {"Forwarded": "for=10.0.0.1"} if named == "Forwarded" else {"X-Forwarded-For": "10.0.0.1"}
    async with (
        gateways_before(says("a"), tmp_path, trusted_proxies=["127.0.0.1"]) as before,
        before.http() as http,
        http.post("/v1/agents/agent-1/drain", headers={**said, "Connection": named}) as answer,
    ):
        assert answer.status == 403


@pytest.mark.parametrize("said", [{"Via": "1.1 proxy"}, {"X-Real-IP": "10.0.0.1"}, {"X-Forwarded-For": ""}])
async def test_whom_a_trusted_proxy_does_not_name_is_not_of_this_machine(tmp_path: Path, said: dict[str, str]) -> None:
    async with gateways_before(says("a"), tmp_path, trusted_proxies=["127.0.0.1"]) as before, before.http() as http:
        async with http.post("/v1/agents/agent-1/drain", headers=said) as answer:
            assert answer.status == 403
        async with http.get("/v1/agents", headers=said) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("header", ["Cache-Control", "Idempotency-Key", "x-anywire-explain"])
async def test_what_a_browser_says_with_a_websocket_does_not_keep_it_from_being_one(
    tmp_path: Path, header: str
) -> None:
    said = {header: "true" if header == "x-anywire-explain" else "no-cache"}
    async with (
        gateways_before(says("a"), tmp_path) as before,
        before.http() as http,
        http.ws_connect("/v1/ws/chat", headers=said) as socket,
    ):
        await socket.send_json(CHAT | {"stream": False})
        frame = await socket.receive(PATIENCE)
        assert json.loads(frame.data)["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("header", ["x-anywire-parent", "x-anywire-attempts"])
async def test_what_a_websocket_cannot_have_is_said(tmp_path: Path, header: str) -> None:
    async with gateways_before(says("a"), tmp_path) as before, before.http() as http:
        asked = {"Connection": "Upgrade", "Upgrade": "websocket", header: "1"}
        async with http.get("/v1/ws/chat", headers=asked) as answer:
            assert answer.status == 400
            error = (await answer.json())["error"]
            assert error["code"] == "not_with_gateway_processes"
            assert header in error["message"]


async def test_a_client_of_http_1_0_names_no_host_and_may_what_it_may_without_gateways(tmp_path: Path) -> None:
    async with gateways_before(says("a"), tmp_path) as before:
        where = urlsplit(before.fronts[0])
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"POST /v1/agents/agent-1/drain HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        writer.close()


async def test_who_is_not_let_in_is_refused_by_the_orchestrator_which_tells_of_it(keys: Keys, tmp_path: Path) -> None:
    keys.add("k")
    async with gateways_before(says("a"), tmp_path, keys=keys.path) as before, before.http() as http:
        for headers in ({}, {"Authorization": "Bearer nobody"}):
            async with http.post(ASKED, json=CHAT, headers=headers) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (401, "invalid_api_key")
        own = before.served.gateway
        assert own._routes is not None
        assert own._routes._errors[401] == 2
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await http.ws_connect("/v1/ws/chat")
