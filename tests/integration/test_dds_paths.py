"""DDS over a path that carries small datagrams and drops the fragments of large ones, as VPNs and firewalls do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.emulated_hosts import EmulatedHosts, emulated_hosts, needs_hosts

from anywire_dds.config import LARGEST_DATAGRAM
from anywire_experiment.network import Host
from anywire_experiment.network.hosts import run_on

pytestmark = needs_hosts

LARGE = 40_000
"""Bytes of a prompt that needs many packets."""


def config(host: Host, **options: Any) -> dict[str, Any]:
    return {
        "transports": [{"dds": {"domain": 7, "interface": host.interface, **options}}],
        "client_plane": False,
        "server": {"port": 0},
        "engine": {"name": "synthetic", "ttft": 0, "itl": 0, "length": LARGE // 4},
    }


async def drop_fragments(host: Host) -> None:
    """Packets that come to this host in parts are never put together."""
    for limit in ("low", "high"):
        await run_on(host, "sh", "-c", f"echo 0 > /proc/sys/net/ipv4/ipfrag_{limit}_thresh")


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[EmulatedHosts]:
    async with emulated_hosts(tmp_path) as made:
        for host in (made.hosts.orchestrator, made.hosts.agents):
            await drop_fragments(host)
        yield made


async def test_large_prompts_and_answers_pass_by_default(hosts: EmulatedHosts) -> None:
    _, url = await hosts.serve(config(hosts.hosts.orchestrator))
    await hosts.agent(config(hosts.hosts.agents))
    answer = await hosts.ask(url, "x" * LARGE)
    assert answer["status"] == 200, answer
    assert len(json.loads(answer["text"])["choices"][0]["message"]["content"]) > LARGE // 2


@pytest.mark.parametrize("large", ["prompt", "answer"])
async def test_what_never_arrives_is_told_and_ends(hosts: EmulatedHosts, large: str) -> None:
    """With datagrams that need fragments: not a silent wait until the deadline."""
    options = {"datagram_bytes": LARGEST_DATAGRAM, "progress_timeout": 1.0}
    server, url = await hosts.serve({**config(hosts.hosts.orchestrator, **options), "pipeline": {"max_attempts": 1}})
    agent = await hosts.agent(config(hosts.hosts.agents, **options))
    answer = await hosts.ask(url, "x" * (LARGE if large == "prompt" else 1))
    assert answer["status"] >= 500, answer
    teller = server if large == "prompt" else agent
    said = await teller.logs("does not acknowledge what it is sent", "transports.dds.datagram_bytes")
    assert f"up to {LARGEST_DATAGRAM} bytes" in said
