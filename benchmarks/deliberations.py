"""How soon a deliberation has its id while many are under way, and what one costs.

    python benchmarks/deliberations.py [--transport zeromq] [--running 10 100 1000] [--submits 200] [--members 3]

``anywire serve`` runs with the service ``deliberation``, and ``anywire agent`` with a synthetic engine that takes 0.5
to 3.5 s for each piece of work. So many deliberations are begun, and while they are under way further ones are
submitted over HTTP, one each 20 ms: the times from the request to the id, in milliseconds. Told beside them is what
they cannot be shorter than on this machine at this time:

- ``http``: a request for the roles that a member can have, before each of them: it does nothing;
- ``disk``: a write and ``fsync`` of 4 KiB, by another process.

On a busy machine both the server and its client wait for a processor again and again. ``alone`` is each time without
what their main threads have waited so in it, as the kernel counts it: what the design takes, on a machine of its own.
It must be under `LIMIT_MS` at the 99th percentile.

Then, for all of them: tasks, tokens and bytes on the disk of one deliberation, the orchestrator's processor time and
memory for it, and the seconds from its id to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import httpx
import psutil
import yaml

from transport_stack import anywire_process, options_of

PATIENCE = 300.0
APART = 0.02
LIMIT_MS = 10.0


class Served(NamedTuple):
    url: str
    process: psutil.Process
    folder: Path

    @property
    def processor_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def waited_ms(self) -> float:
        """In which its main thread, or ours, could have run, and did not."""
        waited = (Path(f"/proc/{pid}/schedstat").read_text().split()[1] for pid in (self.process.pid, os.getpid()))
        return sum(map(int, waited)) / 1e6

    @property
    def memory_bytes(self) -> int:
        return int(self.process.memory_info().rss)


class Submitted(NamedTuple):
    """Milliseconds to each id, and of each request beside it; the same without waits for a processor."""

    submit: list[float]
    submit_alone: list[float]
    http: list[float]
    http_alone: list[float]


@asynccontextmanager
async def served(transport: str, options: dict[str, Any], running: int) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="anywire-") as name:
        folder = Path(name)
        shared: dict[str, Any] = {
            "transports": {transport: options},
            "lease": {"timeout": 10, "heartbeat_interval": 2},
            "log_level": "error",
        }
        deliberation = {"folder": str(folder / "kept"), "max_running": min(1000, 2 * running + 200)}
        serve = shared | {"server": {"port": 0}, "services": {"deliberation": deliberation}}
        slow = {"kind": "uniform", "mean": 2000, "spread": 1500}
        engine = {"name": "synthetic", "length": 40, "ttft": slow, "features": {"json": True}}
        (folder / "serve.yaml").write_text(yaml.safe_dump(serve))
        (folder / "agent.yaml").write_text(yaml.safe_dump(shared | {"engine": engine, "agent": {"slots": 4096}}))
        async with anywire_process("serve", "--config", str(folder / "serve.yaml")) as process:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            found = re.search(r"http://\S+", line)
            assert found, f"anywire serve said: {line!r}"
            async with anywire_process("agent", "--config", str(folder / "agent.yaml")):
                yield Served(found[0], psutil.Process(process.pid), folder)


async def submit(client: httpx.AsyncClient, members: int, number: int) -> float:
    """Milliseconds to the id, once there is room for one more."""
    request = {"task": f"Question {number}: why?", "members": members, "rubric": "answer", "timeout": PATIENCE}
    while True:
        began = perf_counter()
        answer = await client.post("/v1/deliberations", json=request)
        took = (perf_counter() - began) * 1e3
        if answer.status_code == 202:
            return took
        if answer.status_code != 429:
            raise AssertionError(answer.text)
        await asyncio.sleep(APART)


async def nothing(client: httpx.AsyncClient) -> float:
    """Milliseconds of a request that does nothing."""
    began = perf_counter()
    (await client.get("/v1/roles")).raise_for_status()
    return (perf_counter() - began) * 1e3


async def all_ended(client: httpx.AsyncClient) -> None:
    for status in ("submitted", "generating", "critiquing", "revising", "scoring"):
        while (await client.get("/v1/deliberations", params={"status": status, "limit": 1})).json()["data"]:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def agent_joined(client: httpx.AsyncClient) -> None:
    while not (await client.get("/v1/agents")).json()["data"]:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def submitted(client: httpx.AsyncClient, at: Served, members: int, numbers: range) -> Submitted:
    found = Submitted([], [], [], [])

    async def note(request: Awaitable[float], all_of_it: list[float], alone: list[float]) -> None:
        waited = at.waited_ms
        all_of_it.append(await request)
        alone.append(max(0.0, all_of_it[-1] - (at.waited_ms - waited)))

    for number in numbers:
        await note(nothing(client), found.http, found.http_alone)
        await note(submit(client, members, number), found.submit, found.submit_alone)
        await asyncio.sleep(APART)
    return found


async def measure(transport: str, running: int, submits: int, members: int) -> bool:
    """Print what was found; whether an id is told soon enough."""
    with options_of(transport) as options:
        async with (
            served(transport, options, running) as at,
            httpx.AsyncClient(base_url=at.url, timeout=PATIENCE) as client,
        ):
            await agent_joined(client)
            await nothing(client)
            used, memory = at.processor_seconds, at.memory_bytes
            # One after the other: where so many come at once, the first have ended before the last has begun.
            for number in range(running):
                await submit(client, members, number)
            disk = disk_ms(at.folder)
            found = await submitted(client, at, members, range(running, running + submits))
            memory = at.memory_bytes - memory
            await all_ended(client)
            used = at.processor_seconds - used
            costs = kept(at.folder)
    told: dict[str, Any] = {"running": running}
    for name, values in (*found._asdict().items(), ("disk", disk)):
        told |= {f"{name}_p50_ms": part(values, 0.5), f"{name}_p99_ms": part(values, 0.99)}
    told |= {"processor_ms_each": round(used * 1e3 / (running + submits), 1)}
    told |= {"memory_kib_each": round(memory / 1024 / (running + submits))}
    print(json.dumps(told | costs), flush=True)
    return part(found.submit_alone, 0.99) < LIMIT_MS


def kept(folder: Path) -> dict[str, Any]:
    """What is on the disk."""
    connection = sqlite3.connect(folder / "kept" / "deliberations.sqlite3")
    ((count, size),) = connection.execute(
        "SELECT COUNT(*), SUM(LENGTH(question) + LENGTH(state)) FROM deliberations"
    ).fetchall()
    ((works, bytes_),) = connection.execute("SELECT COUNT(*), SUM(LENGTH(data)) FROM works").fetchall()
    tokens = 0
    for (data,) in connection.execute("SELECT data FROM works WHERE part = 'answers'"):
        answer = json.loads(data)
        tokens += answer.get("prompt_tokens", 0) + answer.get("completion_tokens", 0)
    statuses = dict(connection.execute("SELECT status, COUNT(*) FROM deliberations GROUP BY status").fetchall())
    seconds = [each for (each,) in connection.execute("SELECT ended - submitted FROM deliberations")]
    connection.close()
    return {
        "seconds_p50": part(seconds, 0.5),
        "seconds_p99": part(seconds, 0.99),
        "tasks_each": round(works / count, 1),
        "tokens_each": round(tokens / count),
        "kept_bytes_each": round((size + bytes_) / count),
        "ended": statuses,
    }


def disk_ms(folder: Path) -> list[float]:
    found = []
    descriptor = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT)
    for _ in range(100):
        began = perf_counter()
        os.write(descriptor, b"x" * 4096)
        os.fsync(descriptor)
        found.append((perf_counter() - began) * 1e3)
    os.close(descriptor)
    return found


def part(values: Sequence[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="zeromq")
    parser.add_argument("--running", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--submits", type=int, default=200)
    parser.add_argument("--members", type=int, default=3)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {given.transport}, load average {os.getloadavg()[0]:.1f} before", flush=True)
    for running in given.running:
        held = asyncio.run(measure(given.transport, running, given.submits, given.members))
        if not held:
            print(f"with {running} under way the id came later than {LIMIT_MS:g} ms (99th percentile)", flush=True)


if __name__ == "__main__":
    main()
