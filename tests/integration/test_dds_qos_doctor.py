"""What ``anywire doctor`` tells of the QoS of DDS."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire.testing.rig import Rig


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


async def doctor(file: Path, dds: dict[str, Any], *arguments: str) -> tuple[int | None, str]:
    settings = {"transports": {"dds": dds}, "server": {"port": 0}, "engine": "synthetic"}
    await asyncio.to_thread(file.write_text, json.dumps(settings))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", "doctor", "--config", str(file), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, out.decode()


async def findings(file: Path, dds: dict[str, Any]) -> dict[str, dict[str, Any]]:
    _, out = await doctor(file, dds, "--json")
    return {each["check"]: each for each in json.loads(out)}


async def test_the_qos_granted_and_the_options_in_force_are_shown(dds_domain: int, tmp_path: Path) -> None:
    dds = {"domain": dds_domain, "deadline": 2.5, "lifespan": 7, "shared_memory": "auto"}
    found = (await findings(tmp_path / "a.yaml", dds))["transport dds"]
    settings = found["settings"]
    assert found["state"] == "ok"
    assert settings["qos"] == "as shipped"
    assert "Deadline 2.5 s" in settings["agent/stream reader"]
    assert "Lifespan 7 s" in settings["agent/request writer"]
    assert settings["shared memory"].split(":")[0] in ("iceoryx", "not available")
    _, text = await doctor(tmp_path / "a.yaml", dds, "--settings")
    assert "agent/response reader: Durability.TransientLocal, History.KeepAll, Reliability.Reliable" in text


async def test_an_orchestrator_that_does_not_match_is_told_of_with_the_policy(
    rig: Rig, dds_domain: int, tmp_path: Path
) -> None:
    await rig.pipeline()
    found = await findings(tmp_path / "a.yaml", {"domain": dds_domain, "latency_budget": 0.05})
    here = found["orchestrator over dds"]
    assert here["state"] == "fail"
    assert "no orchestrator links an agent here" in here["detail"]
    assert "agent/response writer is not connected to 1 of its peers" in here["detail"]
    assert "LATENCY_BUDGET" in here["detail"]
    assert "compare `qos` and `latency_budget`" in here["remedy"]
    assert (await findings(tmp_path / "a.yaml", {"domain": dds_domain}))["orchestrator over dds"]["state"] == "ok"


async def test_a_refused_file_and_missing_shared_memory_are_failures_that_say_why(
    dds_domain: int, tmp_path: Path
) -> None:
    missing = {"domain": dds_domain, "qos": str(tmp_path / "none.xml")}
    assert "none.xml cannot be read" in (await findings(tmp_path / "a.yaml", missing))["transport dds"]["detail"]
    code, out = await doctor(tmp_path / "a.yaml", {"domain": dds_domain, "shared_memory": "on"})
    if code == 0:
        pytest.skip("shared memory is available here")
    assert "shared memory is not available, because" in " ".join(out.split())
