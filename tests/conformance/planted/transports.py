"""Transports with a fault: option ``fault`` names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.conformance.planted import (
    faults_commands,
    faults_ends,
    faults_hellos,
    faults_links,
    faults_messages,
    faults_pressure,
    faults_senders,
    faults_wires,
)
from tests.conformance.planted.broker_transport import BrokerConfig, BrokerTransport
from tests.conformance.planted.fault import Case, Fault

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport
from anywire_unix import UnixConfig, UnixTransport

CASES: list[Case] = [
    case
    for topic in (
        faults_links,
        faults_hellos,
        faults_messages,
        faults_commands,
        faults_senders,
        faults_pressure,
        faults_ends,
        faults_wires,
    )
    for case in topic.CASES
]
FAULTS: dict[str, type[Fault]] = {case.name: case.fault for case in CASES}


class FaultyUnixConfig(UnixConfig):
    fault: str = ""


class FaultyBrokerConfig(BrokerConfig):
    fault: str = ""


class _Faulty(Transport):
    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        fault = self._new_fault()
        planted = fault.put_around_sink(sink, fault.AroundHubSink)
        end = await super().open_hub(fault.hub_info(hub), fault.plane(plane), planted)  # type: ignore[safe-super]
        await fault.opened()
        hub_end: Hub = fault.put_around_end(end, fault.AroundHub)
        return hub_end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        fault = self._new_fault()
        planted = fault.put_around_sink(sink, fault.AroundAgentSink)
        end = await super().open_agent(fault.agent_info(info), fault.plane(plane), planted)  # type: ignore[safe-super]
        await fault.opened()
        port: AgentPort = fault.put_around_end(end, fault.AroundPort)
        return port

    def effective_settings(self) -> Mapping[str, str]:
        return FAULTS[self.config.fault]().settings(super().effective_settings())

    def _new_fault(self) -> Fault:
        self.fault = FAULTS[self.config.fault]()
        self.config = self.fault.config(self.config)
        return self.fault


class FaultyUnix(_Faulty, UnixTransport):
    name: ClassVar[str] = "faulty_unix"
    Config = FaultyUnixConfig


class FaultyNative(FaultyUnix):
    """The Unix transport, declared to be what it is not."""

    name: ClassVar[str] = "faulty_native"
    capabilities: ClassVar[Capabilities] = Capabilities(liveliness="native", discovery="native")


class FaultyBroker(_Faulty, BrokerTransport):
    name: ClassVar[str] = "faulty_broker"
    Config = FaultyBrokerConfig

    async def open_connection(self, connection: Any) -> None:
        if self.fault.FaultyChannel is not None:
            connection._new_channel = self.fault.FaultyChannel
        await self.fault.open_connection(connection)


TRANSPORTS: dict[str, type[Transport]] = {
    each.name: each for each in (BrokerTransport, FaultyUnix, FaultyNative, FaultyBroker)
}
