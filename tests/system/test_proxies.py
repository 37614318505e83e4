"""The gateway behind nginx and Caddy, with the files that docs/how-to/tls.md shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, serving
from tests.integration.tls_files import TlsFiles
from tests.patience import PATIENCE

from anywire.access import Presented
from anywire.caller import Caller
from anywire.engine import Delta
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.messages import TaskRequest
from reserved import free_port

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "tls.md"
NGINX = """\
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
{block}
}}
"""
CADDY = """\
{{
	admin off
	auto_https disable_redirects
}}
{block}
"""
READY = {"nginx": "start worker process", "caddy": "serving initial configuration"}
ASK = {"model": "m", "messages": MESSAGES}


class Recording(KeyAccess):
    """Notes what clients have shown."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.presented: list[Presented] = []

    def caller(self, presented: Presented) -> Caller:
        self.presented.append(presented)
        return super().caller(presented)


class Proxied(NamedTuple):
    served: Served
    access: Recording
    url: str
    """Where the proxy listens."""
    key: str
    files: TlsFiles
    go_on: asyncio.Event
    """Set it, and the engine says its second word."""

    def client(self, address: str = "127.0.0.1") -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=self.files.client(), local_address=address)
        return httpx.AsyncClient(base_url=self.url, transport=transport, timeout=PATIENCE)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def shown(language: str, served: Served, port: int, files: TlsFiles) -> str:
    """What the page shows in that language, with the ports and files of this test."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    for there, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{served.port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("anywire.example.org {", f"https://localhost:{port} {{"),
        ("server_name anywire.example.org", "server_name localhost"),
        ("/etc/anywire/server.pem", str(files.certificate)),
        ("/etc/anywire/server.key", str(files.key)),
    ):
        block = block.replace(there, here)
    return str(block)


@asynccontextmanager
async def running(name: str, served: Served, port: int, files: TlsFiles, folder: Path) -> AsyncIterator[None]:
    """The proxy of that name, from when it listens."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"missing: {name}")
    config = folder / name
    block = shown(name, served, port, files)
    if name == "nginx":
        config.write_text(NGINX.format(user="user root;" if os.getuid() == 0 else "", block=block))
        command = [program, "-p", str(folder), "-c", str(config), "-e", "stderr"]
    else:
        config.write_text(CADDY.format(block=block))
        command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    own = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env=os.environ | own, cwd=folder
    )
    assert process.stderr is not None
    said = []
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in process.stderr:
                said.append(line.decode())
                if READY[name] in said[-1]:
                    break
            else:
                pytest.fail("".join(said))
        rest = asyncio.create_task(process.stderr.read())
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await rest


@pytest.fixture(params=["nginx", "caddy"])
async def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxied]:
    go_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("first ")
        await go_on.wait()
        yield Delta("second")

    files, key, keys, port = TlsFiles(tmp_path / "tls"), new_key(), tmp_path / "keys.json", free_port()
    add_key(keys, record_of(key, tenant="lab"))
    access = Recording(keys)
    async with (
        serving(ScriptedEngine(script), access=access, trusted_proxies=["127.0.0.1"]) as served,
        running(request.param, served, port, files, tmp_path),
    ):
        yield Proxied(served, access, f"https://localhost:{port}", str(key), files, go_on)


async def test_a_token_comes_before_the_next_one_is_made(proxied: Proxied) -> None:
    words: list[str] = []
    async with (
        proxied.client() as client,
        client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}, headers=proxied.headers) as answer,
    ):
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line.removeprefix("data: "))["choices"]
                words += [text for each in choices if (text := each["delta"].get("content"))]
            if words == ["first "]:
                proxied.go_on.set()  # the second one is made when the first has come, and never otherwise
    assert words == ["first ", "second"]


async def test_keys_pass_and_nobody_comes_in_without(proxied: Proxied) -> None:
    async with proxied.client() as client:
        assert (await client.get("/health")).status_code == 200
        refused = await client.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        for headers in (proxied.headers, {"x-api-key": proxied.key}, {"api-key": proxied.key}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_the_address_of_the_client_is_the_one_that_the_proxy_saw(proxied: Proxied) -> None:
    async with proxied.client("127.0.0.2") as client:
        forged = proxied.headers | {"X-Forwarded-For": "192.0.2.9"}
        assert (await client.get("/v1/models", headers=forged)).status_code == 200
    assert proxied.access.presented[-1].peer == "127.0.0.2"


async def test_a_websocket_passes(proxied: Proxied) -> None:
    proxied.go_on.set()
    async with (
        aiohttp.ClientSession(headers=proxied.headers) as session,
        session.ws_connect(f"{proxied.url}/v1/ws/chat", ssl=proxied.files.client()) as socket,
    ):
        await socket.send_str(json.dumps(ASK))
        frames = []
        while "[DONE]" not in frames:
            frames.append(await socket.receive_str(timeout=PATIENCE))
    assert "first " in frames[0] + frames[1]


async def test_a_client_that_goes_away_ends_its_task(proxied: Proxied) -> None:
    async with proxied.client() as client:
        async with client.stream(
            "POST", "/v1/chat/completions", json=ASK | {"stream": True}, headers=proxied.headers
        ) as answer:
            assert answer.status_code == 200
        ended = await asyncio.wait_for(proxied.served.observer.ended.get(), PATIENCE)
    assert ended.error == "cancelled"
