"""How soon a revoked key's streams have ended, and a revoked agent is lost.

    python benchmarks/revocation.py [--transport dds] [--streams 50] [--repeat 5]

``anywire serve`` runs with files of keys and of admitted ends, and ``anywire agent`` with an identity of its own. Each
time as many streams run with one key, which is then revoked: the times from that to the end of each stream. Then the
agent is revoked: the time until the events tell that it is lost. Both are in milliseconds. The command fails when a
stream took longer than a second, or the agent longer than its lease.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import httpx
import yaml

from anywire.identities.admitted import AdmittedEnd, change_admitted
from anywire.identities.identity_proof import Identity
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import KeyText, new_key
from transport_stack import anywire_process, options_of

PATIENCE = 120.0
LEASE = 1.0
TOKENS = 2_000
ASK = {"model": "synthetic", "max_tokens": TOKENS, "stream": True, "messages": [{"role": "user", "content": "on"}]}


class Fleet(NamedTuple):
    url: str
    operator: KeyText
    keys: Path
    admitted: Path
    agent: str
    """The fingerprint of its key."""

    def client(self, key: KeyText, connections: int = 10) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=connections)
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE, limits=limits)

    def admit(self) -> None:
        end = AdmittedEnd(self.agent, ids=("measured",), fixed=True)
        change_admitted(self.admitted, lambda admitted: admitted.with_end(end))


@asynccontextmanager
async def fleet(transport: str, options: dict[str, Any]) -> AsyncIterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="anywire-") as name:
        folder, operator = Path(name), new_key()
        keys, admitted = folder / "keys.json", folder / "admitted.json"
        add_key(keys, record_of(operator, role="operate"))
        print_ = Identity.from_file(folder / "agent.pem").fingerprint
        shared = {
            "transports": {transport: options},
            "lease": {"timeout": LEASE, "heartbeat_interval": LEASE / 4},
            "log_level": "error",
        }
        (folder / "serve.yaml").write_text(
            yaml.safe_dump(
                shared
                | {
                    "server": {"port": 0},
                    "access": {"keys": str(keys)},
                    "identity": {"key": str(folder / "serve.pem"), "admitted": str(admitted)},
                }
            )
        )
        engine = {"name": "synthetic", "length": TOKENS, "itl": 200}
        (folder / "agent.yaml").write_text(
            yaml.safe_dump(
                shared
                | {
                    "engine": engine,
                    "agent": {"id": "measured", "slots": 256},
                    "identity": {"key": str(folder / "agent.pem")},
                }
            )
        )
        async with anywire_process("serve", "--config", str(folder / "serve.yaml")) as process:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            found = re.search(r"http://\S+", line)
            assert found, f"anywire serve said: {line!r}"
            made = Fleet(found[0], operator, keys, admitted, print_)
            made.admit()
            async with anywire_process("agent", "--config", str(folder / "agent.yaml")):
                yield made


@asynccontextmanager
async def told(at: Fleet, event: str) -> AsyncIterator[AsyncIterator[str]]:
    """The events of this type from now on, a line each."""
    async with (
        at.client(at.operator) as client,
        client.stream("GET", "/v1/events", params={"types": event}) as events,
    ):
        lines = events.aiter_lines()
        await asyncio.wait_for(anext(lines), PATIENCE)  # a comment: it has begun
        yield (line async for line in lines if line.startswith("data:"))


async def joined(at: Fleet) -> None:
    async with told(at, "agent.joined") as events, at.client(at.operator) as client:
        if not (await client.get("/v1/agents")).json()["data"]:
            await asyncio.wait_for(anext(events), PATIENCE)


async def ends_of_streams(at: Fleet, streams: int) -> list[float]:
    key, began = new_key(), asyncio.Semaphore(0)
    async with told(at, "key.changed") as events:
        add_key(at.keys, record_of(key))
        await asyncio.wait_for(anext(events), PATIENCE)

    async def stream(client: httpx.AsyncClient) -> float:
        async with client.stream("POST", "/v1/chat/completions", json=ASK) as response:
            if response.status_code != 200:
                raise AssertionError((await response.aread()).decode())
            pieces = response.aiter_bytes()
            await anext(pieces)
            began.release()
            async for _ in pieces:
                pass
        return perf_counter()

    async with at.client(key, streams) as client:
        running = [asyncio.ensure_future(stream(client)) for _ in range(streams)]
        for _ in range(streams):
            await asyncio.wait_for(began.acquire(), PATIENCE)
        zero = perf_counter()
        revoke_keys(at.keys, [key.id])
        return [(end - zero) * 1e3 for end in await asyncio.wait_for(asyncio.gather(*running), PATIENCE)]


async def loss_of_agent(at: Fleet) -> float:
    async with told(at, "agent.lost") as events:
        zero = perf_counter()
        change_admitted(at.admitted, lambda admitted: admitted.without(at.agent))
        await asyncio.wait_for(anext(events), PATIENCE)
        return (perf_counter() - zero) * 1e3


async def measure(transport: str, streams: int, repeat: int) -> bool:
    """Print what was found; whether all held."""
    held = True
    with options_of(transport) as options:
        async with fleet(transport, options) as at:
            for number in range(1, repeat + 1):
                await joined(at)
                ends = sorted(await ends_of_streams(at, streams))
                lost = await loss_of_agent(at)
                at.admit()
                print(
                    f"{number}: {streams} streams ended after {ends[0]:.0f} to {ends[-1]:.0f} ms, "
                    f"median {ends[len(ends) // 2]:.0f}; the agent was lost after {lost:.0f} ms",
                    flush=True,
                )
                held = held and ends[-1] <= 1000 and lost <= LEASE * 1000
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="dds")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {given.transport}, load average {os.getloadavg()[0]:.1f} before")
    if not asyncio.run(measure(given.transport, given.streams, given.repeat)):
        sys.exit("a stream took longer than a second, or the agent longer than its lease")


if __name__ == "__main__":
    main()
