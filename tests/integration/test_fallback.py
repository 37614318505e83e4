"""One agent, two wires: DDS preferred, HTTP beside it, on networks of their own, and the DDS one is cut under load."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.integration.two_hosts import REASON, UNAVAILABLE, TwoHosts
from tests.patience import PATIENCE

pytestmark = pytest.mark.skipif(UNAVAILABLE, reason=REASON)

LOAD = """
import asyncio, collections, json, sys
import httpx

async def main(url):
    counts, failed = collections.Counter(), []
    wanted = asyncio.Event()
    async def client(http, number):
        messages = [{"role": "user", "content": f"prompt {number}"}]
        body = {"model": "synthetic", "messages": messages, "stream": number % 2 == 1}
        expected = None
        while not wanted.is_set():
            text, wire = "", ""
            try:
                async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    wire = answer.headers.get("x-anywire-transport", "")
                    lines = [line async for line in answer.aiter_lines()]
                if answer.status_code != 200:
                    raise ValueError(lines)
                if body["stream"]:
                    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
                    if any("error" in event for event in events) or lines[-2] != "data: [DONE]":
                        raise ValueError(events[-1])
                    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
                else:
                    text = json.loads(lines[0])["choices"][0]["message"]["content"]
            except Exception as error:
                failed.append(f"{number} over {wire}: {error!r}"[:300])
                continue
            expected = expected or text
            if text != expected:
                failed.append(f"{number} over {wire}: another text")
            counts[wire] += 1
            print(json.dumps({"wire": wire}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        clients = [asyncio.create_task(client(http, number)) for number in range(8)]
        await reader.read()
        wanted.set()
        await asyncio.gather(*clients)
        stats = (await http.get("/api/v1/stats")).json()
    print(json.dumps({"counts": counts, "failed": failed, "stats": stats}), flush=True)

asyncio.run(main(sys.argv[1]))
"""


def settings(host: int, folder: Path) -> list[str]:
    """The arguments of a command on host 1 (the hub's) or 2 (the agent's)."""
    config = {
        "transports": [
            {"dds": {"domain": 7, "interface": f"10.77.1.{host}"}},
            {"http": {"agent_addresses": ["http://10.77.2.1:8090"], "agent_listen": f"http://10.77.2.{host}:0"}},
        ],
        "client_plane": False,
        "server": {"port": 0},
        "engine": {"name": "synthetic", "ttft": 20, "itl": 5, "length": 10},
        "agent": {"slots": 16},
        "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
        "pipeline": {"resume": True},
    }
    path = folder / f"host{host}.yaml"
    path.write_text(json.dumps(config))
    return ["--config", str(path)]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


@pytest.fixture
async def run(hosts: TwoHosts) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def start(host: int, *command: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                *hosts.on(host, sys.executable, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                await process.wait()

            stack.push_async_callback(end)
            return process

        yield start


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()


async def answers_over(load: asyncio.subprocess.Process, wire: str, count: int = 20) -> None:
    """Read answers until so many in a row came over ``wire``."""

    async def read() -> None:
        row = 0
        while row < count:
            row = row + 1 if json.loads(await line(load))["wire"] == wire else 0

    await asyncio.wait_for(read(), PATIENCE)


async def test_no_request_fails_when_the_preferred_wire_goes_and_comes_back(
    hosts: TwoHosts, run: Any, tmp_path: Path
) -> None:
    server = await run(1, "-m", "anywire.cli", "serve", *settings(1, tmp_path))
    url = (await line(server)).split()[1]
    agent = await run(2, "-m", "anywire.cli", "agent", "--agent-id", "a", *settings(2, tmp_path))
    assert (await line(agent)).startswith("ready: ")
    load = await run(1, "-c", LOAD, url)
    await answers_over(load, "dds")
    for _ in range(2):
        hosts.network(1, "down")
        await answers_over(load, "http")
        hosts.network(1, "up")
        await answers_over(load, "dds")
    load.stdin.close()
    *_, last = (await asyncio.wait_for(load.stdout.read(), PATIENCE)).decode().splitlines()
    result = json.loads(last)
    assert result["failed"] == []
    stats = result["stats"]
    # A stream that went on elsewhere has told its client of the wire it began on, and counts for the one it ended on.
    assert sum(stats["transports"].values()) == sum(result["counts"].values())
    moved = stats["transports"]["http"] - result["counts"]["http"]
    events = stats["events"]
    assert 0 <= moved <= events.get("retries", 0) + events.get("resumes", 0)
    assert set(stats["tasks"]["ended"]) == {"answered"}
    assert stats["events"]["fallbacks"] == 2
    assert stats["events"]["preferred_links_restored"] >= 2
