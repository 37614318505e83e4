"""An agent in C, written from ``idl/OrchestratorDDS.idl`` alone, beside a hub and a pipeline of ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.c_peers.toolchain import UNICAST, WARNINGS, needs_toolchain
from tests.patience import PATIENCE

import reserved
from anywire.errors import UnknownCommand
from anywire.identities.identity_proof import Identity
from anywire.messages import Cancel, HubInfo
from anywire.protocol import PROTOCOL, protocol_mismatch
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import RecordingHubSink
from anywire.testing.rig import Rig, request
from anywire_dds import DdsConfig, DdsTransport

ROOT = Path(__file__).parents[2]

pytestmark = needs_toolchain


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c_agent")
    subprocess.run(["idlc", "-o", folder, ROOT / "idl" / "OrchestratorDDS.idl"], check=True)
    sources = [ROOT / "tests" / "c_peers" / "agent.c", folder / "OrchestratorDDS.c"]
    subprocess.run(["gcc", *WARNINGS, f"-I{folder}", "-o", folder / "agent", *sources, "-lddsc"], check=True)
    return folder / "agent"


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """A domain of its own: one that is open has its settings already."""
    with reserved.dds_domain() as domain:
        yield {"domain": domain, "fleet": "default", "interface": "127.0.0.1", "multicast": "off"}


@pytest.fixture
async def rig(options: dict[str, Any]) -> AsyncIterator[Rig]:
    async with Rig("dds", options) as rig:
        yield rig


class CAgent:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)).decode().rstrip("\n")


@asynccontextmanager
async def c_agent(program: Path, options: dict[str, Any], protocol: str = PROTOCOL) -> AsyncIterator[CAgent]:
    process = await asyncio.create_subprocess_exec(
        *(program, str(options["domain"]), "default", "c", protocol),
        env={**os.environ, "CYCLONEDDS_URI": UNICAST},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield CAgent(process)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("who", [None, Identity(bytes(32))], ids=["a proof", "an identity"])
@pytest.mark.parametrize("protocol", [PROTOCOL, "2.0"])
async def test_a_task_and_commands_are_answered_from_c(
    program: Path, options: dict[str, Any], rig: Rig, protocol: str, who: Identity | None
) -> None:
    """The agent has no proof in its HELLO, as all of 2.0, and passes over that of the hub."""
    hub, sink, info = await rig.hub("h", proof="of the hub", who=who)
    async with c_agent(program, options, protocol) as agent:
        assert await agent.says() == f"found h speaks {PROTOCOL}"
        joined = await sink.event("joined", "c")
        assert (joined[3].protocol, joined[3].proof) == (protocol, "")
        assert await agent.says() == "joined h"
        hub.send("c", request(info, "t"))
        assert (await sink.final("t")).deltas == ("from C",)
        assert await agent.says() == "task t "
        hub.send("c", Cancel("h", "a command", 0))
        assert await agent.says() == "cancel a command 0"
    await sink.event("lost", "c")


async def test_results_of_a_command_stream_from_c(program: Path, options: dict[str, Any], rig: Rig) -> None:
    async with c_agent(program, options):
        pipeline = await rig.pipeline("c")
        results = [each async for each in pipeline.command(["c"], "count", {"to": 20})]
        assert results == list(range(20))
        with pytest.raises(UnknownCommand, match="can only count"):
            await anext(pipeline.command(["c"], "load"))


@pytest.mark.parametrize("theirs", ["3.0", "1.9"])
async def test_an_agent_in_c_and_a_hub_of_another_version_name_each_other(
    program: Path, options: dict[str, Any], theirs: str
) -> None:
    sink = RecordingHubSink()
    hub = await DdsTransport(DdsConfig(**options)).open_hub(HubInfo("h", 1), "agent", sink)
    with LogRecorder() as warnings:
        async with c_agent(program, options, theirs) as agent:
            assert await agent.says() == f"refused h speaks {PROTOCOL} this end {theirs}"
            assert protocol_mismatch(theirs) in await warnings.message("agent c is refused")
    assert not sink.events
    await hub.close()
