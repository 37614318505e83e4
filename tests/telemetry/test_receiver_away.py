"""A receiver that is away, slow, or says no: nobody is slowed, what is kept is bounded, what is lost is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_serving import says
from tests.telemetry.otlp_receiver import otlp_receiver
from tests.telemetry.telemetry_bench import telemetry

import reserved
from anywire.testing.patience import expect, polled
from anywire_service_opentelemetry import outbox
from anywire_service_opentelemetry.outbox import Outbox
from anywire_service_opentelemetry.receiver import Outcome, Receiver

OF_SENDING = "cannot be sent to OpenTelemetry"


def numbers(bench: Any, signal: str) -> dict[str, float]:
    return {each.name: each.value for each in bench.service.metrics() if each.labels.get("signal") == signal}


async def test_nobody_waits_for_a_receiver_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = reserved.free_ports(1)
    caplog.set_level(logging.INFO)
    async with telemetry(says("a"), endpoint=f"http://127.0.0.1:{port}", logs="off", buffer=100) as bench:
        for _ in range(40):  # five spans and more of each
            assert (await bench.chat())[0] == 200
        await polled(lambda: numbers(bench, "traces")["failed_requests"] > 0, "sending has failed")
        told = numbers(bench, "traces")
        assert told["waiting"] <= 100
        assert told["dropped"] > 0
        assert told["sent"] == 0
        lines = [each.getMessage() for each in caplog.records if OF_SENDING in each.getMessage()]
        assert sum("spans" in each for each in lines) == 1
        async with otlp_receiver(port) as receiver:
            await receiver.until(lambda: len(receiver.spans) >= 100, "what was kept came")
            await polled(lambda: "spans are sent to OpenTelemetry again" in caplog.text, "that is said")
            before = numbers(bench, "traces")["sent"]
            await bench.chat()
            await receiver.until(lambda: len(receiver.spans) > before, "further spans come")


async def test_a_receiver_that_hangs_holds_up_no_request_and_no_end() -> None:
    async with telemetry(says("a")) as bench:
        bench.receiver.hold = asyncio.Event()
        for _ in range(20):
            assert (await bench.chat())[0] == 200
        await bench.receiver.until(lambda: bench.receiver.requests, "it was asked")
        await expect(bench.service.close(), "the service closes")


async def test_what_the_receiver_refuses_is_dropped_and_counted() -> None:
    async with telemetry(says("a"), metrics=False, logs="off") as bench:
        bench.receiver.status = 400
        await bench.chat()
        await polled(lambda: numbers(bench, "traces")["dropped"] >= 5, "they were dropped")
        assert numbers(bench, "traces")["waiting"] == 0


async def test_headers_are_sent_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "Bearer q8rt7vw2xz9k4m1p"
    async with telemetry(says("a"), headers={"authorization": secret}) as bench:
        await bench.chat()
        await bench.receiver.until(lambda: bench.receiver.spans, "spans came")
        assert bench.receiver.headers[0]["authorization"] == secret
        assert secret not in repr(bench.service.config)
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("status", "again"), [(200, False), (400, False), (404, False), (429, True), (502, True), (503, True), (504, True)]
)
async def test_what_is_sent_again_is_what_otlp_says(status: int, again: bool) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    async with otlp_receiver() as at:
        at.status = status
        receiver = Receiver(at.url, {}, None, 10)
        assert (await receiver.send("traces", ExportTraceServiceRequest())).fault, "it is not open"
        receiver.open()
        outcome = await receiver.send("traces", ExportTraceServiceRequest())
        await receiver.close()
        assert outcome.again is again
        assert bool(outcome.fault) is (status != 200)


@given(
    st.lists(st.sampled_from(["taken", "again", "refused", "raises"]), max_size=6),
    st.integers(1, 40),
    st.integers(5, 30),
)
def test_every_item_is_sent_dropped_or_waits(outcomes: list[str], items: int, size: int) -> None:
    """Whatever the receiver does: each item is in one of the three, in order, and none is sent twice."""
    taken: list[int] = []

    async def send(batch: Sequence[int]) -> Outcome:
        how = outcomes.pop(0) if outcomes else "taken"
        if how == "raises":
            raise RuntimeError("broken")
        if how == "taken":
            taken.extend(batch)
            return Outcome()
        return Outcome("no", again=how == "again")

    async def run() -> None:
        box: Outbox[int] = Outbox("items", size, 0.0001, send)
        box.start()
        for number in range(items):
            box.put(number)
            assert box.waiting <= size
            if number % 7 == 0:
                await asyncio.sleep(0)
        await box.close()
        assert box.sent + box.dropped == items
        assert box.sent == len(taken)
        assert taken == sorted(set(taken))
        assert box.waiting == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "FIRST_PAUSE", 0.0001)
        patch.setattr(outbox, "BATCH", 4)
        asyncio.run(run())


async def test_a_request_with_long_texts_has_fewer_parts() -> None:
    """Receivers refuse requests of many megabytes, whole."""
    sizes = list[int]()

    async def send(items: Sequence[str]) -> Outcome:
        sizes.append(sum(map(len, items)))
        return Outcome()

    box = Outbox[str]("texts", 1000, 0.01, send, chars=500_000)
    box.start()
    for _ in range(20):
        box.put("x" * 500_000)
    await polled(lambda: box.sent == 20, "all were sent")
    await box.close()
    assert max(sizes) <= outbox.BATCH_CHARS
