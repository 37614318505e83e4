"""The transport: its settings, the hub's end and the agent's end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pydantic

from anywire.errors import AgentUnavailable, TransportError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest, ToAgent
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire_unix.connection import Connection
from anywire_unix.end import End
from anywire_unix.wire import Knock

PATH_LIMIT = 103
"""Bytes in the path of a socket that every Unix accepts."""
NAME = len("/.client.agent.") + 12


def _default_directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "anywire" if runtime else Path(tempfile.gettempdir()) / f"anywire-{os.getuid()}"


class UnixConfig(pydantic.BaseModel):
    """Options of ``transports.unix``. Ends with one directory find each other."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True)

    directory: Path = pydantic.Field(
        default_factory=_default_directory, description="where the sockets are; made if it does not exist"
    )
    max_message_bytes: int = pydantic.Field(
        default=16 * 1024 * 1024, ge=1024, lt=2**32, description="largest encoded message, in bytes"
    )

    @pydantic.field_validator("directory")
    @classmethod
    def _short_enough(cls, directory: Path) -> Path:
        directory = directory.expanduser().absolute()
        if len(os.fsencode(directory)) + NAME > PATH_LIMIT:
            raise ValueError(f"the path of the directory may have {PATH_LIMIT - NAME} bytes, sockets allow no more")
        return directory


class UnixHub(End, Hub):
    def __init__(self, config: UnixConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(config.directory, config.max_message_bytes, plane, "hub")
        self.info, self.sink = info, sink
        self.links: dict[str, Connection] = {}

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self.links.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over unix", agent_id=agent_id)
        link.send(message, bounded=isinstance(message, TaskRequest))

    async def drain(self, agent_id: str) -> None:
        link = self.links.get(agent_id)
        if link is not None:
            await link.drain()

    async def close(self) -> None:
        await self.shut()

    def greet(self, connection: Connection) -> None:
        connection.tell(self.info)

    def received(self, connection: Connection, message: Any) -> None:
        match message:
            case Chunk() if connection.agent is not None:
                self.sink.chunk_received(message)
            case AgentStatus() if connection.agent is not None:
                self.sink.agent_reported(message)
            case AgentInfo() if connection.agent is None:
                self._join(connection, message)
            case Knock():
                if message.socket in self.others():
                    self.dial(message.socket)
            case _:
                raise TransportError(f"a {type(message).__name__} is not for a hub, or not now")

    def _join(self, connection: Connection, info: AgentInfo) -> None:
        old = self.links.get(info.agent_id)
        if old is not None and old.agent is not None:
            if old.agent.incarnation > info.incarnation:
                raise TransportError(f"agent {info.agent_id} is here already, in a newer incarnation")
            self.ended(old, "replaced by a new incarnation")
            old.abort()
        connection.agent = info
        self.links[info.agent_id] = connection
        self.sink.agent_joined(info)

    def ended(self, connection: Connection, reason: str) -> None:
        agent, connection.agent = connection.agent, None
        if agent is not None:
            del self.links[agent.agent_id]
            if not self.closing:
                self.sink.agent_lost(agent.agent_id, agent.incarnation, reason)


class UnixPort(End, AgentPort):
    def __init__(self, config: UnixConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(config.directory, config.max_message_bytes, plane, "agent")
        self.info, self.sink = info, sink
        self.links: dict[str, Connection] = {}
        self.newest: AgentStatus | None = None

    def report(self, status: AgentStatus) -> None:
        first, self.newest = self.newest is None, status
        for link in self.links.values():
            if first:
                link.tell(self.info)
            link.report(status)

    async def close(self) -> None:
        await self.shut()

    def greet(self, connection: Connection) -> None:
        connection.tell(Knock(self.socket))
        connection.close()

    def received(self, connection: Connection, message: Any) -> None:
        match message:
            case TaskRequest() if connection.hub is not None:
                self.sink.task_received(message, connection)
            case Credit() if connection.hub is not None:
                self.sink.credit_received(message)
            case Cancel() if connection.hub is not None:
                self.sink.cancel_received(message)
            case Drain() if connection.hub is not None:
                self.sink.drain_requested(message.reason)
            case HubInfo() if connection.hub is None:
                self._join(connection, message)
            case _:
                raise TransportError(f"a {type(message).__name__} is not for an agent, or not now")

    def _join(self, connection: Connection, hub: HubInfo) -> None:
        old = self.links.get(hub.hub_id)
        if old is not None:
            self.ended(old, "replaced by a new connection")
            old.abort()
        connection.hub = hub
        self.links[hub.hub_id] = connection
        self.sink.hub_joined(hub.hub_id, hub.incarnation)
        if self.newest is not None:
            connection.tell(self.info)
            connection.report(self.newest)

    def ended(self, connection: Connection, reason: str) -> None:
        hub, connection.hub = connection.hub, None
        if hub is not None:
            del self.links[hub.hub_id]
            if not self.closing:
                self.sink.hub_lost(hub.hub_id, hub.incarnation, reason)


class UnixTransport(Transport):
    name: ClassVar[str] = "unix"
    Config = UnixConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="connection", discovery="native", max_message_bytes=16 * 1024 * 1024
    )
    config: UnixConfig

    def __init__(self, config: UnixConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = UnixHub(self.config, hub, plane, sink)
        await end.open()
        self._settings[f"{plane}_hub_socket"] = str(end.directory / end.socket)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = UnixPort(self.config, info, plane, sink)
        await end.open()
        self._settings[f"{plane}_agent_socket"] = str(end.directory / end.socket)
        return end

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings
