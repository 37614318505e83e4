"""The bridge as a whole: from the first line of the app to the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anywire.this_system import needs_posix
from anywire_desktop.active_server import ActiveServer
from anywire_desktop.app_files import AppFiles
from anywire_desktop.call import Events, complete
from anywire_desktop.chats import Chats
from anywire_desktop.commands.chat import ChatCommands
from anywire_desktop.commands.library import LibraryCommands
from anywire_desktop.commands.mcp import McpCommands
from anywire_desktop.commands.models import ModelCommands
from anywire_desktop.commands.server import HUB, ServerCommands
from anywire_desktop.commands.settings import SettingsCommands
from anywire_desktop.downloads import Downloads
from anywire_desktop.line_streams import LineReader, LineWriter
from anywire_desktop.mcp_servers import McpServers
from anywire_desktop.rpc import Calls, encode
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.local_models import LocalModels, Missed

READY, CHANGED, RESET = "bridge:ready", "model:changed", "models:reset"
END_PATIENCE = 20.0
"""Seconds that calls have to end at the end of the bridge, before their servers are stopped without them."""
WRITE_PATIENCE = 2.0
"""Seconds that the app has to read the last lines."""

log = logging.getLogger(__name__)


class Bridge:
    """``models`` and ``mcp`` are begun by `serve`, and ended by it."""

    def __init__(self, models: LocalModels, files: AppFiles, mcp: McpServers, hub: str = HUB) -> None:
        self._models, self._files, self._mcp, self._hub = models, files, mcp, hub
        self._downloads = Downloads()

    async def serve(self, reader: LineReader, writer: LineWriter, stop: asyncio.Event) -> None:
        """Answer calls until the input ends, nobody reads the output, or ``stop`` is set. Then all calls are answered,
        all servers stopped."""
        await writer.open()

        async def send(message: Mapping[str, Any]) -> None:
            await writer.write(encode(message))

        events = Events(send)
        active = ActiveServer(self._models, self._files)
        calls = Calls(
            [
                *ServerCommands(active, self._files, self._hub).all(),
                *ChatCommands(self._models, active, Chats(), self._mcp).all(),
                *LibraryCommands(self._models, self._files, self._downloads, events).all(),
                *SettingsCommands(self._files).all(),
                *ModelCommands(self._models).all(),
                *McpCommands(self._mcp).all(),
            ],
            send,
        )
        try:
            await self._files.work(self._files.begin_library)
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self._files.close)
                stack.push_async_callback(writer.close, WRITE_PATIENCE)
                stack.push_async_callback(self._downloads.close)
                stack.push_async_callback(self._mcp.close)
                await stack.enter_async_context(self._models)
                stack.push_async_callback(calls.close, END_PATIENCE)
                telling = asyncio.create_task(self._tell(events), name="bridge: changes of models")
                stack.push_async_callback(_ended, telling)
                await events.emit(READY, {"version": version("anywire-desktop"), "pid": os.getpid()})
                reading = asyncio.create_task(calls.read(reader.lines()), name="bridge: input")
                stack.push_async_callback(_ended, reading)
                asked = asyncio.create_task(stop.wait(), name="bridge: stop")
                stack.push_async_callback(_ended, asked)
                ends: set[asyncio.Future[Any]] = {reading, asked, writer.closed}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                log.info("the bridge ends: %s", _reason(reading, asked))
        finally:
            reader.close()

    async def _tell(self, events: Events) -> None:
        with self._models.changes() as changes:
            async for change in changes:
                if isinstance(change, Missed):
                    await events.emit(RESET, {"missed": change.count})
                else:
                    await events.emit(CHANGED, {"status": complete(change.status), "previous": change.previous})


def run(folder: Path, library: Path | None, config: ModelsConfig) -> None:
    """Serve the app at standard input and output of this process, until one of them ends or a signal says so."""
    needs_posix("the bridge of desktop apps")

    async def main() -> None:
        files = AppFiles(folder, library)
        models = LocalModels(config.model_copy(update={"registry": files.library}))
        stop = asyncio.Event()

        def signalled() -> None:
            if stop.is_set():
                os._exit(1)  # a second signal does not wait; no server outlives this process
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, signalled)
        await Bridge(models, files, McpServers(files)).serve(LineReader(0), LineWriter(1), stop)

    asyncio.run(main())


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)


def _reason(reading: asyncio.Task[None], asked: asyncio.Task[Any]) -> str:
    return "it was asked to" if asked.done() else "its input ended" if reading.done() else "nobody reads its output"
