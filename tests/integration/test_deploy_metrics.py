"""The dashboard and the rules of alerts ask for metrics that a gateway has, with labels that they have."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.anywire_processes import body, start
from tests.integration.deployments import DEPLOY
from tests.integration.nats_servers import needs_nats_server, serve
from tests.patience import PATIENCE

__all__ = ["serve", "start"]  # fixtures

PUBLISHED = "anywire_nats_published_messages_total{"
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that the scrape adds, and that of buckets."""
Asked = tuple[str, str]
"""Where something is asked, and the expression."""


def of_dashboard() -> Iterator[Asked]:
    for path in sorted((DEPLOY / "monitoring" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            yield f"{path.name}: ${variable['name']}", variable["query"]["query"]


def of_rules() -> Iterator[Asked]:
    for group in yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alerts.yaml: {rule['alert']}", rule["expr"]


ASKED = [*of_dashboard(), *of_rules()]


@pytest.fixture
async def exported(
    start: Callable[..., Any], serve: Callable[[str], Any], tmp_path: Path
) -> dict[str, set[str] | None]:
    """By the name of each sample that a gateway with all services shows after an answer and errors, its labels; None of
    a metric that has no sample yet."""
    server = await serve(f'jetstream {{store_dir: "{tmp_path}/jetstream"}}')
    config = tmp_path / "anywire.yaml"
    config.write_text(
        json.dumps(
            {
                "transports": "memory",
                "engine": "synthetic",
                "server": {"port": 0},
                "gateways": {"openai": {"tenant_metrics": True}},
                "services": {
                    "opentelemetry": {"endpoint": "http://127.0.0.1:9", "metrics": False},
                    **{name: {} for name in ("alerts", "background", "cache", "deliberation", "placement")},
                    "nats": {"servers": server.url, "folder": str(tmp_path / "nats")},
                },
                "pipeline": {"agent_wait": 0.05},
            }
        )
    )
    up = await start("up", "--config", str(config))
    async with httpx.AsyncClient(base_url=up.url) as client:
        answers = await asyncio.gather(
            client.post("/v1/chat/completions", json=body(1, stream=True)),
            client.post("/v1/chat/completions", json=body(2, stream=False, model="nobody serves it")),
            client.post("/v1/chat/completions", json=body(3, stream=False, temperature="warm")),
        )
        assert [each.status_code for each in answers] == [200, 404, 400]
        await client.post("/v1/deliberations", json={"task": "How?", "members": 2, "rounds": 0})
        async with asyncio.timeout(PATIENCE):
            while PUBLISHED not in (text := (await client.get("/metrics")).text):  # noqa: ASYNC110 - as a scraper does
                await asyncio.sleep(0.1)
    found: dict[str, set[str] | None] = {}
    for family in text_string_to_metric_families(text):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = None
        for sample in family.samples:
            found[sample.name] = (found.get(sample.name) or set()) | set(sample.labels)
    return found


@needs_nats_server
async def test_what_is_asked_for_is_exported(exported: dict[str, set[str] | None]) -> None:
    assert len(ASKED) > 30
    for where, expression in ASKED:
        bare = re.sub(r"\{[^}]*\}|\b(?:by|on)\s*\([^)]*\)", "", expression)
        names = set(re.findall(r"\b(?:anywire|gen_ai)_\w+", bare))
        assert names or "up{" in expression, where
        assert names <= exported.keys(), where
        labels = set()
        for chosen in re.findall(r"\{([^}]*)\}", expression):
            labels |= set(re.findall(r"(\w+)\s*(?:=|!)~?", chosen))
        for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            labels |= set(re.findall(r"\w+", grouped))
        known = [exported[name] for name in names]
        if None not in known:
            assert labels <= OF_PROMETHEUS.union(*(each for each in known if each)), where


def test_a_dashboard_is_loaded_and_shown_by_the_file_that_says_where() -> None:
    provider = yaml.safe_load((DEPLOY / "monitoring" / "dashboards.yaml").read_text())["providers"][0]
    source = yaml.safe_load((DEPLOY / "monitoring" / "datasources.yaml").read_text())["datasources"][0]
    grafana = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]["grafana"]
    assert provider["options"]["path"] in [each["target"] for each in grafana["volumes"]]
    for path in (DEPLOY / "monitoring" / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        assert {each["datasource"]["uid"] for each in board["panels"]} == {source["uid"]}
        ids = [each["id"] for each in board["panels"]]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, f"{panel['title']} lies over another one"
            taken |= cells


def test_each_alert_says_what_is_wrong() -> None:
    for group in yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]:
        names = [rule["alert"] for rule in group["rules"]]
        assert len(set(names)) == len(names)
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
