"""A connected MCP server: what a launcher gives the host, and through which its tools are called."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from mcp import Client, MCPError
from mcp_types import (
    CallToolResult,
    Implementation,
    ServerNotification,
    TextResourceContents,
    Tool,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from anywire.errors import ConfigError
from anywire_engine_mcp.connection.child import OUTPUT_TIMEOUT, Child, certainly
from anywire_engine_mcp.connection.faults import ServerGone, ToolFault, is_closed, said
from anywire_engine_mcp.connection.http import http_streams
from anywire_engine_mcp.connection.stdio import stdio_streams
from anywire_engine_mcp.server_config import ServerConfig, inherited, launched_command, secrets_of
from anywire_engine_mcp.tools import MAX_LIST_BYTES, MAX_TOOLS, McpTool, ToolResult, known_tools, read_result
from anywire_engine_models.host.server import Exit, StartFailed, Watcher

HEALTH_TIMEOUT = 10.0
"""Seconds for an answer to the question whether a server is well."""
MAX_UNANSWERED = 3
MAX_PAGES = 100
MAX_RESOURCES = 1000
CLOSE_TIMEOUT = 5.0
"""Seconds that the end of a session may take, in which a server over HTTP is told of it."""

log = logging.getLogger(__name__)


class ConnectedServer:
    """`anywire_engine_models.host.server.Server` for one MCP server. One task owns the SDK's client from its first
    message to the last; calls come from any task. `open` it first.

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
        self._watcher, self._changed = watcher, changed
        self._child: Child | None = None
        self._client: Client | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Exit] = loop.create_future()
        """Why the connection is to end: it was asked to, or is no good any more."""
        self._stale = asyncio.Event()
        """Set when the server has said that its tools have changed."""
        self._asked = False
        self._calls = 0
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

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> ToolResult:
        """Call a tool. ``timeout`` is in seconds. Raises `ServerGone` and `ToolFault`."""
        async with self._session(f"the tool {tool}", timeout) as client:
            result = await client.call_tool(tool, dict(arguments))
        return read_result(result)

    async def resources(self) -> tuple[dict[str, Any], ...]:
        """What the server lists for reading, at most `MAX_RESOURCES`, and no page after `MAX_LIST_BYTES`. Raises
        `ServerGone` and `ToolFault`."""
        found: list[dict[str, Any]] = []
        cursor, size = None, 0
        async with self._session("the list of resources", self.config.timeout) as client:
            for _ in range(MAX_PAGES):
                page = await client.list_resources(cursor=cursor)
                found += [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in page.resources]
                size += _size(page)
                cursor = page.next_cursor
                if cursor is None or len(found) >= MAX_RESOURCES or size > MAX_LIST_BYTES:
                    break
        return tuple(found[:MAX_RESOURCES])

    async def read(self, uri: str) -> tuple[dict[str, Any], ...]:
        """The contents of a resource: ``uri``, ``mimeType``, and ``text`` or ``blob`` (base64). Raises `ServerGone` and
        `ToolFault`."""
        async with self._session(f"the resource {uri}", self.config.timeout) as client:
            result = await client.read_resource(uri)
        return tuple(
            {"uri": str(each.uri), "mimeType": each.mime_type or ""}
            | ({"text": each.text} if isinstance(each, TextResourceContents) else {"blob": each.blob})
            for each in result.contents
        )

    # Inside

    @asynccontextmanager
    async def _session(self, what: str, timeout: float) -> AsyncGenerator[Client]:
        """The client for one request; turns what it raises into our errors."""
        client = self._client
        if client is None or self._over.done():
            raise ServerGone(f"the MCP server {self.label} has ended")
        self._calls += 1
        try:
            async with asyncio.timeout(timeout):
                yield client
        except TimeoutError:
            raise ToolFault(f"{what} did not answer within {timeout:g} s") from None
        except MCPError as error:
            if self._over.done() or is_closed(error):
                self._end(Exit(f"its connection broke: {said(error)}"))
                raise ServerGone(f"the MCP server {self.label} ended during the call: {await self._how()}") from error
            raise ToolFault(f"{what} failed: {said(error)}") from error
        except Exception as error:
            # The SDK raises errors of many kinds for an answer that is against the protocol or the tool's own schema.
            raise ToolFault(f"{what} failed: {said(error)}") from error
        finally:
            self._calls -= 1

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
        async with stdio_streams(self._child, self._output_closed) as streams:
            yield streams

    def _output_closed(self, why: str) -> None:
        self._end(Exit(why))

    async def _watch(self, client: Client) -> Exit:
        """Until the connection is to end: why."""
        listening = asyncio.create_task(self._listen(client), name=f"mcp {self.label} changes")
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
                elif not done and not self._calls:
                    unanswered = 0 if await self._is_well(client) else unanswered + 1
                    if unanswered >= MAX_UNANSWERED:
                        return Exit(f"it has not answered {unanswered} questions whether it is well")
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _is_well(self, client: Client) -> bool:
        session = client.session
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    await session.send_discover(client.protocol_version)
                else:
                    await session.send_ping()
        except MCPError as error:
            return not (is_closed(error))
        except Exception:
            return False
        return True

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools where a server has to be asked to tell them."""
        capabilities = client.server_capabilities
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return
        if capabilities.tools is None or not capabilities.tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._stale.set()
        except Exception as error:
            log.debug("MCP server %s tells of no changes: %s", self.label, said(error))

    async def _heard(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._stale.set()

    async def _list(self, client: Client) -> None:
        listed: list[Tool] = []
        if client.server_capabilities.tools is not None:
            cursor, size = None, 0
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                size += _size(page)
                cursor = page.next_cursor
                if cursor is None or len(listed) > MAX_TOOLS or size > MAX_LIST_BYTES:
                    break
        self.tools, left_out = known_tools(listed)
        if left_out:
            log.warning("MCP server %s: %s", self.label, left_out)
        self._changed(self)

    async def _list_again(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self.config.start_timeout):
                await self._list(client)
        except Exception as error:
            log.warning("MCP server %s: its changed tools cannot be listed: %s", self.label, said(error))


def _size(page: BaseModel) -> int:
    """Bytes of a page of a list, about."""
    try:
        return len(page.model_dump_json())
    except ValueError:  # half a letter: nothing that can be written
        return MAX_LIST_BYTES


async def _unchecked(name: str, result: CallToolResult) -> None:
    """A result is for a model, whatever schema its server told for it. The SDK would check it on the event loop, and
    a pattern in that schema can take hours."""
