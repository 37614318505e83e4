"""How long nobody serves when the active one of three orchestrators is killed: from ``kill -9`` to the first answer."""

import asyncio
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from anywire import Client
from standby_group import ACTIVE, LEASE, PATIENCE, TakeOver, answered_over_http, group, take_over

DEATHS = 10


def test_time_to_take_over(loop: asyncio.AbstractEventLoop, benchmark: Any, tmp_path: Path, domain: int) -> None:
    benchmark.group = "standby"
    times: list[TakeOver] = []

    async def run() -> None:
        async with group(tmp_path, domain) as fleet:
            await fleet.agents("a1", "a2")
            active = await fleet.active()
            standing = [await fleet.standby(), await fleet.standby()]
            http = httpx.AsyncClient(base_url=active.url, timeout=PATIENCE)
            async with Client("dds", domain=domain) as client, http:
                for _ in range(1 if benchmark.disabled else DEATHS):
                    await answered_over_http(http)
                    await client.models()
                    killed = time.monotonic()
                    await active.end(signal.SIGKILL)
                    times.append(await take_over(killed, client, http))
                    active = [each for each in standing if each.said(ACTIVE)][-1]
                    standing.remove(active)
                    standing.append(await fleet.standby())

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=1)
    for name in TakeOver._fields:
        found = sorted(getattr(each, name) for each in times)
        median, worst = statistics.median(found), found[-1]
        benchmark.extra_info |= {f"{name}_median_ms": round(median * 1e3), f"{name}_worst_ms": round(worst * 1e3)}
    print(f"\ntake-over, lease {LEASE * 1e3:.0f} ms, {len(times)} deaths: {benchmark.extra_info}")
