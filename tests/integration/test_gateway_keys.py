"""The gateway `openai` with the keys of a file: made, used, limited, revoked while it runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx
import openai
import pytest
from aiohttp import WSMsgType
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, Served, hangs, says, serving
from tests.integration.known_keys import bearer
from tests.integration.tls_files import TlsFiles

from anywire.access import Presented
from anywire.caller import Limits
from anywire.cli import doctor
from anywire.config import Config
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}


class House(NamedTuple):
    served: Served
    access: KeyAccess
    path: Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    add_key(path, record_of(new_key(), label="nobody's"))
    return path


def made(path: Path, **settings: Any) -> tuple[str, str]:
    """A new key in the file, and its id."""
    key = new_key()
    add_key(path, record_of(key, **settings))
    return str(key), key.id


@asynccontextmanager
async def house(engine: ScriptedEngine, path: Path, **gateway: Any) -> AsyncIterator[House]:
    access = KeyAccess(path)
    await access.start()
    try:
        async with serving(engine, access=access, **gateway) as served:
            yield House(served, access, path)
    finally:
        await access.close()


async def test_openai_clients_show_their_key_and_are_told_what_is_wrong_with_it(path: Path) -> None:
    key, _ = made(path)
    expired, _ = made(path, expires=1.0)
    async with house(says("hello"), path) as at:
        for shown, sentence in (
            (key, ""),
            (expired, "has run out"),
            ("sk-mine", "is no key"),
            (str(new_key()), "known"),
        ):
            async with openai.AsyncOpenAI(
                base_url=f"{at.served.url}/v1", api_key=shown, max_retries=0, timeout=TIMEOUT
            ) as client:
                asking = client.chat.completions.create(model="m", messages=MESSAGES)
                if not sentence:
                    assert (await asking).choices[0].message.content == "hello"
                    continue
                with pytest.raises(openai.AuthenticationError, match=sentence) as refused:
                    await asking
                assert refused.value.code == "invalid_api_key"
                assert shown not in str(refused.value)


async def test_a_revoked_key_ends_what_it_has_opened(path: Path) -> None:
    (key, key_id), (other, _) = made(path), made(path)
    async with house(hangs("text"), path) as at, aiohttp.ClientSession(at.served.url) as client:
        stream = await client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=bearer(key))
        await stream.content.readuntil(b"text")
        events = await client.get("/v1/events", headers=bearer(key))
        others = await client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=bearer(other))
        await others.content.readuntil(b"text")
        async with client.ws_connect("/v1/ws/chat", headers=bearer(key)) as socket:
            revoke_keys(path, [key_id])
            for answer in (stream, events):
                assert "invalid_api_key" in await answer.text()
            assert (await socket.receive_json())["error"]["code"] == "invalid_api_key"
            closing = await socket.receive()
            assert (closing.type, closing.data) == (WSMsgType.CLOSE, 4401)
        async with client.get("/v1/models", headers=bearer(key)) as answer:
            assert answer.status == 401
        assert len(at.served.context.tasks()) == 1, "the one of the other key"
        others.close()


async def test_models_beyond_the_key_are_neither_listed_nor_answered(path: Path) -> None:
    key, _ = made(path, limits=Limits(models=("tiny*",)))
    async with house(says("x"), path) as at, aiohttp.ClientSession(at.served.url, headers=bearer(key)) as client:
        async with client.get("/v1/models") as answer:
            assert (await answer.json())["data"] == []
        async with client.get("/v1/models/m") as answer:
            assert answer.status == 404
        async with client.post("/v1/chat/completions", json=CHAT) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "forbidden")
        async with client.post("/v1/chat/completions", json={"messages": MESSAGES}) as answer:
            assert (answer.status, "'m'" in await answer.text()) == (400, False)


async def test_a_limit_that_is_reached_says_when_it_is_free_again(path: Path) -> None:
    key, _ = made(path, limits=Limits(requests_per_minute=1))
    async with house(says("x"), path) as at, aiohttp.ClientSession(at.served.url, headers=bearer(key)) as client:
        async with client.post("/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200
        async with client.post("/v1/chat/completions", json=CHAT) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (429, "limit_reached")
            assert 0 < int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("trusted", [[], ["unix"]])
async def test_at_the_unix_socket_this_user_needs_no_key_unless_it_speaks_for_others(
    path: Path, tmp_path: Path, trusted: list[str]
) -> None:
    socket = tmp_path / "s"
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with (
        house(says("x"), path, unix=socket, trusted_proxies=trusted),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=TIMEOUT) as client,
    ):
        for shown in ({}, bearer("none")):
            assert (await client.get("/v1/stats", headers=shown)).status_code == 200
            for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
                sent = shown | {header: "for=127.0.0.1"}
                assert (await client.get("/v1/stats", headers=sent)).status_code == 401


async def test_a_client_certificate_is_a_key_and_a_proxys_is_not_that_of_its_clients(
    path: Path, tmp_path: Path
) -> None:
    files = TlsFiles(tmp_path / "tls")
    own = files.client_files()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(own[0].read_text())).hexdigest()
    add_key(path, record_of(None, new_key().id, role="observe", certificate=fingerprint))
    async with (
        house(says("x"), path, tls=files.mutual, trusted_proxies=["127.0.0.1"]) as at,
        httpx.AsyncClient(verify=files.client(*own), base_url=at.served.url, timeout=TIMEOUT) as client,
    ):
        assert (await client.get("/v1/stats")).status_code == 200
        assert (await client.get("/v1/stats", headers={"X-Forwarded-For": "203.0.113.9"})).status_code == 401


async def test_the_key_of_the_run_operates_and_health_tells_little_without_one(path: Path) -> None:
    async with house(says("x"), path) as at, aiohttp.ClientSession(at.served.url) as client:
        for headers, told in (
            ({}, {"status": "ok"}),
            (bearer(at.access.own_key), {"status": "ok", "agents": 1, "models": 1}),
        ):
            async with client.get("/health", headers=headers) as answer:
                assert json.loads(await answer.text()) == told
        async with client.get("/v1/stats", headers=bearer(at.access.own_key)) as answer:
            assert answer.status == 200


def test_what_a_client_has_shown_does_not_show_its_key() -> None:
    shown = Presented(token="planted", peer="203.0.113.9")
    assert "203.0.113.9" in repr(shown)
    assert "planted" not in f"{shown!r} {shown} {[shown]}"


async def test_no_key_is_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    (key, key_id), unknown = made(path), str(new_key())
    async with house(says("x"), path) as at, aiohttp.ClientSession(at.served.url) as client:
        for shown in (key, unknown):
            for headers in (
                bearer(shown),
                {"x-api-key": shown},
                {"api-key": shown},
                {"Authorization": f"Basic {shown}"},
            ):
                async with client.post("/v1/chat/completions", json=CHAT, headers=headers) as answer:
                    assert shown.split("-", 2)[-1] not in await answer.text()
            async with client.get(f"/v1/models?api_key={shown}") as answer:
                assert answer.status == 400
        revoke_keys(path, [key_id])
        async with client.get("/v1/events", headers=bearer(at.access.own_key)) as answer:
            await asyncio.sleep(0)
    secrets = [each.split("-", 2)[-1] for each in (key, unknown, at.access.own_key)]
    logged = [
        each for each in caplog.text.splitlines() if not each.startswith(("DEBUG    httpcore", "DEBUG    asyncio"))
    ]
    assert not [line for line in logged if any(secret in line for secret in secrets)]


async def test_doctor_knows_a_server_that_needs_keys(path: Path) -> None:
    async with house(says("x"), path) as at:
        found = await doctor._port(Config(server={"port": at.served.port}), lambda server: server)
    assert (found.ok, found.detail) == (True, f"an Anywire server runs on {at.served.url} already")
