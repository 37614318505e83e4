"""A real collector takes what the service `opentelemetry` sends, and passes it on whole."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.gateway_serving import says
from tests.patience import PATIENCE
from tests.telemetry.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.telemetry.telemetry_bench import PARENT_ID, SAMPLED, telemetry
from tests.telemetry.test_traces import ANSWER, TREE, check_tree

from reserved import free_ports


def collector() -> Path:
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("missing: rotel (pip install rotel)")
    return Path(found.origin).with_name("rotel-agent")


@asynccontextmanager
async def collecting(receiver: OtlpReceiver) -> AsyncIterator[str]:
    """The address of a collector that passes everything on to ``receiver``."""
    program = collector()
    http, grpc = free_ports(2)
    process = await asyncio.create_subprocess_exec(
        *(str(program), "start", "--otlp-http-endpoint", f"127.0.0.1:{http}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-exporter-endpoint", receiver.url),
        *("--otlp-exporter-protocol", "http", "--otlp-exporter-compression", "none", "--batch-timeout", "50ms"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                assert process.returncode is None, "it has ended"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", http)
                except OSError:
                    await asyncio.sleep(0.05)  # a process that tells nobody
                    continue
                writer.close()
                break
        yield f"http://127.0.0.1:{http}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_collector_passes_on_a_whole_trace_with_numbers_and_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        otlp_receiver() as behind,
        collecting(behind) as address,
        telemetry(says(*ANSWER), endpoint=address) as bench,
    ):
        assert (await bench.chat({"traceparent": SAMPLED}))[0] == 200
        await behind.until(lambda: behind.named("POST /v1/chat/completions"), "the request's span came")
        await behind.until(lambda: {each.name for each in behind.spans} >= TREE, "all spans came")
        check_tree(behind.spans, PARENT_ID)
        await behind.until(lambda: "gen_ai.server.request.duration" in behind.metrics, "numbers came")
        await behind.until(lambda: behind.lines, "lines came")
        sent = {each.name: each.value for each in bench.service.metrics() if each.labels.get("signal") == "traces"}
        assert sent["dropped"] == sent["rejected"] == 0
