"""Chat templates of repositories: downloaded once, and kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from anywire.errors import EngineFailed, InvalidRequest
from anywire_desktop.active_server import ActiveServer
from anywire_desktop.app_files import AppFiles
from anywire_desktop.commands.server import MAX_TEMPLATE, ServerCommands

NAMED = [{"name": "tool_use", "template": "with tools"}, {"name": "default", "template": "plain"}]
FILES = {
    "/ann/file/raw/main/chat_template.jinja": "from a file",
    "/ann/one/raw/main/tokenizer_config.json": json.dumps({"chat_template": "from the settings"}),
    "/ann/several/raw/main/tokenizer_config.json": json.dumps({"chat_template": NAMED}),
    "/ann/none/raw/main/tokenizer_config.json": "{}",
    "/ann/broken/raw/main/tokenizer_config.json": "{",
    "/ann/large/raw/main/chat_template.jinja": "x" * (MAX_TEMPLATE + 1),
}


@asynccontextmanager
async def hub(asked: list[str]) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path not in FILES:
            raise web.HTTPNotFound
        return web.Response(text=FILES[request.path])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_templates_are_found_kept_and_checked(tmp_path: Path) -> None:
    asked: list[str] = []
    files = AppFiles(tmp_path)
    async with hub(asked) as address:
        commands = ServerCommands(cast("ActiveServer", None), files, address)
        for name, text in (("file", "from a file"), ("one", "from the settings"), ("several", "plain")):
            path = await commands.ensure_chat_template(f"ann/{name}")
            assert await files.work(Path(path).read_text) == text
        before = len(asked)
        assert await commands.ensure_chat_template("ann/several") == path
        assert len(asked) == before, "it is there already"
        for name in ("none", "broken", "large", "not-there"):
            with pytest.raises(EngineFailed):
                await commands.ensure_chat_template(f"ann/{name}")
        for name in ("../../etc", "ann", "ann/a/b", "a" * 200 + "/b"):
            with pytest.raises(InvalidRequest):
                await commands.ensure_chat_template(name)
    with pytest.raises(EngineFailed, match="cannot be loaded"):
        await commands.ensure_chat_template("ann/another")
    assert len(await files.work(lambda: list(files.templates.iterdir()))) == 3
    files.close()
