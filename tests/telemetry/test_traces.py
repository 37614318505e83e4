"""One trace of each request that is to be traced, and none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.integration.gateway_serving import ScriptedEngine, hangs, says
from tests.telemetry.otlp_receiver import told
from tests.telemetry.telemetry_bench import NOT_SAMPLED, PARENT_ID, SAMPLED, TRACE_ID, telemetry

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.events import AttemptEnded, TaskEnded
from anywire.measures.families import HistogramSample
from anywire.measures.task_measures import TaskMeasures
from anywire.messages import TaskRequest
from anywire.stages import Stages
from anywire_service_opentelemetry import tracer
from anywire_service_opentelemetry.config import OpenTelemetryConfig
from anywire_service_opentelemetry.encoding import spans_request
from anywire_service_opentelemetry.open_task import MAX_OTHERS, OpenTask
from anywire_service_opentelemetry.task_spans import attempt_span, task_spans

USAGE = '{"prompt_tokens": 7, "completion_tokens": 2}'
ANSWER = (Delta("hello"), Delta(" world", finish_reason="stop", usage=USAGE))
TREE = {"POST /v1/chat/completions", "chat m", "queue", "attempt 1", "wire", "engine"}


def by_id(spans: list[Span]) -> dict[str, Span]:
    return {each.span_id.hex(): each for each in spans}


def check_tree(spans: list[Span], root_parent: str = "") -> Span:
    """All are of one trace, below one root, and within the span above; the root."""
    known = by_id(spans)
    assert len(known) == len(spans)
    assert len({each.trace_id for each in spans}) == 1
    roots = [each for each in spans if each.parent_span_id.hex() not in known]
    assert [each.parent_span_id.hex() for each in roots] == [root_parent]
    for each in spans:
        above = known.get(each.parent_span_id.hex(), each)
        assert above.start_time_unix_nano <= each.start_time_unix_nano <= each.end_time_unix_nano
        assert each.end_time_unix_nano <= above.end_time_unix_nano + 2_000_000, (each.name, above.name)
    return roots[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_trace_from_the_gateway_to_the_engine(stream: bool) -> None:
    engine = says(*ANSWER)
    async with telemetry(engine) as bench:
        status, headers, _ = await bench.chat({"traceparent": SAMPLED, "tracestate": "a=1,b=2"}, stream=stream)
        assert status == 200
        assert headers["x-anywire-trace"] == TRACE_ID
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named("POST /v1/chat/completions"), "the request's span came")
        spans = receiver.spans
        assert {each.name for each in spans} - {"agent wait"} == TREE
        root = check_tree(spans, PARENT_ID)
        assert root.trace_id.hex() == TRACE_ID
        assert root.kind == Span.SPAN_KIND_SERVER
        assert told(root.attributes)["http.response.status_code"] == 200
        assert {each.trace_state for each in spans} == {"a=1,b=2"}
        (chat,), (attempt,) = receiver.named("chat m"), receiver.named("attempt 1")
        shown = told(chat.attributes)
        assert shown["gen_ai.operation.name"] == "chat"
        assert (shown["gen_ai.usage.input_tokens"], shown["gen_ai.usage.output_tokens"]) == (7, 2)
        assert shown["gen_ai.request.model"] == "m"
        assert shown["anywire.agent.id"] == "agent-1"
        assert told(attempt.attributes)["anywire.transport"] == "memory"
        # The engine is told the attempt, so what it traces itself is below that.
        assert engine.tasks[0].trace == f"00-{TRACE_ID}-{attempt.span_id.hex()}-01 a=1,b=2"
        (engines,) = receiver.named("engine")
        assert receiver.resources[engines.span_id.hex()]["service.name"] == "anywire-agent"
        assert receiver.resources[engines.span_id.hex()]["service.instance.id"] == "agent-1"
        assert receiver.resources[chat.span_id.hex()]["service.name"] == "anywire"
        assert [each.name for each in engines.events] == ["first token"]
        assert "secret words" not in str(spans)


async def test_a_client_without_a_trace_gets_one_by_the_ratio() -> None:
    engine = says(*ANSWER)
    async with telemetry(engine, ratio=1.0) as bench:
        _, headers, _ = await bench.chat()
        await bench.receiver.until(lambda: bench.receiver.named("POST /v1/chat/completions"), "the span came")
        root = check_tree(bench.receiver.spans)
        assert root.trace_id.hex() == headers["x-anywire-trace"]
    engine = says(*ANSWER)
    async with telemetry(engine, ratio=0.0) as bench:
        for given in ({}, {"traceparent": NOT_SAMPLED}, {"traceparent": "nonsense"}):
            _, headers, _ = await bench.chat(given)
            assert "x-anywire-trace" not in headers
        assert [task.trace for task in engine.tasks] == ["", NOT_SAMPLED, ""]
        assert not bench.served.orchestrator.events.wanted - {*_wanted_without_tracing()}
        _, headers, _ = await bench.chat({"traceparent": SAMPLED})
        assert headers["x-anywire-trace"] == TRACE_ID
        await bench.receiver.until(lambda: bench.receiver.named("POST /v1/chat/completions"), "the span came")
        assert {each.trace_id.hex() for each in bench.receiver.spans} == {TRACE_ID}


def _wanted_without_tracing() -> list[type[Any]]:
    """What observers of the tests, and those who count, subscribe to."""
    from anywire.events import AgentJoined, TaskAdmitted, TaskEnded

    return [AgentJoined, TaskAdmitted, TaskEnded]


async def test_clients_do_not_decide_where_that_is_set() -> None:
    engine = says(*ANSWER)
    async with telemetry(engine, ratio=0.0, follow_clients=False) as bench:
        _, headers, _ = await bench.chat({"traceparent": SAMPLED})
        assert "x-anywire-trace" not in headers
        assert engine.tasks[0].trace == SAMPLED, "it goes on as the client has sent it"
        assert not bench.receiver.spans


async def test_a_second_attempt_is_linked_to_the_first() -> None:
    broken, good = says(then=EngineFailed("it broke")), says(*ANSWER)
    async with telemetry(broken, good, pipeline={"retries": {"base": 0}}) as bench:
        status, _, _ = await bench.chat({"traceparent": SAMPLED, "x-anywire-prefer": "agent-1"})
        assert status == 200
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named("POST /v1/chat/completions"), "the request's span came")
        check_tree(receiver.spans, PARENT_ID)
        (first,), (second,) = receiver.named("attempt 1"), receiver.named("attempt 2")
        assert first.status.code == Status.STATUS_CODE_ERROR
        assert told(first.attributes)["error.type"] == "engine_failed"
        assert [each.span_id for each in second.links] == [first.span_id]
        assert told(second.links[0].attributes) == {"anywire.link": "retry"}
        assert second.status.code == Status.STATUS_CODE_UNSET
        (chat,) = receiver.named("chat m")
        assert [each.name for each in chat.events] == ["sent again"]
        assert len(receiver.named("queue")) == 2
        (engines,) = receiver.named("engine")
        assert engines.parent_span_id == second.span_id


@pytest.mark.parametrize(("ended_ns", "link"), [(0, "hedge"), (50, "retry"), (150, "hedge")])
def test_an_attempt_beside_another_one_is_no_retry(ended_ns: int, link: str) -> None:
    task = OpenTask("a" * 32, "b" * 16, "", "", "", 0, is_root=True)
    task.begin_attempt(1, "c" * 16, 10)
    task.attempts[1].is_sent = True
    task.begin_attempt(2, "d" * 16, 20)  # there was no room to send it
    task.begin_attempt(3, "e" * 16, 100)
    task.attempts[1].ended_ns = ended_ns
    ended = AttemptEnded(
        id="x-1", at_ns=200, time=0.0, task_id="t", attempt=3, agent_id="a", transport="memory", error="",
        first_ms=0.0, total_ms=0.0, chunks=1,
    )  # fmt: skip
    span = attempt_span(task, task.attempts[3], ended)
    assert [(each.span_id, each.attributes) for each in span.links] == [("c" * 16, {"anywire.link": link})]


async def test_errors_are_told_and_refusals_have_a_span_of_their_own() -> None:
    engine = says(then=EngineFailed("no"))
    async with telemetry(engine, pipeline={"max_attempts": 1}) as bench:
        assert (await bench.chat())[0] == 502
        assert (await bench.chat(messages="no"))[0] == 400
        receiver = bench.receiver
        await receiver.until(lambda: len(receiver.named("POST /v1/chat/completions")) == 2, "both spans came")
        failed, refused = receiver.named("POST /v1/chat/completions")
        assert failed.status.code == Status.STATUS_CODE_ERROR
        assert told(failed.attributes)["error.type"] == "engine_failed"
        assert refused.status.code == Status.STATUS_CODE_UNSET, "it is the client's fault"
        assert told(refused.attributes)["http.response.status_code"] == 400
        (chat,) = receiver.named("chat m")
        assert told(chat.attributes)["anywire.error.origin"] == "engine"


async def test_the_loser_of_two_attempts_is_told_after_the_task() -> None:
    """An attempt that is still being cancelled when its task ends gets its span all the same, and nothing is kept."""
    engine = hangs("a")
    async with telemetry(engine) as bench:
        raw = await bench.served.raw({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True})
        await raw.reader.readuntil(b"a")
        await raw.close()
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named("attempt 1"), "the attempt's span came")
        await receiver.until(lambda: receiver.named("chat m"), "the task's span came")
        assert told(receiver.named("attempt 1")[0].attributes)["error.type"] == "cancelled"
        spans = bench.service._tracer
        assert spans is not None
        assert not spans._open
        assert not spans._leaving


async def test_too_many_traces_at_once_are_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "MAX_OPEN", 1)
    go_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        await go_on.wait()
        yield Delta("a")

    engine = ScriptedEngine(script)
    async with telemetry(engine) as bench:
        asked = [asyncio.create_task(bench.chat()) for _ in range(3)]
        await bench.served.observer.submitted(3)
        numbers = {each.name: each.value for each in bench.service.metrics()}
        assert numbers["not_traced"] == 2
        go_on.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}
        await bench.receiver.until(lambda: len(bench.receiver.named("chat m")) == 1, "the one that was traced")


@pytest.mark.parametrize("content", [False, True])
async def test_texts_are_in_spans_only_where_that_is_set(content: bool) -> None:
    async with telemetry(says(*ANSWER), content=content, content_chars=2000) as bench:
        await bench.chat()
        await bench.receiver.until(lambda: bench.receiver.named("POST /v1/chat/completions"), "the span came")
        assert ("secret words" in str(bench.receiver.spans)) is content


async def test_a_plugin_that_raises_as_tracer_harms_no_task(caplog: pytest.LogCaptureFixture) -> None:
    engine = says(*ANSWER)
    async with telemetry(engine) as bench:
        spans = bench.service._tracer
        assert spans is not None

        def broken(*given: object) -> str:
            raise RuntimeError("broken")

        for name in ("begin", "task", "attempt"):
            setattr(spans, name, broken)
        assert (await bench.chat({"traceparent": SAMPLED}))[0] == 200
        assert engine.tasks[0].trace == SAMPLED
    assert "service opentelemetry.begin raised RuntimeError" in caplog.text


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:4318", "grpc://a", "http://user:password@a", "http://a?b=c", "http://"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        OpenTelemetryConfig(endpoint=endpoint)


TIMES = st.integers(0, 2**64 - 1)


@given(st.lists(TIMES, min_size=4, max_size=4), st.booleans(), st.text(max_size=20), st.integers(0, 2**70))
def test_whatever_an_agent_says_of_its_times_is_within_its_attempt(
    times: list[int], comparable: bool, agent: str, tokens: int
) -> None:
    task = OpenTask("a" * 32, "b" * 16, "", "a=1", "", 10**18, is_root=True)
    task.begin_attempt(1, "c" * 16, 1000)
    attempt = task.attempts[1]
    attempt.is_sent, attempt.ended_ns, attempt.agent_id = True, 9000, agent
    received, started, first, last = times
    stages = Stages(
        received=900, admitted=950, selected=1000, sent=1100, agent_received=received, engine_started=started,
        first_chunk=first, last_chunk=last, delivered=8000, comparable=comparable,
    )  # fmt: skip
    ended = TaskEnded(
        id="x-1", at_ns=9000, time=0.0, task_id="t", kind="chat", model=agent, agent_id=agent, transport="memory",
        attempts=1, error="", chunks=1, prompt_chars=1, stages=stages, tokens=tokens, stream=True,
    )  # fmt: skip
    spans = list(task_spans(task, ended))
    parts = [each for each in spans if each.parent == attempt.span_id]
    assert bool(parts) is bool(received)
    if parts:
        assert parts[0].start_ns == stages.sent + task.offset_ns
        assert parts[-1].end_ns == stages.delivered + task.offset_ns
        for one, other in pairwise(parts):
            assert one.start_ns <= one.end_ns == other.start_ns
    encoded = spans_request(spans, {}, {}, "0").SerializeToString()
    assert len(ExportTraceServiceRequest.FromString(encoded).resource_spans) >= 1
    measures = TaskMeasures()
    measures.add(ended, "m")
    assert all(
        sample.sum >= 0
        for each in measures.families()
        for sample in each.samples
        if isinstance(sample, HistogramSample)
    )


def test_an_attempt_has_links_to_the_newest_attempts_before_it() -> None:
    task = OpenTask("a" * 32, "b" * 16, "", "", "", 0, is_root=True)
    for number in range(1, 101):
        task.begin_attempt(number, f"{number:016x}", number)
    assert [each.number for each in task.attempts[3].others] == [1, 2]
    assert [each.number for each in task.attempts[100].others] == list(range(100 - MAX_OTHERS, 100))


APIS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": "hi"}], "stream": False}),
]


@pytest.mark.parametrize(("path", "body"), APIS, ids=[path for path, _ in APIS])
async def test_every_api_is_traced_alike(path: str, body: dict[str, Any]) -> None:
    async with telemetry(says(*ANSWER)) as bench:
        headers = {"traceparent": SAMPLED}
        async with bench.http.post(path, json={"model": "m"} | body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["x-anywire-trace"] == TRACE_ID
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named(f"POST {path}"), "the request's span came")
        root = check_tree(receiver.spans, PARENT_ID)
        assert root.name == f"POST {path}"
        assert len(receiver.named("engine")) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"messages": [{"role": "system", "content": "a"}, 3]}', '[{"role": "system", "parts": [{"type": "text", '
         '"content": "a"}]}]'),
        ('{"prompt": "b"}', '[{"role": "user", "parts": [{"type": "text", "content": "b"}]}]'),
        ('{"input": ["c"]}', '[{"role": "user", "parts": [{"type": "text", "content": ["c"]}]}]'),
        ('{"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": '
         '"d"}]}]}', '[{"role": "user", "parts": [{"type": "image_url"}, {"type": "text", "content": "d"}]}]'),
        ("[]", ""),
        ("nonsense", ""),
        ("[" * 100_000, ""),
        ('{"prompt": "' + "x" * tracer.MAX_READ + '"}', ""),
    ],
    ids=["chat", "completion", "embedding", "parts", "list", "no JSON", "deep", "large"],
)  # fmt: skip
def test_texts_of_every_request_are_read_or_left_out(body: str, expected: str) -> None:
    assert tracer.messages_text(body, 1000) == expected
    assert tracer.messages_text(body, 3) == expected[:3]
