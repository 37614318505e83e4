"""The service keeps to the contract of services, and traces what services do too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.integration.gateway_serving import says
from tests.telemetry.otlp_receiver import told
from tests.telemetry.telemetry_bench import SAMPLED, telemetry

from anywire.context import Context
from anywire.engine import Delta
from anywire.offers import Offer, offers
from anywire.service import Service, ServiceConfig
from anywire.submission import Submission
from anywire.testing.service_kit import ServiceConformance
from anywire.tracing import TraceContext, read_trace
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.service import DeliberationService
from anywire_service_opentelemetry.ids import is_kept, new_span_id, new_trace_id

HEX = "0123456789abcdef"


class TestOpenTelemetry(ServiceConformance):
    service = "opentelemetry"
    options: ClassVar[dict[str, Any]] = {"endpoint": "http://127.0.0.1:9", "interval": 0.01}


async def test_a_deliberation_is_the_parent_of_its_tasks(tmp_path: Path) -> None:
    own = DeliberationService(DeliberationConfig())
    async with telemetry(says('{"scores": {}}'), more=[own], state=tmp_path) as bench:
        body: dict[str, Any] = {"model": "deliberate", "messages": [{"role": "user", "content": "How?"}]}
        body |= {"deliberation": {"members": 2, "rounds": 0}}
        headers = {"traceparent": SAMPLED}
        async with bench.http.post("/v1/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named("POST /v1/chat/completions"), "the request's span came")
        (whole,) = receiver.named("chat deliberate")
        members = receiver.named("chat m")
        assert len(members) >= 2
        assert {each.parent_span_id for each in members} == {whole.span_id}
        assert {each.kind for each in members} == {Span.SPAN_KIND_INTERNAL}, "they come from this process"
        assert {told(each.attributes)["anywire.parent"] for each in members} == {
            told(whole.attributes)["anywire.task.id"]
        }


async def test_tasks_that_a_service_makes_are_traced_as_their_parent_is(tmp_path: Path) -> None:
    class Doubling(Service):
        """Asks the model twice for each task, and says nothing of traces."""

        name = "doubling"

        async def start(self, context: Context) -> None:
            self.context = context

        async def close(self) -> None: ...

        def offers(self) -> tuple[Offer, ...]:
            return offers("doubled")

        async def answer(self, task_id: str, submission: Submission) -> AsyncIterator[Delta]:
            for _ in range(2):
                asked = Submission("chat", "m", submission.body, caller=submission.caller, parent=task_id)
                chunk = await self.context.submit(asked).result()
                yield Delta(chunk.deltas[0])

    engine = says("a")
    async with telemetry(engine, more=[Doubling(ServiceConfig())], state=tmp_path, ratio=0.0) as bench:
        await bench.chat({"traceparent": SAMPLED}, model="doubled")
        receiver = bench.receiver
        await receiver.until(lambda: receiver.named("POST /v1/chat/completions"), "the request's span came")
        (whole,) = receiver.named("chat doubled")
        assert [each.parent_span_id for each in receiver.named("chat m")] == [whole.span_id] * 2
        await bench.chat(model="doubled")
        assert [bool(task.trace) for task in engine.tasks] == [True, True, False, False]


@given(
    st.text(HEX, min_size=32, max_size=32).filter(lambda each: each.strip("0")),
    st.text(HEX, min_size=16, max_size=16).filter(lambda each: each.strip("0")),
    st.booleans(),
    st.text("abc=,1", max_size=20),
)
def test_a_trace_is_read_as_it_is_written(trace_id: str, span_id: str, sampled: bool, state: str) -> None:
    context = TraceContext(trace_id, span_id, sampled, state)
    assert read_trace(context.text) == context


@given(st.text(max_size=80))
def test_whatever_a_client_sends_as_trace_is_read_or_ignored(text: str) -> None:
    found = read_trace(text)
    assert found is None or read_trace(found.text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    ],
)
def test_what_the_standard_has_us_ignore_is_ignored(text: str) -> None:
    assert read_trace(text) is None


def test_a_version_to_come_is_read_as_far_as_it_is_known() -> None:
    found = read_trace("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more")
    assert found is not None
    assert found.sampled


def test_a_share_of_the_traces_is_kept() -> None:
    ids = [new_trace_id() for _ in range(4000)]
    assert all(len(each) == 32 for each in ids)
    assert len(new_span_id()) == 16
    for ratio in (0.0, 0.1, 0.5, 1.0):
        kept = {each for each in ids if is_kept(each, ratio)}
        assert abs(len(kept) / len(ids) - ratio) < 0.05
        assert kept <= {each for each in ids if is_kept(each, min(1.0, ratio + 0.1))}, "a greater share has it too"
