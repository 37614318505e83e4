"""The files of the page: served to everybody, cached by their tags, closed in themselves, and nothing beside them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.known_keys import KnownKeys, bearer

from anywire.access import Access, OpenAccess
from anywire.testing.service_bench import service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_ui.files import HEADERS, PageFiles
from anywire_service_ui.service import Page, PageConfig

FILES = sorted(PageFiles())
TEXTS = {
    name: (Path(__file__).parents[2] / "plugins/services/ui/anywire_service_ui/page" / name).read_text()
    for name in FILES
}


class TestTheService(ServiceConformance):
    service = "ui"


@asynccontextmanager
async def serving(tmp_path: Path, access: Access | None = None, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """The page at the gateway, and a client whose paths begin at its root."""
    async with service_bench(Page(PageConfig(**options)), state=tmp_path, access=access or OpenAccess()) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        try:
            async with aiohttp.ClientSession(gateway.address) as client:
                yield client
        finally:
            await gateway.close()


async def test_every_file_is_served_without_a_key(tmp_path: Path) -> None:
    async with serving(tmp_path, KnownKeys(alice="use")) as client:
        for name in ("", *FILES):
            async with client.get(f"/ui/{name}" if name else "/ui") as answer:
                assert answer.status == 200, name
                for header, value in HEADERS.items():
                    assert answer.headers[header] == value
                content, tag = await answer.read(), answer.headers["etag"]
            assert content.decode() == TEXTS[name or "index.html"]
            for known in (tag, f'"other", W/{tag}'):
                async with client.get(f"/ui/{name}" if name else "/ui", headers={"if-none-match": known}) as answer:
                    assert (answer.status, await answer.read()) == (304, b"")
        async with client.get("/v1/agents") as answer:
            assert answer.status == 401


async def test_no_header_is_sent_that_a_browser_complains_of(tmp_path: Path) -> None:
    name = "cross-origin-opener-policy"
    async with serving(tmp_path) as client:
        for host, counts in (("localhost:8080", True), ("[::1]", True), ("192.0.2.7:8080", False), ("[", False)):
            async with client.get("/ui", headers={"host": host}) as answer:
                assert (name in answer.headers) is counts, host


async def test_the_page_knows_its_place_with_a_slash_at_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as client, client.get("/ui/") as answer:
        assert answer.status == 200
        assert answer.url.path == "/ui"


@pytest.mark.parametrize(
    "path",
    [
        *("/ui/nothing.js", "/ui/views/nothing.js", "/ui/../index.html", "/ui/%2e%2e%2fservice.py", "/ui/views"),
        *(
            "/ui/..%2f__init__.py",
            "/ui/views/..%2f..%2fservice.py",
            "/ui/%00",
            "/ui//etc/passwd",
            "/ui/page/index.html",
        ),
    ],
)
async def test_no_other_path_leads_to_a_file(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as client:
        from yarl import URL

        async with client.get(URL(path, encoded=True)) as answer:
            assert answer.status in (400, 404)
            assert b"import" not in await answer.read()


async def test_switched_off_it_serves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, page=False) as client:
        for path in ("/ui", "/ui/main.js"):
            async with client.get(path) as answer:
                assert answer.status == 404
        async with client.post("/ui/sign-in", json={"code": "x"}) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("name", [each for each in FILES if each.endswith(".js")])
def test_modules_import_what_is_there(name: str) -> None:
    folder = Path(name).parent
    for imported in re.findall(r"""(?<![\w.])(?:from|import)\s*\(?\s*["']([^"']+)["']""", TEXTS[name]):
        assert imported.startswith("."), imported
        parts: list[str] = []
        for part in (folder / imported).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        assert "/".join(parts) in FILES, imported


@pytest.mark.parametrize("name", FILES)
def test_files_name_no_other_server_and_hold_no_markup(name: str) -> None:
    text = TEXTS[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", text)
    if name.endswith(".js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", text)


async def test_a_code_signs_in_once_with_the_key_that_made_it(tmp_path: Path) -> None:
    async with serving(tmp_path, KnownKeys(alice="observe")) as client:
        async with client.post("/v1/ui/codes", json={"key": "alice"}) as answer:
            assert answer.status == 401
        async with client.post("/v1/ui/codes", json={"key": "mallory"}, headers=bearer("alice")) as answer:
            assert answer.status == 401
        async with client.post("/v1/ui/codes", json={"key": "alice"}, headers=bearer("alice")) as answer:
            assert answer.status == 201
            code = (await answer.json())["code"]
        async with client.post("/ui/sign-in", json={"code": code}) as answer:
            assert (answer.status, (await answer.json())["key"]) == (200, "alice")
            assert answer.headers["cache-control"] == "no-store"
        async with client.post("/ui/sign-in", json={"code": code}) as answer:
            assert answer.status == 401
            assert "anywire ui" in (await answer.json())["error"]["message"]
        async with client.get("/v1/caller", headers=bearer("alice")) as answer:
            told = await answer.json()
            assert told == {"object": "caller", "id": "alice", "tenant": "alice", "role": "observe", "needs_key": True}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"code": 3}', b"\xff", b'{"code": "%s"}' % (b"x" * 5000)])
async def test_what_is_no_code_is_refused(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path) as client, client.post("/ui/sign-in", data=body) as answer:
        assert answer.status in (400, 413)


async def test_without_keys_the_caller_here_operates(tmp_path: Path) -> None:
    async with serving(tmp_path) as client, client.get("/v1/caller") as answer:
        told = await answer.json()
        assert told == {"object": "caller", "id": "", "tenant": "", "role": "operate", "needs_key": False}
