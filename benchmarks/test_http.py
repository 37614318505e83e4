"""The whole way: HTTP in → orchestrator → DDS → synthetic agent at zero delay → HTTP out, on this machine.

``one``: one client; ``64``: sixty-four of them; ``streams``: 32 streams of 64 tokens, each token an event of its own.
"""

import asyncio
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_load import Result, load


@pytest.fixture
def url(tmp_path: Path, domain: int) -> Iterator[str]:
    """A server and one agent with 64 slots, over DDS."""
    path = tmp_path / "anywire.yaml"
    settings = {
        "server": {"port": 0},
        "transports": {"dds": {"domain": domain}},
        "engine": {"name": "synthetic", "length": 64},
        "agent": {"slots": 64},
        "log_level": "warning",
    }
    path.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "anywire.cli", "up", "--agents", "1", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        ready = up.stdout.readline()
        found = re.search(r"http://\S+", ready)
        assert found, ready
        yield found[0]
        up.terminate()
        up.wait(30)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("one", {"clients": 1, "requests": 2000}),
        ("64", {"clients": 64, "requests": 10_000}),
        ("streams", {"clients": 32, "requests": 1000, "stream": True, "tokens": 64}),
    ],
)
def test_http_over_dds(
    loop: asyncio.AbstractEventLoop, benchmark: Any, url: str, name: str, settings: dict[str, Any]
) -> None:
    benchmark.group = f"http {name}"
    results: list[Result] = []
    benchmark.pedantic(
        lambda: results.append(loop.run_until_complete(load(url, **settings))), rounds=5, warmup_rounds=1
    )
    times = [time for result in results for time in result.times]
    seconds = sum(result.seconds for result in results)
    benchmark.extra_info |= {
        "p50_us": round(statistics.median(times) * 1e6),
        "requests_per_s": round(len(times) / seconds),
        "tokens_per_s": round(sum(result.tokens for result in results) / seconds),
    }
    if settings.get("stream"):
        assert all(result.tokens == settings["requests"] * settings["tokens"] for result in results)
    print(f"\n{name}: {benchmark.extra_info}")
