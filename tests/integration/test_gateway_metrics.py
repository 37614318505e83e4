"""``GET /metrics``: what a Prometheus server reads there is what happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, hangs, says, serving

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.events import TaskAdmitted
from anywire.measures.histogram import Histogram
from anywire.messages import TaskRequest
from anywire.metric import Metric as Told
from anywire_gateway_openai.metrics import shown

DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"


async def scrape(served: Served, path: str = "/metrics", accept: str = "") -> dict[str, Metric]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(served.url + path, headers={"Accept": accept} if accept else {}) as response,
    ):
        assert response.status == 200
        kind = response.headers["Content-Type"]
        assert kind.startswith("application/openmetrics-text" if accept else "text/plain")
        text = await response.text()
    return {family.name: family for family in (open_metrics if accept else prometheus)(text)}


def value(families: dict[str, Metric], name: str, suffix: str = "", **labels: str) -> float:
    """The sum of the samples with these labels."""
    found = [
        sample.value
        for sample in families[name].samples
        if sample.name == name + suffix and labels.items() <= sample.labels.items()
    ]
    return sum(found)


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics", "/api/v1/metrics"])
@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_before_the_first_request_everything_countable_is_there(path: str, accept: str) -> None:
    async with serving(says("x"), slots=3) as served:
        families = await scrape(served, path, accept)
        assert all(name.startswith(("anywire_", "gen_ai_server_")) for name in families)
        assert {DURATION, FIRST, PER_TOKEN, "anywire_queue_length", "anywire_websocket_connections"} <= families.keys()
        wasted = {"anywire_hedging_wasted_seconds", "anywire_hedging_wasted_tokens"}
        names = {name.removesuffix("_total") for name in families}
        assert {"anywire_hedges", "anywire_hedges_won", *wasted} <= names
        assert value(families, "anywire_agents", transport="memory", state="ready") == 1
        assert value(families, "anywire_slots", transport="memory") == 3
        for name in ("anywire_retries", "anywire_fallbacks", "anywire_stale_chunks"):
            (sample,) = [each for each in families[name].samples if each.name == f"{name}_total"]
            assert sample.value == 0
        assert value(families, "anywire_agents_joined", "_total") == 1


async def test_answers_streams_and_errors_are_counted_and_timed() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if "before" in task.body:
            raise EngineFailed("no")
        for text in "abcd":
            yield Delta(text)
            await asyncio.sleep(0)
        if "within" in task.body:
            raise EngineFailed("no")

    engine = ScriptedEngine(script)
    async with serving(engine) as served, served.client() as client, aiohttp.ClientSession() as session:

        async def post(path: str = "chat/completions", **fields: Any) -> None:
            body = {"model": "m", "messages": MESSAGES} | fields
            async with session.post(f"{served.url}/v1/{path}", json=body) as response:
                await response.read()

        for _ in range(3):
            await post()
        await post("completions", prompt="x")
        for _ in range(2):
            await post(stream=True)
        async with session.ws_connect(f"{served.url}/v1/ws/chat") as ws:
            await ws.send_str(json.dumps({"model": "m", "messages": MESSAGES}))
            while await ws.receive_str() != "[DONE]":
                pass
            assert value(await scrape(served), "anywire_websocket_connections") == 1
            await ws.send_str(json.dumps({"model": "m", "messages": MESSAGES, "stream": False}))
            while await ws.receive_str() != "[DONE]":
                pass
            await ws.send_str("nonsense")
            await ws.receive_str()
        for stream in (False, True):
            await post(user="before", stream=stream)
        await post(user="within", stream=True)
        await post(messages="no")
        await post(model="made up")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")

        families = await scrape(served)
        labels = {"transport": "memory", "gen_ai_request_model": "m", "gen_ai_operation_name": "chat",
                  "gen_ai_provider_name": "anywire"}  # fmt: skip
        assert value(families, DURATION, "_count", error_type="", **labels) == 3 + 2 + 2
        assert value(families, DURATION, "_count", gen_ai_operation_name="text_completion") == 1
        assert value(families, DURATION, "_count", error_type="engine_failed", gen_ai_request_model="m") == 3
        assert value(families, FIRST, "_count", **labels) == 3
        assert value(families, PER_TOKEN, "_count", **labels) == 3
        assert "made up" not in str(families)
        assert 0 < value(families, FIRST, "_sum") <= value(families, DURATION, "_sum")
        assert value(families, DURATION, "_bucket", le="+Inf") == 8 + 3
        assert value(families, "anywire_tasks", "_total", outcome="answered") == 8
        assert value(families, "anywire_tasks", "_total", outcome="engine_failed") == 3
        assert value(families, "anywire_task_errors", "_total", origin="engine", error="engine_failed") == 3
        assert value(families, "anywire_answers", "_total", transport="memory") == 8
        errors = {status: value(families, "anywire_request_errors", "_total", status=status) for status in
                  ("400", "404", "502")}  # fmt: skip
        assert errors == {"400": 2, "404": 2, "502": 2}
        assert value(families, "anywire_websocket_connections") == 0


async def test_a_client_that_goes_away_and_one_that_waits() -> None:
    engine = hangs("token")
    async with serving(engine, slots=1) as served:
        first = await served.raw({"model": "m", "messages": MESSAGES, "stream": True})
        await first.reader.readuntil(b"token")
        second = await served.raw({"model": "m", "messages": MESSAGES})
        await served.observer.submitted(2)
        families = await scrape(served)
        assert value(families, "anywire_queue_length") == 1
        assert value(families, "anywire_tasks_running") == 1
        await second.close()
        await first.close()
        await engine.cancelled.wait()
        families = await scrape(served)
        assert value(families, DURATION, "_count", error_type="cancelled", gen_ai_request_model="m") == 2
        assert value(families, "anywire_queue_length") == 0


@given(
    bounds=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8, unique=True).map(sorted),
    times=st.lists(st.floats(0, 2e3), max_size=30),
)
def test_a_histogram_counts_what_is_at_most_its_bounds(bounds: list[float], times: list[float]) -> None:
    histogram = Histogram("h", "text", ("who",), bounds)
    times += bounds[:2]  # a time on a bound belongs under it
    for seconds in times:
        histogram.observe(("m",), seconds)
    samples = shown(histogram.family()).samples
    found = {sample.labels["le"]: sample.value for sample in samples if sample.name == "h_bucket"}
    assert found == {str(bound): sum(each <= bound for each in times) for bound in bounds} | {"+Inf": len(times)}
    assert [sample.value for sample in samples if sample.name == "h_sum"] == [pytest.approx(sum(times))]


async def test_waits_are_told_by_tenant_and_priority_and_shares_of_who_is_backlogged() -> None:
    begun, go_on, all_in = asyncio.Event(), asyncio.Event(), asyncio.Event()
    admitted: list[TaskAdmitted] = []

    def task_admitted(event: TaskAdmitted) -> None:
        admitted.append(event)
        if len(admitted) == 3:
            all_in.set()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        begun.set()
        await go_on.wait()
        yield Delta("a")

    engine = ScriptedEngine(script)
    async with serving(engine, slots=1, tenant_metrics=True) as served, aiohttp.ClientSession() as session:

        async def post(tenant: str, priority: int) -> None:
            headers = {"x-anywire-tenant": tenant, "x-anywire-priority": str(priority)}
            body = {"model": "m", "messages": MESSAGES}
            async with session.post(f"{served.url}/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200

        served.context.events.subscribe("test", task_admitted, TaskAdmitted)
        asked = [asyncio.create_task(post("acme", 0))]
        await begun.wait()
        asked += [asyncio.create_task(post(tenant, 5)) for tenant in ("acme", "other")]
        await all_in.wait()
        families = await scrape(served)
        waits = "anywire_longest_wait_seconds"
        assert {tuple(sorted(each.labels.items())) for each in families[waits].samples} >= {
            (("priority", "5"), ("tenant", "other"))
        }
        go_on.set()
        await asyncio.gather(*asked)
        families = await scrape(served)
        assert value(families, waits, tenant="acme", priority="5") > value(families, waits, tenant="acme", priority="0")
        assert value(families, waits, tenant="other", priority="5") > 0
        assert 0 < value(families, "anywire_fairness_index") <= 1
        assert value(families, "anywire_backlogged_tenants") <= 2


async def test_tenants_are_named_in_no_label_unless_that_is_set() -> None:
    async with serving(says("a")) as served, aiohttp.ClientSession() as session:
        for tenant in ("acme", "other"):
            body = {"model": "m", "messages": MESSAGES}
            headers = {"x-anywire-tenant": tenant}
            async with session.post(f"{served.url}/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
        families = await scrape(served)
        waits = families["anywire_longest_wait_seconds"].samples
        assert [each.labels for each in waits] == [{"priority": "0"}]
        assert waits[0].value > 0


class Telling(NamedTuple):
    told: Sequence[tuple[str, Told]]

    def get(self, name: str) -> None:
        return None

    def metrics(self) -> Sequence[tuple[str, Told]]:
        return self.told


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_services_tell_numbers_of_their_own(accept: str) -> None:
    told = [
        ("my-service", Told("free_bytes", "Bytes that are free.", 3.0, {"disk": 'a"b\n'})),
        ("my-service", Told("free_bytes", "Bytes that are free.", 4.0, {"disk": "c"})),
        ("my-service", Told("runs", "Runs.", 2, counter=True)),
    ]
    async with serving(says("x"), services=Telling(told)) as served:
        families = await scrape(served, accept=accept)
        assert value(families, "anywire_my_service_free_bytes") == 7.0
        assert value(families, "anywire_my_service_free_bytes", disk="c") == 4.0
        assert value(families, "anywire_my_service_runs", "_total") == 2
