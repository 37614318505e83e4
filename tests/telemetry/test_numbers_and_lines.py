"""Numbers and lines of the log by OTLP: the same as elsewhere, with the ids of traces."""

from __future__ import annotations

import logging
import threading
from typing import Any

import aiohttp
import pytest
from opentelemetry.semconv import schemas
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, service_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.gateway_serving import says
from tests.telemetry.otlp_receiver import told
from tests.telemetry.telemetry_bench import SAMPLED, TRACE_ID, telemetry

from anywire.engine import Delta
from anywire.events import TaskEnded
from anywire.measures.families import OTHER, BoundedNames, Family
from anywire.measures.measures import Measures
from anywire.measures.task_measures import MOST_MODELS, MOST_TENANTS, TaskMeasures
from anywire.stages import Stages
from anywire_service_opentelemetry import metric_encoding, names
from anywire_service_opentelemetry.log_lines import MAX_MESSAGE, Line, LineHandler
from anywire_service_opentelemetry.metric_encoding import otlp_name

USAGE = '{"prompt_tokens": 7, "completion_tokens": 2}'
ANSWER = (Delta("hello"), Delta(" world", finish_reason="stop", usage=USAGE))
DURATION = "gen_ai.server.request.duration"


def prometheus_name(name: str, unit: str, monotonic: bool) -> str:
    """What a collector that shows OTLP to Prometheus makes of a name."""
    made = name.replace(".", "_")
    made += {"s": "_seconds", "By": "_bytes", "": ""}[unit]
    return made + ("_total" if monotonic else "")


async def test_the_numbers_are_those_that_prometheus_reads() -> None:
    async with telemetry(says(*ANSWER), tenant_metrics=True, gateway={"tenant_metrics": True}) as bench:
        for _ in range(3):
            await bench.chat({"traceparent": SAMPLED})
        await bench.chat(messages="no")
        receiver = bench.receiver

        def counted() -> bool:
            found = receiver.metrics.get(DURATION)
            return found is not None and sum(each.count for each in found.histogram.data_points) == 3

        await receiver.until(counted, "three requests were counted")
        async with bench.http.get("/metrics") as answer:
            families = {each.name: each for each in text_string_to_metric_families(await answer.text())}
        for metric in receiver.metrics.values():
            shown = prometheus_name(metric.name, metric.unit, False)
            assert shown in families, metric.name
            kind = {"sum": "counter"}.get(str(metric.WhichOneof("data")), metric.WhichOneof("data"))
            assert families[shown].type == kind
        missing = families.keys() - {prometheus_name(each.name, each.unit, False) for each in receiver.metrics.values()}
        # Of HTTP the gateway tells under its own name.
        assert missing == {"anywire_request_errors", "anywire_websocket_connections"}
        (point,) = receiver.metrics[DURATION].histogram.data_points
        assert told(point.attributes)["gen_ai.request.model"] == "m"
        assert {each.trace_id.hex() for each in point.exemplars} == {TRACE_ID}
        tokens = {
            told(each.attributes)["gen_ai.token.type"]: each.as_double
            for each in receiver.metrics["anywire.tokens"].sum.data_points
        }
        assert tokens == {"input": 21, "output": 6}


async def test_buckets_have_the_trace_of_a_request_where_that_is_asked_for() -> None:
    async with telemetry(says(*ANSWER)) as bench:
        await bench.chat({"traceparent": SAMPLED})
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with bench.http.get("/metrics", headers=accept) as answer:
            lines = (await answer.text()).splitlines()
        with_trace = [each for each in lines if f'trace_id="{TRACE_ID}"' in each]
        assert [each for each in with_trace if each.startswith("gen_ai_server_request_duration_seconds_bucket")]
        async with bench.http.get("/metrics") as answer:
            assert TRACE_ID not in await answer.text()


async def test_lines_of_the_log_have_the_trace_of_their_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with telemetry(says(*ANSWER), metrics=False) as bench:
        await bench.chat({"traceparent": SAMPLED})
        thread = threading.Thread(target=logging.getLogger("anywire.test").warning, args=("from a thread %d", 3))
        thread.start()
        thread.join()
        receiver = bench.receiver

        def named(text: str) -> list[Any]:
            return [each for each in receiver.lines if text in each.body.string_value]

        await receiver.until(lambda: named("POST /v1/chat") and named("from a thread 3"), "both lines came")
        (line,) = named("POST /v1/chat")
        assert line.trace_id.hex() == TRACE_ID
        assert line.severity_text == "INFO"
        shown = told(line.attributes)
        assert shown["anywire.status"] == 200
        assert shown["anywire.trace"] == TRACE_ID
        assert not named("from a thread")[0].trace_id
        assert "secret words" not in str(receiver.lines)


async def test_secrets_and_lines_below_the_level_are_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anywire.test")
    async with telemetry(says(*ANSWER), metrics=False, logs="warning") as bench:
        log = logging.getLogger("anywire.test")
        log.info("quiet")
        log.warning("a key: %s", "sk-abcdefghijklmnopqrstuv")
        try:
            raise ValueError("sk-abcdefghijklmnopqrstuv")
        except ValueError:
            log.exception("broken")
        receiver = bench.receiver
        await receiver.until(lambda: len(receiver.lines) >= 2, "the lines came")
        assert "quiet" not in str(receiver.lines)
        assert "abcdefghijklmnop" not in str(receiver.lines)
        assert "ValueError" in str(receiver.lines)


def ended(number: int, model: str = "m", tenant: str = "", **more: Any) -> TaskEnded:
    return TaskEnded(
        id=f"x-{number}", at_ns=2_000_000, time=0.0, tenant=tenant, task_id=str(number), kind="chat", model=model,
        agent_id="a", transport="memory", attempts=1, error="", chunks=1, prompt_chars=1,
        stages=Stages(received=1_000_000, admitted=1_100_000, selected=1_200_000, sent=1_300_000), **more,
    )  # fmt: skip


def test_a_flood_of_models_and_tenants_makes_no_flood_of_labels() -> None:
    measures = TaskMeasures(names_tenants=True)
    for number in range(5000):
        measures.add(ended(number, f"model-{number}", f"tenant-{number}", tokens=1), f"model-{number}")
    for family in measures.families():
        assert len(family.samples) <= 2 * (max(MOST_MODELS, MOST_TENANTS) + 1), family.name
    tokens = next(each for each in measures.families() if each.name == "anywire_tokens")
    counted = dict(tokens.samples)  # type: ignore[arg-type]
    assert counted[OTHER, "output"] == 5000 - MOST_MODELS
    assert sum(value for (_, kind), value in counted.items() if kind == "output") == 5000


def test_the_first_names_keep_their_labels() -> None:
    named = BoundedNames(2)
    assert [named(each) for each in "abcab"] == ["a", "b", OTHER, "a", "b"]


def test_names_are_those_of_the_conventions_in_the_version_that_is_said() -> None:
    assert schemas.Schemas.V1_44_0.value == names.SCHEMA
    known = {
        value
        for module in (gen_ai_attributes, service_attributes, error_attributes, http_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    own = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    of_conventions = {each for each in own if each.startswith(("gen_ai.", "service.", "error.", "http."))}
    assert of_conventions
    assert of_conventions <= known
    measured = {value for name, value in vars(gen_ai_metrics).items() if name.isupper() and isinstance(value, str)}
    assert set(metric_encoding.CONVENTIONAL.values()) <= measured


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anywire_queue_length", ("anywire.queue_length", "")),
        ("anywire_queue_wait_seconds", ("anywire.queue_wait", "s")),
        ("anywire_alerts_free_bytes", ("anywire.alerts_free", "By")),
        ("gen_ai_server_request_duration_seconds", (DURATION, "s")),
    ],
)
def test_names_of_numbers(name: str, expected: tuple[str, str]) -> None:
    assert otlp_name(name) == expected


async def test_the_gateways_own_numbers_are_told_to_others_once() -> None:
    async with telemetry(says(*ANSWER)) as bench, aiohttp.ClientSession(bench.served.url) as http:
        async with http.post("/v1/chat/completions", json={"model": "m"}) as answer:
            assert answer.status == 400
        shown = {each.name: each.value for each in bench.served.gateway.metrics()}
        assert shown == {"websocket_connections": 0, "request_errors": 1}
        async with http.get("/metrics") as answer:
            text = await answer.text()
        assert "anywire_request_errors_total" in text
        assert "anywire_openai_request_errors_total" not in text


async def test_who_measures_in_the_same_way_shares_the_counts_and_leaves_nothing() -> None:
    async with telemetry(says(*ANSWER), ratio=0.0) as bench:
        context = bench.served.context
        bus = context.events
        before = len(bus._subscribers[TaskEnded])
        same, other = Measures(context), Measures(context, names_tenants=True)
        assert len(bus._subscribers[TaskEnded]) == before + 1
        await bench.chat()
        for each, names in ((same, False), (other, True)):
            families = {family.name: family for family in each.families()}
            tokens = families["anywire_tokens"]
            assert isinstance(tokens, Family)
            assert sum(value for _, value in tokens.samples) == 9
            assert ("anywire_tenant_tasks" in families) is names
            each.close()
            each.close()
        assert len(bus._subscribers[TaskEnded]) == before


def test_a_line_with_a_long_field_is_cut() -> None:
    kept = list[Line]()
    handler = LineHandler(logging.INFO, kept.append, lambda task_id: "")
    record = logging.LogRecord("own", logging.INFO, __file__, 1, "said", (), None)
    record.fields = {"text": "x" * 10 * MAX_MESSAGE, "number": 3}
    handler.handle(record)
    (line,) = kept
    assert line.attributes == {"logger": "own", "anywire.text": "x" * MAX_MESSAGE, "anywire.number": 3}
