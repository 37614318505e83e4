"""How a fault is planted: around the sinks and ends of a transport that is right, or inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import Plane


class Around:
    """Passes everything on to ``inner``; a subclass changes what is wrong."""

    def __init__(self, inner: Any, fault: Any = None) -> None:
        self.inner, self.fault = inner, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Fault:
    """One thing that a transport does wrong, its docstring says what. There is one object for each end that is opened.

    The classes named here are put around what they are called after; None leaves it as it is.
    """

    AroundHubSink: type[Around] | None = None
    AroundAgentSink: type[Around] | None = None
    AroundHub: type[Around] | None = None
    AroundPort: type[Around] | None = None
    AroundReply: type[Around] | None = None
    FaultyChannel: Any = None
    """The class of channels to use, over the broker."""

    def __init__(self) -> None:
        self.sink: Any = None
        """What the transport calls: the test's sink, with the fault around it."""
        self.end: Any = None
        """The end that the transport made, without the fault."""

    def config(self, config: Any) -> Any:
        """The options the transport really uses."""
        return config

    def hub_info(self, info: HubInfo) -> HubInfo:
        return info

    def agent_info(self, info: AgentInfo) -> AgentInfo:
        return info

    def plane(self, plane: Plane) -> Plane:
        return plane

    async def opened(self) -> None:
        """Called when the transport has opened the end and the caller does not have it yet."""

    async def open_connection(self, connection: Any) -> None:
        """Over the broker: connect."""
        await connection.open()

    def settings(self, settings: Mapping[str, str]) -> Mapping[str, str]:
        return settings

    def put_around_sink(self, sink: Any, around: type[Around] | None) -> Any:
        inner = sink if around is None else around(sink, self)
        self.sink = inner if self.AroundReply is None else _Replies(inner, self)
        return self.sink

    def put_around_end(self, end: Any, around: type[Around] | None) -> Any:
        self.end = end
        return end if around is None else around(end, self)


class _Replies(Around):
    """Puts ``AroundReply`` around the reply of each task and command."""

    def task_received(self, hub_id: str, incarnation: int, task: Any, reply: Any) -> None:
        self.inner.task_received(hub_id, incarnation, task, self.fault.AroundReply(reply, self.fault))

    def command_received(self, hub_id: str, incarnation: int, command: Any, reply: Any) -> None:
        self.inner.command_received(hub_id, incarnation, command, self.fault.AroundReply(reply, self.fault))


class Case(NamedTuple):
    """A fault and what must see it: ``test`` of the kit fails, and ``words`` are in the sentence it fails with."""

    fault: type[Fault]
    test: str
    words: str
    transport: str = "unix"
    arguments: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        return self.fault.__name__
