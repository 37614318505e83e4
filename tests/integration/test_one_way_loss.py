"""Packets are lost in one direction and pass in the other: both ends notice, over every transport alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.integration.emulated_hosts import EmulatedHosts, Process, emulated_hosts, needs_hosts

from anywire_experiment.network import Host

pytestmark = [needs_hosts, pytest.mark.timeout(120)]

Towards = Literal["orchestrator", "agents"]
LEASE = 1.0


def config(transport: str, host: Host, hub: Host) -> dict[str, Any]:
    network: dict[str, dict[str, Any]] = {
        "dds": {"domain": 7, "interface": host.interface},
        "zeromq": {"agent_addresses": [f"tcp://{hub.address}:7730"]},
        "http": {"agent_addresses": [f"http://{hub.address}:8090"], "agent_listen": f"http://{host.address}:0"},
        "grpc": {"agent_addresses": [f"{hub.address}:7740"], "token": "a token of the tests"},
    }
    return {
        "transports": [{transport: network[transport]}],
        "client_plane": False,
        "server": {"port": 0},
        "engine": {"name": "synthetic", "ttft": 0, "itl": 0, "length": 5},
        "lease": {"timeout": LEASE, "heartbeat_interval": LEASE / 5},
    }


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[EmulatedHosts]:
    async with emulated_hosts(tmp_path) as made:
        yield made


async def fleet(hosts: EmulatedHosts, transport: str) -> tuple[Process, str, Process]:
    both = hosts.hosts
    server, url = await hosts.serve(config(transport, both.orchestrator, both.orchestrator))
    agent = await hosts.agent(config(transport, both.agents, both.orchestrator))
    assert (await hosts.ask(url, "before"))["status"] == 200
    return server, url, agent


@pytest.mark.parametrize("towards", ["orchestrator", "agents"])
@pytest.mark.parametrize("transport", ["dds", "zeromq", "http", "grpc"])
async def test_the_agent_is_lost_and_comes_back(hosts: EmulatedHosts, transport: str, towards: Towards) -> None:
    """While the way is cut: no request waits for an agent that only seems to be there."""
    server, url, _ = await fleet(hosts, transport)
    await hosts.hosts.cut(getattr(hosts.hosts, towards))
    await server.logs("link to agent a over", "lost")
    assert (await hosts.ask(url, "during"))["status"] == 503
    await hosts.hosts.restore()
    await server.logs("agent a joined over", times=2)
    assert (await hosts.ask(url, "after"))["status"] == 200


async def test_who_is_not_heard_is_told_so_over_dds(hosts: EmulatedHosts) -> None:
    """The one who still hears the other says why the link is lost."""
    server, _, agent = await fleet(hosts, "dds")
    await hosts.hosts.cut(hosts.hosts.agents)
    await server.logs("agent a does not hear this process", "packets to it are lost")
    await hosts.hosts.restore()
    await server.logs("agent a joined over", times=2)
    await hosts.hosts.cut(hosts.hosts.orchestrator)
    await agent.logs("does not hear this process", "packets to it are lost")
