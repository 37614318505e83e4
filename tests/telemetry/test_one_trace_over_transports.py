"""One trace of a request over a real wire, with an attempt that was lost: processes, and an agent that is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.integration.anywire_processes import FOR_EVER, body, start, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE
from tests.telemetry.otlp_receiver import otlp_receiver, told
from tests.telemetry.telemetry_bench import PARENT_ID, SAMPLED, TRACE_ID
from tests.telemetry.test_traces import check_tree

__all__ = ["start"]  # a fixture

LEAST_S = 2.0
"""Of the answer that is measured: what a busy machine adds is small beside it."""


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@pytest.mark.parametrize("transport", ["dds", *["grpc", "http", "nats", "zeromq"] * SOAK])
async def test_two_attempts_over_a_wire_are_one_trace_whose_times_add_up(
    start: Callable[..., Any], options_of: Callable[[str], dict[str, Any]], tmp_path: Path, transport: str
) -> None:
    async with otlp_receiver() as receiver:
        settings = {
            "transports": {transport: options_of(transport)},
            "server": {"port": 0},
            "engine": {"name": "synthetic", "ttft": LEAST_S * 500, "itl": LEAST_S * 100, "length": 6},
            "lease": {"timeout": 3, "heartbeat_interval": 0.1},
            "services": {"opentelemetry": {"endpoint": receiver.url, "interval": 0.05}},
            "pipeline": {"retries": {"base": 0}},
        }
        path = tmp_path / "anywire.yaml"
        path.write_text(json.dumps(settings))
        options = ("--config", str(path))
        server = await start("serve", *options)
        await start("agent", "--agent-id", "good", *options)
        bad = await start("agent", "--agent-id", "bad", *options, "--set", f"engine.ttft={FOR_EVER}")
        headers = {"traceparent": SAMPLED, "tracestate": "a=1", "x-anywire-prefer": "bad"}
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            await until_agents(client, "good", "bad")
            began = time.monotonic()
            asked = asyncio.create_task(
                client.post("/v1/chat/completions", json=body(1, stream=False), headers=headers)
            )
            await until_agents(client, "good", "bad", in_flight=1)
            await bad.end(signal.SIGKILL)
            answer = await asked
            took = time.monotonic() - began
        assert answer.status_code == 200
        assert answer.headers["x-anywire-agent"] == "good"
        await receiver.until(lambda: receiver.named("POST /v1/chat/completions"), "the request's span came")
        spans = [each for each in receiver.spans if each.trace_id.hex() == TRACE_ID]
    root = check_tree(spans, PARENT_ID)
    named: dict[str, list[Span]] = {}
    for each in spans:
        named.setdefault(each.name, []).append(each)
    assert named.keys() - {"agent wait"} == {
        "POST /v1/chat/completions", "chat synthetic", "queue", "attempt 1", "attempt 2", "wire", "engine"
    }  # fmt: skip
    (lost,), (answered,) = named["attempt 1"], named["attempt 2"]
    assert lost.status.code == Status.STATUS_CODE_ERROR
    assert told(lost.attributes) | {"error.type": "agent_lost", "anywire.agent.id": "bad"} == told(lost.attributes)
    assert [each.span_id for each in answered.links] == [lost.span_id]
    assert told(answered.attributes)["anywire.transport"] == transport
    assert {each.trace_state for each in spans} == {"a=1"}
    (engine,) = named["engine"]
    assert receiver.resources[engine.span_id.hex()]["service.instance.id"] == "good"
    assert len(named["wire"]) == 2
    # What has nothing below it adds up to what the client has waited.
    parents = {each.parent_span_id for each in spans}
    parts = sum(seconds(each) for each in spans if each.span_id not in parents)
    assert took >= LEAST_S
    assert parts == pytest.approx(took, rel=0.05)
    assert seconds(root) == pytest.approx(took, rel=0.05)
