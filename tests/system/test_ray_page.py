"""The how-to of agents in a Ray cluster, done as written."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

from tests.system.own_network import own_network

from anywire.testing.launcher_kit import is_gone
from anywire.testing.patience import START_PATIENCE, expect

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ray.md"


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


async def test_agents_of_a_cluster_of_this_machine_answer_and_everything_ends_in_order() -> None:
    (command,) = re.findall(r"^    (anywire up .*--launcher ray .*)$", PAGE.read_text(), re.MULTILINE)
    arguments = shlex.split(command.replace("--agents 8", "--agents 2"))[1:]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments, "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    logged = asyncio.create_task(process.stderr.read())
    try:
        line = (await expect(process.stdout.readline(), "it is ready", 2 * START_PATIENCE)).decode()
        assert "2 agents" in line
        (url,) = re.findall(r"http://\S+:\d+", line)
        below = psutil.Process(process.pid).children(recursive=True)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            body = {"model": "synthetic", "messages": [{"role": "user", "content": "hi"}]}
            answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        assert await expect(process.wait(), "it ends", START_PATIENCE) == 0
        assert all(is_gone(each.pid) for each in below)
        told = (await logged).decode()
        assert told.count(" WARNING ") == 1
        assert "Ray listens on all interfaces" in told
        assert " ERROR " not in told
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        logged.cancel()
