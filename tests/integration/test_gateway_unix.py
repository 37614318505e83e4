"""The gateway on a Unix socket: beside its port and instead of it, for this user alone."""

from __future__ import annotations

import importlib
import os
import socket
import stat
from pathlib import Path

import httpx
import openai
import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, hangs, says, serving

from anywire.errors import ConfigError
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire_gateway_openai import OpenAIGatewayConfig


def client_at(path: Path) -> openai.AsyncOpenAI:
    # The client brings an httpx of its own, whose transport it needs.
    (own,) = (each for each in openai.DefaultAsyncHttpxClient.__mro__ if each.__name__ == "AsyncClient")
    transport = importlib.import_module(own.__module__.partition(".")[0]).AsyncHTTPTransport(uds=str(path))
    return openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="none",
        max_retries=0,
        timeout=TIMEOUT,
        http_client=openai.DefaultAsyncHttpxClient(transport=transport),
    )


async def test_openai_clients_use_it_beside_the_port_and_their_user_is_known(tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    async with serving(says("a"), unix=path) as served:
        assert served.url.startswith("http://127.0.0.1:"), "the port is the address"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with client_at(path) as client:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "a"
            assert served.gateway._server is not None
            (handler,) = served.gateway._server.connections
            assert handler.proof.uid == os.getuid()  # type: ignore[attr-defined]
        async with served.client() as client:
            assert (await client.models.list()).data[0].id == "m"
    assert not path.exists()


async def test_its_user_may_cancel_tasks(tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    async with (
        serving(hangs("a"), unix=path, host="") as served,
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://localhost") as client,
    ):
        assert served.gateway.address == f"unix:{path}"
        asked = {"model": "m", "messages": MESSAGES, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            task = answer.headers["x-anywire-task"]
            assert (await client.delete(f"/v1/tasks/{task}")).is_success


async def test_with_keys_this_user_needs_none_there_and_a_proxy_does(tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    add_key(tmp_path / "keys.json", record_of(None, "robotrobotro", certificate="0" * 64))
    async with (
        serving(says("a"), unix=path, access=KeyAccess(tmp_path / "keys.json")) as served,
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://localhost") as client,
        httpx.AsyncClient(base_url=served.url) as by_port,
    ):
        assert (await client.get("/v1/agents")).status_code == 200
        assert (await client.get("/v1/agents", headers={"X-Forwarded-For": "192.0.2.9"})).status_code == 401
        assert (await by_port.get("/v1/agents")).status_code == 401


async def test_a_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(says("a"), unix=path, host=""):
        async with client_at(path) as client:
            assert (await client.models.list()).data[0].id == "m"
        with pytest.raises(ConfigError, match="another process listens there"):
            async with serving(says("b"), unix=path):
                pass
        async with client_at(path) as client:
            assert (await client.models.list()).data[0].id == "m"


async def test_a_socket_that_took_the_place_of_its_own_stays(tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    async with serving(says("a"), unix=path, host=""):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


async def test_what_cannot_be_listened_on_is_said(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("precious")
    for path, why in (
        (taken, "a file is there that is no socket"),
        (tmp_path / "missing" / "socket", "No such file or directory"),
        (tmp_path / ("x" * 200), "too long"),
    ):
        with pytest.raises(ConfigError, match=why):
            async with serving(says("a"), unix=path):
                pass
    assert taken.read_text() == "precious"
    with pytest.raises(ValueError, match="set host or unix"):
        OpenAIGatewayConfig(host="")
