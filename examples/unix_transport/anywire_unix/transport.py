"""The transport: its settings, the hub's end and the agent's end."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.fleet_names import private_fleet
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import (
    BoundedOptions,
    Channel,
    ChannelHub,
    ChannelOwner,
    ChannelPort,
    Codec,
    StopDialling,
    StreamChannel,
)
from anywire_unix.directory import Directory

PATH_LIMIT = 103
"""Bytes in the path of a socket that every Unix accepts."""
NAME = len("/.client.agent.") + 12


class Knock(msgspec.Struct, frozen=True):
    """An agent that has come later than this hub asks it to connect to the socket of that name."""

    socket: str


CODEC = Codec(Knock)


def _default_directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "anywire" if runtime else Path(tempfile.gettempdir()) / f"anywire-{os.getuid()}"


class UnixConfig(BoundedOptions):
    """Options of ``transports.unix``. Ends with one directory find each other."""

    directory: Path = pydantic.Field(
        default_factory=_default_directory, description="where the sockets are; made if it does not exist"
    )

    @pydantic.field_validator("directory")
    @classmethod
    def _short_enough(cls, directory: Path) -> Path:
        directory = directory.expanduser().absolute()
        if len(os.fsencode(directory)) + NAME > PATH_LIMIT:
            raise ValueError(f"the path of the directory may have {PATH_LIMIT - NAME} bytes, sockets allow no more")
        return directory


class UnixHub(ChannelHub):
    def __init__(self, config: UnixConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(info, sink)
        self.directory = Directory(config.directory, plane, "hub", partial(_channel, self, config), self._use)
        self.on_close = self.directory.leave

    async def _use(self, channel: Channel) -> bool:
        self.send_hello(channel)
        await asyncio.shield(channel.ended)
        return channel.linked

    def channel_received(self, channel: Channel, message: Any) -> None:
        if not isinstance(message, Knock):
            super().channel_received(channel, message)
        elif message.socket in self.directory.others():
            self.directory.dial(message.socket)


class UnixPort(ChannelPort):
    def __init__(self, config: UnixConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(info, sink)
        self.directory = Directory(config.directory, plane, "agent", partial(_channel, self, config), self._use)
        self.on_close = self.directory.leave

    async def _use(self, channel: Channel) -> bool:
        channel.send_control(Knock(self.directory.socket))
        channel.close("it has knocked")
        raise StopDialling


class UnixTransport(Transport):
    name: ClassVar[str] = "unix"
    Config = UnixConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="connection", discovery="native")
    config: UnixConfig

    def __init__(self, config: UnixConfig) -> None:
        super().__init__(config)
        self._settings: dict[str, str] = {}

    @property
    def is_local(self) -> bool:
        """A socket in the file system is for this machine alone."""
        return True

    @classmethod
    def free_options(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {} if "directory" in options else {"directory": str(_default_directory() / private_fleet())}

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = UnixHub(self.config, hub, plane, sink)
        await self._open(end, f"{plane}_hub_socket")
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = UnixPort(self.config, info, plane, sink)
        await self._open(end, f"{plane}_agent_socket")
        return end

    async def _open(self, end: UnixHub | UnixPort, setting: str) -> None:
        await end.directory.enter()
        self._settings |= self.config.bounds() | {setting: str(end.directory.path / end.directory.socket)}
        end.guard.open()

    def effective_settings(self) -> Mapping[str, str]:
        return self._settings


def _channel(end: ChannelOwner, config: UnixConfig, peer: str) -> StreamChannel:
    return StreamChannel(
        end, CODEC, max_message_bytes=config.max_message_bytes, buffer_bytes=config.buffer_bytes, peer=peer
    )
