"""`/metrics` stays small, whatever clients make up."""

from __future__ import annotations

import asyncio

import aiohttp
from tests.integration.gateway_serving import MESSAGES, says, serving

from anywire.measures.families import OTHER
from anywire.measures.task_measures import MOST_TENANTS

FLOOD = MOST_TENANTS + 60


async def test_a_flood_of_tenants_and_models_over_http_makes_no_flood_of_labels() -> None:
    async with serving(says("a"), tenant_metrics=True) as served, aiohttp.ClientSession(served.url) as http:

        async def post(number: int) -> None:
            headers = {"x-anywire-tenant": f"tenant-{number}", "x-anywire-priority": str(number % 1000)}
            for model in ("m", f"made-up-{number}"):
                body = {"model": model, "messages": MESSAGES}
                async with http.post("/v1/chat/completions", json=body, headers=headers) as answer:
                    await answer.read()

        for begin in range(0, FLOOD, 20):
            await asyncio.gather(*(post(number) for number in range(begin, begin + 20)))
        async with http.get("/metrics") as answer:
            text = await answer.text()
    assert "made-up" not in text
    lines = [line for line in text.splitlines() if line.startswith("anywire_tenant_tasks_total")]
    assert len(lines) <= 2 * (MOST_TENANTS + 1)
    assert any(f'tenant="{OTHER}"' in line for line in lines)
