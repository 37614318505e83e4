"""The engine ``mcp``: another engine, with the tools of MCP servers in its chats."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, ClassVar

import msgspec

from anywire.demand import MCP_NEED
from anywire.engine import Create, Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import ConfigError
from anywire.messages import TaskRequest
from anywire.offers import API_NEED, Offer
from anywire_engine_mcp.commands import PREFIX, McpCommands, summary
from anywire_engine_mcp.config import McpConfig
from anywire_engine_mcp.events import Events
from anywire_engine_mcp.host import McpChanged, McpHost, McpStatus
from anywire_engine_mcp.tool_loop.requested import ChatWithTools, read_chat
from anywire_engine_mcp.tool_loop.with_servers import run_loop

log = logging.getLogger(__name__)


class McpEngine(Engine):
    """Answers with its ``inner`` engine. A chat with a tool ``{"type": "mcp", "server_label": …}`` runs a loop: the
    model is told of the server's tools, and what it calls is called here. Everything else goes straight through."""

    name: ClassVar[str] = "mcp"
    Config: ClassVar[type[McpConfig]] = McpConfig

    def __init__(self, config: McpConfig) -> None:
        super().__init__(config)
        self.config: McpConfig = config
        self.host = McpHost()
        self._inner: Engine | None = None
        self._events = Events()
        self._commands = McpCommands(self.host, self._events)
        self._limits = config.limits()
        self._changed: Callable[[], None] = lambda: None
        self._unlisten = self.host.listen(self._server_changed)
        self._features: dict[str, bool] = {}
        """What the offers say of the servers, beside what the inner engine says."""
        self._seen: tuple[EngineStatus, EngineStatus] | None = None
        """The inner engine's newest status, and what was made of it."""

    def assemble(self, create: Create) -> None:
        inner = self.config.inner
        if inner.name == self.name:
            raise ConfigError("engine.inner must be another engine than mcp: the one that has the models")
        self._inner = create(inner.name, inner.model_extra or {}, "engine.inner")
        self.capabilities = tuple(self._inner.capabilities)

    @property
    def inner(self) -> Engine:
        if self._inner is None:
            raise ConfigError("the engine mcp was made without its inner engine")
        return self._inner

    async def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        servers = self.config.all_servers()
        await self.host.begin(servers)
        self._note_features()
        await self.inner.start(changed)

    async def close(self) -> None:
        self._unlisten()
        try:
            if self._inner is not None:
                await self._inner.close()
        finally:
            await self.host.close()

    def status(self) -> EngineStatus:
        inner = self.inner.status()
        if self._seen is None or self._seen[0] != inner:
            with_tools = tuple([self._offer(offer, self.inner.capabilities) for offer in inner.offers])
            self._seen = inner, msgspec.structs.replace(inner, offers=with_tools)
        return self._seen[1]

    def resumable(self, task: TaskRequest) -> bool:
        return self._chat(task) is None and self.inner.resumable(task)

    def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        chat = read_chat(task)
        if chat is None:
            return self.inner.run(task)
        return self._with_tools(task, chat)

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        if name.startswith(PREFIX):
            return self._commands.carry_out(name, arguments)
        return self.inner.command(name, arguments)

    async def _with_tools(self, task: TaskRequest, chat: ChatWithTools) -> AsyncGenerator[Delta | EngineProgress, None]:
        answer = run_loop(task, chat, self.host, self.inner.run, self._limits, self._events.tell)
        async with contextlib.aclosing(answer) as deltas:
            async for delta in deltas:
                yield delta

    def _chat(self, task: TaskRequest) -> ChatWithTools | None:
        with contextlib.suppress(Exception):
            return read_chat(task)
        return None

    def _offer(self, offer: Offer, capabilities: tuple[str, ...]) -> Offer:
        if not self._features or "chat" not in (offer.kinds or capabilities):
            return offer
        # What is passed on to the server as it is would be answered without these tools.
        features = {name: has for name, has in offer.features.items() if not name.startswith(API_NEED)}
        return msgspec.structs.replace(offer, features=features | self._features)

    def _server_changed(self, change: McpChanged) -> None:
        self._events.tell("server", summary(change.status))
        if self._note_features():
            self._changed()

    def _note_features(self) -> bool:
        """Whether the offers say something else than before."""
        found = {f"{MCP_NEED}{status.server}": _is_there(status) for status in self.host.list()}
        if found == self._features:
            return False
        self._features, self._seen = found, None
        return True


def _is_there(status: McpStatus) -> bool:
    """Whether a chat may name the server: it runs, or a request starts it. One that has crashed is tried, too: it may
    be about to be started again, and says by itself why it is not."""
    return status.on_demand or status.state in ("starting", "running", "crashed")
