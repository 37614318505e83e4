"""A connected MCP server: what a launcher gives the host. Its life, from the first message to the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from mcp import Client
from mcp_types import CallToolResult, Implementation, ServerNotification, ToolListChangedNotification

from anywire.errors import ConfigError
from anywire_engine_mcp.connection.child import OUTPUT_TIMEOUT, Child, certainly
from anywire_engine_mcp.connection.faults import said
from anywire_engine_mcp.connection.http import http_streams
from anywire_engine_mcp.connection.questions import hear_of_changes, is_well, listed_tools
from anywire_engine_mcp.connection.requests import Requests
from anywire_engine_mcp.connection.stdio import stdio_streams
from anywire_engine_mcp.server_config import ServerConfig, inherited, launched_command, secrets_of
from anywire_engine_mcp.tools import McpTool
from anywire_engine_models.host.server import Exit, StartFailed, Watcher

MAX_UNANSWERED = 3
CLOSE_TIMEOUT = 5.0
"""Seconds that the end of a session may take, in which a server over HTTP is told of it."""

log = logging.getLogger(__name__)


class ConnectedServer:
    """`anywire_engine_models.host.server.Server` for one MCP server. One task owns the SDK's client from its first
    message to the last; ``requests`` are for any task. `open` it first.

    ``changed`` is called when the server has other tools than before.
    """

    def __init__(
        self, label: str, config: ServerConfig, watcher: Watcher, changed: Callable[[ConnectedServer], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.label, self.config = label, config
        self.tools: tuple[McpTool, ...] = ()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.pid = 0
        self.key = ""
        self.requests = Requests(label, config.timeout, self._usable, self._broke, self._how)
        self._watcher, self._changed = watcher, changed
        self._child: Child | None = None
        self._client: Client | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Exit] = loop.create_future()
        """Why the connection is to end: it was asked to, or is no good any more."""
        self._stale = asyncio.Event()
        """Set when the server has said that its tools have changed."""
        self._asked = False
        self._owner: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """As it is shown: what stands behind a ``?`` is often a key."""
        return self.config.url.partition("?")[0] or f"stdio:{self.config.command[0]}"

    @property
    def protocol(self) -> str:
        """The version that both ends speak; empty before they have agreed."""
        return self._client.protocol_version if self._client is not None else ""

    async def open(self) -> None:
        """Connect, and read the list of tools. Raises `StartFailed`; nothing is left then, nor when it is cancelled."""
        self._owner = asyncio.create_task(self._live(), name=f"mcp server {self.label}")
        try:
            async with asyncio.timeout(self.config.start_timeout):
                either: set[asyncio.Future[Any]] = {self._ready, self.exited}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await self._abort()
            ending = self.exited.result()
            reason = f"it was not ready after {self.config.start_timeout:g} s (start_timeout)"
            raise StartFailed(Exit(reason, ending.code, ending.signal, ending.lines)) from None
        except BaseException:
            await self._abort()
            raise
        if self.exited.done():
            raise StartFailed(self.exited.result())

    async def stop(self) -> None:
        self._asked = True
        self._end(Exit("asked to stop"))
        await asyncio.wait({self.exited})

    # Inside

    def _usable(self) -> Client | None:
        return None if self._over.done() else self._client

    async def _how(self) -> str:
        """How it has ended, as a sentence; a program that is about to end is given the time to."""
        await self._settled()
        if self._child is not None and self._child.exited.done():
            return self._child.exited.result().reason
        return self._over.result().reason

    def _end(self, ending: Exit) -> None:
        if not self._over.done():
            self._over.set_result(ending)

    async def _abort(self) -> None:
        """End what has begun; returns when it is gone."""
        if self._owner is not None:
            self._owner.cancel()
        await asyncio.wait({self.exited})

    async def _live(self) -> None:
        ending = Exit("it was given up")
        try:
            async with (
                asyncio.timeout(None) as limit,
                Client(
                    self._streams(),
                    mode=self.config.protocol,
                    client_info=Implementation(name="anywire", version=version("anywire")),
                    message_handler=self._heard,
                    cache=None,
                ) as client,
            ):
                self._client = client
                client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                await self._list(client)
                self._ready.set_result(None)
                ending = await self._watch(client)
                self._end(ending)
                limit.reschedule(asyncio.get_running_loop().time() + CLOSE_TIMEOUT)
        except asyncio.CancelledError:
            pass
        except StartFailed as error:
            ending = error.exit
        except ConfigError as error:
            ending = Exit(str(error))
        except (Exception, BaseExceptionGroup) as error:
            self._end(Exit(f"{self.address} cannot be used: {said(error)}"))
            ending = self._over.result()
            if not self._asked:
                await self._settled()
        finally:
            self._end(ending)
            self._client = None
            await self._finish(ending)

    async def _settled(self) -> None:
        """Where a program's connection has ended, the program is about to: how it does is the better reason."""
        if self._child is not None:
            await asyncio.wait({self._child.exited}, timeout=OUTPUT_TIMEOUT)

    async def _finish(self, ending: Exit) -> None:
        """Once the session is over: the process is ended, and how it did counts where nobody asked for it."""
        child = self._child
        if child is not None:
            ended_itself = child.exited.done()
            with contextlib.suppress(asyncio.CancelledError):
                await certainly(child.stop(self.config.stop_grace))
            itself = child.exited.result()
            reason = itself.reason if ended_itself else ending.reason
            ending = Exit(reason, itself.code, itself.signal, itself.lines)
        if not self.exited.done():
            self.exited.set_result(ending)

    @asynccontextmanager
    async def _streams(self) -> AsyncGenerator[Any]:
        where = f"servers.{self.label}"
        secrets = secrets_of(self.config, where)
        if self.config.url:
            async with http_streams(self.config.url, secrets, self.config.timeout) as streams:
                yield streams
            return
        self._child = await Child.spawn(
            launched_command(self.config, where),
            inherited() | secrets,
            self.config.cwd.expanduser() if self.config.cwd is not None else None,
            self._watcher.line,
        )
        self.pid = self._child.pid
        self._watcher.spawned(self.pid)
        async with stdio_streams(self._child, self._broke) as streams:
            yield streams

    def _broke(self, why: str) -> None:
        self._end(Exit(why))

    async def _watch(self, client: Client) -> Exit:
        """Until the connection is to end: why."""
        listening = asyncio.create_task(
            hear_of_changes(client, self.label, self._stale.set), name=f"mcp {self.label} changes"
        )
        ends: set[asyncio.Future[Any]] = {self._over}
        if self._child is not None:
            ends.add(self._child.exited)
        unanswered = 0
        try:
            while True:
                stale = asyncio.ensure_future(self._stale.wait())
                try:
                    timeout = self.config.health_interval or None
                    done, _ = await asyncio.wait({*ends, stale}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stale.cancel()
                if self._over.done() and not self._asked:
                    await self._settled()
                if self._child is not None and self._child.exited.done():
                    return self._child.exited.result()
                if self._over.done():
                    return self._over.result()
                if self._stale.is_set():
                    self._stale.clear()
                    await self._list_again(client)
                elif not done and not self.requests.under_way:
                    unanswered = 0 if await is_well(client) else unanswered + 1
                    if unanswered >= MAX_UNANSWERED:
                        return Exit(f"it has not answered {unanswered} questions whether it is well")
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _heard(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._stale.set()

    async def _list(self, client: Client) -> None:
        self.tools, left_out = await listed_tools(client)
        if left_out:
            log.warning("MCP server %s: %s", self.label, left_out)
        self._changed(self)

    async def _list_again(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self.config.start_timeout):
                await self._list(client)
        except Exception as error:
            log.warning("MCP server %s: its changed tools cannot be listed: %s", self.label, said(error))


async def _unchecked(name: str, result: CallToolResult) -> None:
    """A result is for a model, whatever schema its server told for it. The SDK would check it on the event loop, and
    a pattern in that schema can take hours."""
