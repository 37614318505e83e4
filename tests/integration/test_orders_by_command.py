"""``anywire drain``, ``isolate`` and ``restore`` as a user types them, with orchestrator and agents as processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import FOR_EVER, Process, body, start, until_agents
from tests.integration.test_migration import undisturbed
from tests.long_form import SOAK
from tests.patience import PATIENCE

__all__ = ["start"]  # a fixture

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | {"NO_COLOR": "1"}

pytestmark = pytest.mark.timeout(150)


async def anywire(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode, out.decode().strip(), err.decode().strip()


class Stream:
    """A streamed answer that is read beside the test."""

    def __init__(self, client: httpx.AsyncClient, prefer: str) -> None:
        self.agent = self.task_id = self.text = self.error = ""
        self.began = asyncio.Event()
        self.reading = asyncio.create_task(self._read(client, {"x-anywire-prefer": prefer} if prefer else {}))

    async def _read(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        asked = body(0, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as answer:
            self.agent, self.task_id = answer.headers["x-anywire-agent"], answer.headers["x-anywire-task"]
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    self.error = event["error"]["code"]
                    return
                self.text += event["choices"][0]["delta"].get("content", "")
                if self.text:
                    self.began.set()


async def begun(client: httpx.AsyncClient, prefer: str = "") -> Stream:
    stream = Stream(client, prefer)
    await asyncio.wait_for(stream.began.wait(), PATIENCE)
    return stream


async def ended(stream: Stream) -> None:
    await asyncio.wait_for(stream.reading, PATIENCE)


async def health(client: httpx.AsyncClient, agent_id: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = (await client.get("/v1/agents")).json()["data"]
    (found,) = [each["health"] for each in listed if each["id"] == agent_id]
    assert isinstance(found, dict)
    return found


async def agents_of(client: httpx.AsyncClient, stream: Stream) -> list[str]:
    """The agents that had its task, one after the other."""
    decisions = (await client.get(f"/v1/tasks/{stream.task_id}")).json()["decisions"]
    return [each["agent_id"] for each in decisions if each["agent_id"]]


@pytest.mark.parametrize("transport", ["zeromq", *["dds", "grpc", "http"] * SOAK])
async def test_agents_are_drained_isolated_and_restored_under_streams(
    transport: str, start: Any, tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> None:
    settings = {
        "transports": {transport: options_of(transport)},
        "server": {"port": 0},
        "engine": {"name": "synthetic", "itl": 100, "length": 30},
        "lease": {"timeout": 5.0, "heartbeat_interval": 0.2},
        "pipeline": {"next_token_timeout": 0},
    }
    path = tmp_path / "anywire.yaml"
    path.write_text(json.dumps(settings))
    config = ["--config", str(path)]
    server: Process = await start("serve", *config)
    await start("agent", "--agent-id", "a1", "--slots", "8", *config)
    # Its streams show one token, and go on elsewhere or not at all.
    await start("agent", "--agent-id", "a2", "--slots", "8", *config, "--set", f"engine.itl={FOR_EVER}")
    url = ["--url", server.url]
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        await until_agents(client, "a1", "a2")
        expected, _, _ = await undisturbed(body(0, stream=True), length=30)

        # Drained: what runs there ends there, and nothing new comes.
        stream = await begun(client, "a1")
        assert await anywire("drain", "a1", "--reason", "new disk", *url) == (0, "a1 is drained", "")
        assert (await health(client, "a1"))["reason"] == "new disk"
        _, table, _ = await anywire("agents", *url)
        (line,) = [each for each in table.splitlines() if each.startswith("a1")]
        assert " drained new disk " in line
        moved = [await begun(client, "a1") for _ in range(3)]
        assert {each.agent for each in moved} == {"a2"}
        await ended(stream)
        assert (stream.text, stream.error, stream.agent) == (expected, "", "a1")

        # Restored, by the client plane.
        assert await anywire("restore", "a1", "-t", transport, *config) == (0, "a1 is restored", "")
        assert (await health(client, "a1"))["order"] == ""

        # Isolated: what runs there goes on elsewhere, byte for byte.
        told = (await client.post("/v1/agents/a2/isolate", json={"reason": "wrong answers"})).json()
        assert (told["health"]["order"], told["health"]["reason"]) == ("isolated", "wrong answers")
        later = await begun(client, "a2")
        assert later.agent == "a1"
        await asyncio.gather(*map(ended, (*moved, later)))
        assert {(each.text, each.error) for each in (*moved, later)} == {(expected, "")}
        assert [await agents_of(client, each) for each in moved] == [["a2", "a1"]] * len(moved)

        # Restored: it gets tasks again.
        assert (await anywire("restore", "a2", *url))[0] == 0
        last = await begun(client, "a2")
        assert last.agent == "a2"
        last.reading.cancel()


async def test_an_order_is_answered_and_what_is_wrong_with_it_said_in_one_line(start: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text('{"transports": "memory", "engine": "synthetic", "server": {"port": 0}, "agents": [{"id": "a/1"}]}')
    server: Process = await start("up", "--config", str(path))
    code, out, err = await anywire("drain", "nobody", "--url", server.url)
    assert (code, out) == (1, "")
    assert "there is no agent 'nobody'" in err
    assert len(err.splitlines()) == 1
    assert await anywire("isolate", "a/1", "--url", server.url) == (0, "a/1 is isolated", "")
    code, out, _ = await anywire("restore", "a/1", "--json", "--reason", "it is well", "--url", server.url)
    assert (code, json.loads(out)["health"]["order"]) == (0, "")
