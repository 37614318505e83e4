"""What Prometheus's own tool says of `/metrics`, and of the rules of alerts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import body, start
from tests.integration.deployments import DEPLOY
from tests.telemetry.telemetry_bench import SAMPLED

__all__ = ["start"]  # a fixture

SERVICES: dict[str, Any] = {
    **{name: {} for name in ("alerts", "background", "cache", "conversations", "deliberation", "placement", "ui")},
    "opentelemetry": {"endpoint": "http://127.0.0.1:9"},
}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool", path=f"{os.environ['PATH']}{os.pathsep}/usr/bin")
    if found is None:
        pytest.skip("missing: promtool (apt-get install prometheus)")
    return found


def run(*command: object, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), input=given, capture_output=True, text=True, check=False)


async def test_promtool_finds_nothing_in_the_metrics(promtool: str, start: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "anywire.yaml"
    config.write_text(
        json.dumps(
            {
                "transports": "memory",
                "engine": "synthetic",
                "server": {"port": 0},
                "gateways": {"openai": {"tenant_metrics": True}},
                "services": SERVICES,
                "pipeline": {"agent_wait": 0.05},
            }
        )
    )
    up = await start("up", "--config", str(config))
    async with httpx.AsyncClient(base_url=up.url) as client:
        answers = await asyncio.gather(
            client.post("/v1/chat/completions", json=body(1, stream=True), headers={"traceparent": SAMPLED}),
            client.post("/v1/chat/completions", json=body(2, stream=False, model="nobody serves it")),
            client.post("/v1/chat/completions", json=body(3, stream=False, temperature="warm")),
        )
        assert [each.status_code for each in answers] == [200, 404, 400]
        text = (await client.get("/metrics")).text
    found = run(promtool, "check", "metrics", given=text)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_promtool_takes_the_rules_and_the_configuration(promtool: str, tmp_path: Path) -> None:
    rules = DEPLOY / "monitoring" / "alerts.yaml"
    found = run(promtool, "check", "rules", rules)
    assert found.returncode == 0, found.stdout + found.stderr
    folder = tmp_path / "monitoring"
    shutil.copytree(DEPLOY / "monitoring", folder)
    (tmp_path / "key").write_text("key")
    config = folder / "prometheus.yaml"
    config.write_text(config.read_text().replace("/run/secrets/scrape_key", str(tmp_path / "key")))
    found = run(promtool, "check", "config", config)
    assert found.returncode == 0, found.stdout + found.stderr
