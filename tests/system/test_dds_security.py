"""DDS Security with the Cyclone DDS of Debian: those with certificates meet, and nobody else meets them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.system import debian_cyclone
from tests.system.dds_documents import Authority

End = Callable[..., Coroutine[Any, Any, "Process"]]


class Process:
    """One end in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def says(self, line: str) -> None:
        """Wait until it has said this."""
        while line not in self.said:
            assert self._process.stdout is not None
            read = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
            assert read, f"it said {self.said} and not {line!r}, and ended: {await self.ends()}"
            self.said.append(read.decode().strip())

    async def ends(self) -> str:
        """All that it writes to standard error, after it has ended."""
        assert self._process.stderr is not None
        return (await asyncio.wait_for(self._process.stderr.read(), PATIENCE)).decode()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def let_group_read(path: str) -> None:
    Path(path).chmod(0o640)


@pytest.fixture(scope="session")
def cyclone() -> Path:
    """Where the Python package of Debian's Cyclone DDS is."""
    if reason := debian_cyclone.why_not():
        pytest.skip(reason)
    return debian_cyclone.build(Path(__file__).parents[2] / ".debian-cyclone")


@pytest.fixture
async def end(cyclone: Path, dds_domain: int) -> AsyncIterator[End]:
    async with AsyncExitStack() as stack:

        async def start(kind: str, name: str, security: dict[str, str] | None = None) -> Process:
            options = json.dumps({"domain": dds_domain, "fleet": "secured", "security": security})
            path = os.pathsep.join([str(cyclone), *sys.path])
            process = Process(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.system.secured_end", kind, name, options,
                    env={**os.environ, "PYTHONPATH": path}, stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )
            )  # fmt: skip
            stack.push_async_callback(process.stop)
            return process

        yield start


async def test_those_with_certificates_meet_and_nobody_else_meets_them(end: End, tmp_path: Path) -> None:
    """The plain ones, who are there first, meet each other, so that they can be seen."""
    authority = Authority(tmp_path)
    plain_hub, plain_agent = await end("hub", "plain-hub"), await end("agent", "plain-agent")
    await plain_hub.says("answered plain-agent from plain-agent")
    hub, agent = await end("hub", "h", authority.options("h")), await end("agent", "a", authority.options("a"))
    await hub.says("answered a from a")
    late_hub, late_agent = await end("hub", "late-hub"), await end("agent", "late-agent")
    await late_hub.says("answered plain-agent from plain-agent")
    await late_hub.says("answered late-agent from late-agent")
    late = authority.options("late")
    await end("agent", "late", late)
    await hub.says("answered late from late")
    assert sorted(each for each in hub.said if "answered" in each) == ["answered a from a", "answered late from late"]
    for plain in (plain_hub, late_hub):
        assert not [each for each in plain.said if "answered a " in each or "answered late " in each]
    await agent.says("joined h")
    for plain in (plain_agent, late_agent):
        await plain.says("joined late-hub")
        assert "joined h" not in plain.said
    assert "joined plain-hub" not in agent.said


async def test_those_of_another_authority_do_not_meet(end: End, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    hub = await end("hub", "h", authority.options("h"))
    foreign_hub = await end("hub", "foreign-hub", other.options("foreign-hub"))
    await end("agent", "foreign", other.options("foreign"))
    await foreign_hub.says("answered foreign from foreign")
    await end("agent", "a", authority.options("a"))
    await hub.says("answered a from a")
    assert [each for each in hub.said if "answered" in each] == ["answered a from a"]


async def test_a_private_key_that_others_may_read_is_refused(end: End, tmp_path: Path) -> None:
    options = Authority(tmp_path).options("h")
    let_group_read(options["private_key"])
    refused = await end("hub", "h", options)
    assert f"chmod 600 {options['private_key']}" in await refused.ends()
