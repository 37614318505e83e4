"""Numbers that agents and plugins make up do not take `/metrics` and OTLP away from everybody else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pydantic
import pytest
from tests.integration.gateway_serving import says, serving
from tests.telemetry.telemetry_bench import Telemetry, telemetry

from anywire.context import Context
from anywire.engine import Delta
from anywire.measures.families import OTHER
from anywire.measures.histogram import MOST_SERIES, Histogram
from anywire.metric import Metric
from anywire.pipeline.observation.observation import MAX_TOKENS, token_counts
from anywire.roles.service_host import ServiceHost
from anywire.service import Service
from anywire_service_opentelemetry.config import OpenTelemetryConfig

HUGE = "1" + "0" * 400


class Teller(Service):
    name = "teller"

    def __init__(self, told: Iterable[Metric]) -> None:
        super().__init__(self.Config())
        self._told = told

    async def start(self, context: Context) -> None:
        pass

    async def close(self) -> None:
        pass

    def metrics(self) -> Iterable[Metric]:
        return self._told


async def scraped(bench: Telemetry) -> str:
    async with bench.http.get("/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_tokens_that_an_agent_makes_up_are_not_counted() -> None:
    usage = f'{{"prompt_tokens": {HUGE}, "completion_tokens": 2}}'
    async with telemetry(says(Delta("a", finish_reason="stop", usage=usage))) as bench:
        status, _, _ = await bench.chat()
        assert status == 200
        text = await scraped(bench)
        assert re.search(r'^anywire_tokens_total\{.*"input"\} 0\.0$', text, re.MULTILINE)
        await bench.receiver.until(lambda: "anywire.tokens" in bench.receiver.metrics, "numbers came")


@pytest.mark.parametrize("number", [MAX_TOKENS + 1, -1, int(HUGE)])
def test_what_is_no_number_of_tokens_counts_as_none(number: int) -> None:
    assert token_counts(f'{{"prompt_tokens": {number}, "completion_tokens": {MAX_TOKENS}}}') == (0, MAX_TOKENS)


async def test_numbers_of_a_plugin_that_cannot_be_shown_are_left_out() -> None:
    told = [
        Metric("huge", "Too large.", int(HUGE)),
        Metric("infinite", "No end.", float("inf")),
        Metric("nothing", "None.", float("nan")),
        Metric("label", "With a surrogate.", 1, {"name": "\ud800"}),
        Metric("text", "\udfff", 1),
        Metric("twice", "Two times.", 1, {"name": "a"}),
        Metric("twice", "Two times.", 2, {"name": "a"}),
        Metric("good", "It is good.", 3),
    ]
    async with serving(says(Delta("a", finish_reason="stop"))) as served:
        host = ServiceHost([Teller(told)], served.orchestrator, lambda name: served.context)
        await host.start()
        try:
            told_on = host.metrics()
        finally:
            await host.close()
        assert [(name, each.name, each.value) for name, each in told_on] == [
            ("teller", "twice", 1),
            ("teller", "good", 3),
        ]
        assert served.orchestrator.boundary.failures["service teller.metrics"] == 6


def test_a_flood_of_combinations_of_labels_is_counted_together() -> None:
    """An agent that offers many models, and fails with codes that it makes up, multiplies the two."""
    histogram = Histogram("h", "A histogram.", ("model", "error"), (1.0,))
    for model in range(100):
        for error in range(50):
            histogram.observe((f"m{model}", f"e{error}"), 0.5, ("a" * 32, "b" * 16))
    histogram.observe(("m0", "e0"), 2.0)
    samples = {each.labels: each for each in histogram.family().samples}
    assert len(samples) == MOST_SERIES + 1
    assert samples["m0", "e0"].counts == (1, 1)
    assert samples[OTHER, OTHER].counts == (5000 - MOST_SERIES, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://127.0.0.1:99999"},
        {"endpoint": "http://127.0.0.1:otlp"},
        {"endpoint": "http://127.0.0.1:0"},
        {"endpoint": "http://exam ple:4318"},
        {"headers": {"a b": "x"}},
        {"headers": {"": "x"}},
        {"headers": {"Content-Length": "3"}},
        {"headers": {"authorization": "Bearer a\r\nx-more: 1"}},
        {"headers": {"authorization": "Bearer \ud800"}},
    ],
)
def test_settings_with_which_nothing_could_be_sent_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"must be|has a name"):
        OpenTelemetryConfig(**wrong)
