"""The transport ``predecessor``: agents that are HTTP servers and register at the gateway of that name.

It has an end for orchestrators only. An agent joins with its registration and is lost when it unregisters, takes no
connection, or is silent for ``heartbeat_timeout``. Its answers come whole.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import aiohttp
import msgspec
import pydantic

from anywire.errors import AgentUnavailable, AnywireError, TaskCancelled, UnknownCommand, to_wire
from anywire.identity import new_incarnation
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    HubInfo,
    TaskRequest,
    ToAgent,
)
from anywire.offers import Offer, offers_text
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire.transport_tools import BoundedOptions, check_payload
from anywire_gateway_predecessor.calls import Unreachable, ask

log = logging.getLogger(__name__)

MAX_AGENTS = 256
MAX_SLOTS = 1024
MAX_NAME_CHARS = 128
RESOLVE_S = 5.0
"""Seconds in which the name of an agent's host must be found."""
PREFIX = "predecessor:"
"""Before the name of an agent in its id here, so that it is never taken for another agent."""
_NOT_THERE = dict.fromkeys(("audio", "json", "logprobs", "tools"), False)


class NotAdmitted(Exception):
    """The agent may not register from there, or for that address."""


class Taken(Exception):
    """Another agent has that name and is alive."""


class PredecessorTransportConfig(BoundedOptions):
    """Times in seconds."""

    allow: list[str] = pydantic.Field(
        default=["127.0.0.0/8", "::1/128"],
        description="Networks that agents may register from, and that they may be called in. Default: this machine.",
    )
    heartbeat_timeout: float = pydantic.Field(
        default=60.0, gt=0, le=86_400, description="Seconds of silence after which an agent counts as lost."
    )
    call_timeout: float = pydantic.Field(
        default=120.0, gt=0, le=86_400, description="Seconds that an agent may take for an answer."
    )

    @pydantic.field_validator("allow")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for each in networks:
            ipaddress.ip_network(each)
        return networks


class Registered(msgspec.Struct, eq=False):
    """An agent that has joined. ``name`` is what it calls itself, ``host`` what it called its host, ``address`` the one
    that is called."""

    name: str
    host: str
    address: str
    port: int
    info: AgentInfo
    status: AgentStatus
    silence: asyncio.TimerHandle | None = None
    calls: dict[tuple[str, int], asyncio.Task[None]] = msgspec.field(default_factory=dict)

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"


class PredecessorTransport(Transport):
    name: ClassVar[str] = "predecessor"
    Config = PredecessorTransportConfig
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="directory")
    config: PredecessorTransportConfig

    def __init__(self, config: PredecessorTransportConfig) -> None:
        super().__init__(config)
        self._networks = [ipaddress.ip_network(each) for each in config.allow]
        self._hub: PredecessorHub | None = None

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = PredecessorHub(self.config, sink)
        if plane == "agent":
            self._hub = end
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        """An end that nobody can reach: agents of ours are reached over other transports."""
        return _NoPort()

    def effective_settings(self) -> Mapping[str, str]:
        return {"allow": ", ".join(self.config.allow)} | self.config.bounds() if self._hub is not None else {}

    @property
    def is_local(self) -> bool:
        return all(network.is_loopback for network in self._networks)

    @property
    def takes_any_agent(self) -> bool:
        """False: ``allow`` names those that are taken, by their addresses."""
        return False

    # Registrations, which the gateway hands over

    async def register(self, members: Mapping[str, Any], peer: str) -> str:
        """Take a registration that came from the address ``peer``; the agent's name. The same agent again is a
        heartbeat. Raises `NotAdmitted`, `Taken`, and `ValueError` for a registration that cannot be."""
        hub = self._open_hub()
        if not self._allowed(peer):
            raise NotAdmitted(f"agents from {peer or 'an unknown address'} are not taken here (allow)")
        name = _text(members, "agent_id") or str(uuid.uuid4())
        model = _text(members, "model")
        if not model or model == "unknown":
            raise ValueError("model must name the model that the agent serves")
        port = _number(members, "port", 0, 1, 65535)
        slots = _number(members, "slots_total", _number(members, "slots_idle", 1, 0, MAX_SLOTS), 0, MAX_SLOTS)
        host = _text(members, "hostname") or peer
        address = await self._resolved(host, port)
        offer = Offer(model, ("chat",), _NOT_THERE | {"vision": members.get("vision_enabled") is True})
        known = hub.agents.get(PREFIX + name)
        if known is not None and (known.address, known.port) != (address, port):
            raise Taken(f"an agent {name!r} is there already, at another address")
        if known is None and len(hub.agents) >= MAX_AGENTS:
            raise NotAdmitted(f"{MAX_AGENTS} agents have registered, which is the limit")
        hub.join(name, host, address, port, offer, max(slots, 1))
        return name

    def heartbeat(self, name: str, members: Mapping[str, Any]) -> bool:
        """False for an agent that is not registered (any more): it should register again."""
        return self._hub is not None and self._hub.heartbeat(PREFIX + name, members.get("status") == "error")

    def remove(self, name: str) -> bool:
        return self._hub is not None and self._hub.lose(PREFIX + name, "it has unregistered")

    def is_of(self, name: str, peer: str) -> bool:
        """Whether an agent of that name is called at the address ``peer``."""
        known = self.registered(PREFIX + name)
        return known is not None and known.address == peer

    def registered(self, agent_id: str) -> Registered | None:
        """The agent that has this id in the pipeline."""
        return self._hub.agents.get(agent_id) if self._hub is not None else None

    def _open_hub(self) -> PredecessorHub:
        if self._hub is None or self._hub.closed:
            raise NotAdmitted("this orchestrator takes no agents now")
        return self._hub

    def _allowed(self, address: str) -> bool:
        try:
            found: Any = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)

    async def _resolved(self, host: str, port: int) -> str:
        """The address to call, which is kept: a name may lead elsewhere later."""
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise ValueError(f"hostname {host!r} is not known here") from error
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            if not self._allowed(address):
                raise NotAdmitted(f"hostname {host!r} leads to {address}, where agents are not called (allow)")
        return addresses[0]


class PredecessorHub(Hub):
    """``agents`` are those that have joined, by id."""

    def __init__(self, config: PredecessorTransportConfig, sink: HubSink) -> None:
        self._config, self._sink = config, sink
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        self.agents: dict[str, Registered] = {}
        self.closed = False

    def join(self, name: str, host: str, address: str, port: int, offer: Offer, slots: int) -> None:
        """An agent has registered, or the same one again."""
        agent_id = PREFIX + name
        known = self.agents.get(agent_id)
        incarnation = known.info.incarnation if known is not None else new_incarnation()
        status = AgentStatus(agent_id, incarnation, offers=offers_text((offer,)), slots=slots)
        if known is None:
            info = AgentInfo(
                agent_id,
                incarnation,
                host=host,
                engine="predecessor",
                capabilities=("chat",),
                lease_ms=round(self._config.heartbeat_timeout * 1000),
            )
            known = self.agents[agent_id] = Registered(name, host, address, port, info, status)
            self._sink.agent_joined(info)
        known.status = status
        self._heard(known)
        self._sink.agent_reported(agent_id, incarnation, status)

    def heartbeat(self, agent_id: str, failed: bool) -> bool:
        agent = self.agents.get(agent_id)
        if agent is None:
            return False
        self._heard(agent)
        state = "failed" if failed else "ready"
        if agent.status.state != state:
            agent.status = msgspec.structs.replace(agent.status, state=state)
            self._sink.agent_reported(agent_id, agent.info.incarnation, agent.status)
        return True

    def lose(self, agent_id: str, reason: str) -> bool:
        agent = self.agents.pop(agent_id, None)
        if agent is None:
            return False
        if agent.silence is not None:
            agent.silence.cancel()
        for call in agent.calls.values():
            call.cancel("lost")
        agent.calls.clear()
        if not self.closed:
            self._sink.agent_lost(agent_id, agent.info.incarnation, reason)
        return True

    def send(self, agent_id: str, message: ToAgent) -> None:
        agent = self.agents.get(agent_id)
        if agent is None:
            raise AgentUnavailable(f"the agent {agent_id} is not there")
        check_payload(message, self._config.max_message_bytes)
        if isinstance(message, TaskRequest):
            key = (message.task_id, message.attempt)
            agent.calls[key] = call = self._loop.create_task(self._call(agent, message))
            call.add_done_callback(lambda done: agent.calls.pop(key, None))
        elif isinstance(message, Cancel):
            running = agent.calls.get((message.task_id, message.attempt))
            if running is not None:
                running.cancel(message.reason or "cancelled")
        elif isinstance(message, Command):
            error = UnknownCommand("agents of the predecessor take no commands")
            result = CommandResult(message.hub_id, message.id, 0, final=True, error=to_wire(error))
            self._loop.call_soon(self._result, agent, result)

    async def drain(self, agent_id: str) -> None:
        return

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        calls = [call for agent in self.agents.values() for call in agent.calls.values()]
        for agent_id in list(self.agents):
            self.lose(agent_id, "")
        await asyncio.gather(*calls, return_exceptions=True)
        await self._session.close()

    async def _call(self, agent: Registered, task: TaskRequest) -> None:
        names = (task.hub_id, task.task_id, task.attempt)
        seconds = self._config.call_timeout
        if task.time_left_ms:
            seconds = min(seconds, task.time_left_ms / 1e3)
        try:
            self._chunk(agent, Chunk(*names, 0))  # it has the attempt
            answer = await ask(self._session, agent.url, task, seconds, self._config.max_message_bytes)
        except Unreachable as error:
            del agent.calls[task.task_id, task.attempt]  # not cancelled with the others: it has ended
            self.lose(agent.info.agent_id, f"it takes no connection: {error}")
            return
        except AnywireError as error:
            self._chunk(agent, Chunk(*names, 0, final=True, error=to_wire(error)))
            return
        except asyncio.CancelledError as error:
            if self._is_linked(agent):
                cancelled = TaskCancelled(str(error) or "cancelled")
                self._chunk(agent, Chunk(*names, 0, final=True, error=to_wire(cancelled)))
            raise
        self._heard(agent)
        deltas = (answer.text,) if answer.text else ()
        self._chunk(
            agent,
            Chunk(*names, 0, deltas, final=True, finish_reason=answer.finish_reason, usage=answer.usage),
        )

    def _chunk(self, agent: Registered, chunk: Chunk) -> None:
        if self._is_linked(agent):
            self._sink.chunk_received(agent.info.agent_id, agent.info.incarnation, chunk)

    def _result(self, agent: Registered, result: CommandResult) -> None:
        if self._is_linked(agent):
            self._sink.result_received(agent.info.agent_id, agent.info.incarnation, result)

    def _is_linked(self, agent: Registered) -> bool:
        return not self.closed and self.agents.get(agent.info.agent_id) is agent

    def _heard(self, agent: Registered) -> None:
        if not self._is_linked(agent):
            return
        if agent.silence is not None:
            agent.silence.cancel()
        seconds = self._config.heartbeat_timeout
        agent.silence = self._loop.call_later(
            seconds, self.lose, agent.info.agent_id, f"it was silent for {seconds:g} s"
        )


class _NoPort(AgentPort):
    def report(self, status: AgentStatus) -> None:
        return

    async def close(self) -> None:
        return


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if (
        not isinstance(value, str)
        or len(value) > MAX_NAME_CHARS
        or not value.isprintable()
        or "/" in value * (name == "agent_id")
    ):
        raise ValueError(f"{name} must be a text of at most {MAX_NAME_CHARS} printable characters")
    return value


def _number(members: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = members.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}")
    return value
