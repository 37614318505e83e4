"""The address of a host changes while its agent runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.emulated_hosts import EmulatedHosts, emulated_hosts, needs_hosts

from anywire_experiment.network import Host
from anywire_experiment.network.hosts import run_on

pytestmark = [needs_hosts, pytest.mark.timeout(120)]


def config(transport: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "transports": [{transport: options}],
        "client_plane": False,
        "server": {"port": 0},
        "engine": {"name": "synthetic", "ttft": 0, "itl": 0, "length": 5},
    }


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[EmulatedHosts]:
    async with emulated_hosts(tmp_path) as made:
        yield made


async def give_another_address(host: Host) -> str:
    another = host.address.rpartition(".")[0] + ".99"
    await run_on(host, "ip", "address", "del", f"{host.address}/24", "dev", host.interface)
    await run_on(host, "ip", "address", "add", f"{another}/24", "dev", host.interface)
    await run_on(host, "ip", "route", "replace", "default", "dev", host.interface)
    return another


@pytest.mark.parametrize("transport", ["zeromq", "http", "grpc"])
async def test_the_agent_is_there_again(hosts: EmulatedHosts, transport: str) -> None:
    hub = hosts.hosts.orchestrator.address
    options: dict[str, dict[str, Any]] = {
        "zeromq": {"agent_addresses": [f"tcp://{hub}:7730"]},
        "http": {"agent_addresses": [f"http://{hub}:8090"]},
        "grpc": {"agent_addresses": [f"{hub}:7740"], "token": "a token of the tests"},
    }
    server, url = await hosts.serve(config(transport, options[transport]))
    agent = await hosts.agent(config(transport, options[transport]))
    await server.logs("agent a joined over")
    another = await give_another_address(hosts.hosts.agents)
    await server.logs("agent a joined over", times=2)
    assert (await hosts.ask(url, "after"))["status"] == 200
    if transport == "http":
        assert another in await agent.logs("the address of this machine has changed")


async def test_a_process_that_uses_dds_says_that_it_must_be_restarted(hosts: EmulatedHosts) -> None:
    both = hosts.hosts
    server, url = await hosts.serve(config("dds", {"domain": 7, "interface": both.orchestrator.interface}))
    options = {"domain": 7, "interface": both.agents.interface}
    agent = await hosts.agent(config("dds", options))
    await server.logs("agent a joined over")
    await give_another_address(both.agents)
    said = await agent.logs("does not have the address", "restart the process")
    assert f"the address {both.agents.address} any more" in said
    await agent.ended()
    await hosts.agent(config("dds", options))
    await server.logs("agent a joined over", times=2)
    assert (await hosts.ask(url, "after"))["status"] == 200
