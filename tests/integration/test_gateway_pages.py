"""Web pages of allowed origins: what a browser asks first, and what it wants to see on every answer."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from tests.integration.known_keys import KnownKeys, bearer

from .gateway_serving import MESSAGES, says, serving

PAGE = "https://chat.example.org"
CHAT = {"model": "m", "messages": MESSAGES}
ASKED = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,authorization,x-anywire-hints",
}


async def call(url: str, method: str, path: str, **more: Any) -> aiohttp.ClientResponse:
    async with aiohttp.ClientSession(url) as client, client.request(method, path, **more) as answer:
        await answer.read()
        return answer


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/m", "/chat/completions/", "/v1/tasks"])
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
async def test_a_browsers_question_is_answered(path: str, origin: str) -> None:
    async with serving(says("x"), allowed_origins=[PAGE]) as served:
        answer = await call(served.url, "OPTIONS", path, headers=ASKED | {"Origin": origin})
        assert answer.status == 204
        told = answer.headers
        assert told["Access-Control-Allow-Origin"] == origin
        assert told["Access-Control-Allow-Methods"] == told["Allow"]
        assert told["Access-Control-Allow-Headers"] == ASKED["Access-Control-Request-Headers"]
        assert int(told["Access-Control-Max-Age"]) > 0
        assert "Access-Control-Allow-Private-Network" not in told
        private = {"Access-Control-Request-Private-Network": "true"}
        answer = await call(served.url, "OPTIONS", path, headers=ASKED | {"Origin": origin} | private)
        assert answer.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_every_answer_to_an_allowed_page_may_be_read(stream: bool, fails: bool) -> None:
    async with serving(says("x"), allowed_origins=[PAGE]) as served:
        body = CHAT | {"stream": stream, "model": "nobody's" if fails else "m"}
        answer = await call(served.url, "POST", "/v1/chat/completions", json=body, headers={"Origin": PAGE})
        assert answer.status == (404 if fails else 200)
        told = answer.headers
        assert (told["Access-Control-Allow-Origin"], told["Vary"]) == (PAGE, "Origin")
        exposed = told["Access-Control-Expose-Headers"].split(", ")
        own = [name.lower() for name in told if name.lower().startswith(("x-anywire", "x-request", "retry-"))]
        assert own
        assert set(own) <= set(exposed)


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "app://x"])
async def test_other_pages_are_refused_and_told_nothing(method: str, origin: str) -> None:
    async with serving(says("x"), allowed_origins=[PAGE]) as served:
        answer = await call(served.url, method, "/v1/chat/completions", headers=ASKED | {"Origin": origin})
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("192.0.2.7:8080", "http://192.0.2.7:8080", 200),
        ("[2001:db8::7]:8080", "http://[2001:db8::7]:8080", 200),
        ("192.0.2.7", "http://192.0.2.7", 200),
        ("192.0.2.7:80", "http://192.0.2.7", 200),
        ("192.0.2.7:8080", "http://192.0.2.7:8081", 403),
        ("192.0.2.7:8080", "https://192.0.2.7:8080", 403),
        ("192.0.2.7:8080", "http://192.0.2.8:8080", 403),
        ("anywire.example", "http://anywire.example", 403),
        ("[::", "http://[::", 403),
        ("", "http://", 403),
    ],
)
async def test_the_server_s_own_pages_may_use_it_by_its_address(host: str, origin: str, status: int) -> None:
    async with serving(says("x")) as served:
        headers = {"Host": host, "Origin": origin}
        answer = await call(served.url, "POST", "/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status == status


@pytest.mark.parametrize(("host", "status"), [("anywire.example", 200), ("other.example", 403)])
async def test_by_a_name_only_where_keys_are_needed(host: str, status: int) -> None:
    async with serving(says("x"), access=KnownKeys(alice="use")) as served:
        headers = bearer("alice") | {"Host": host, "Origin": "http://anywire.example"}
        answer = await call(served.url, "POST", "/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status == status


async def test_others_than_pages_see_no_such_headers() -> None:
    async with serving(says("x"), allowed_origins=[PAGE]) as served:
        answer = await call(served.url, "POST", "/v1/chat/completions", json=CHAT)
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert "Vary" not in answer.headers


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.example"}, 403), ({"Host": "evil.example", "X-Forwarded-For": "10.0.0.9"}, 200),
    ({"Host": "localhost:8080"}, 200), ({}, 200),
])  # fmt: skip
async def test_a_page_whose_own_name_leads_here_reads_no_hosts(headers: dict[str, str], status: int) -> None:
    async with serving(says("x")) as served:
        assert (await call(served.url, "GET", "/v1/agents", headers=headers)).status == status


async def test_the_whole_server_may_be_asked_for_its_options() -> None:
    async with serving(says("x")) as served:
        raw = await served.raw({})
        raw.writer.write(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"204" in (await raw.reader.read())
        await raw.close()
