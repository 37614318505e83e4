"""What docs/how-to/nats-requests.md says is done as written, with the real nats-server."""

from __future__ import annotations

import re

import pytest
from tests.integration.nats_servers import needs_nats_server
from tests.integration.test_docs import DOCS
from tests.system import test_nats_docs
from tests.system.test_nats_docs import NatsReader

from anywire_service_nats.config_inbound import CollectorConfig, SubmissionsConfig, WorkerConfig

PAGE = DOCS / "how-to" / "nats-requests.md"
reader = test_nats_docs.reader
WHERE_IT_HAPPENS = {"anywire_nats_not_understood_total"}
"""Metrics that are there once there is something to count."""

pytestmark = [pytest.mark.timeout(150), needs_nats_server]


async def test_the_page_works_as_written(reader: NatsReader) -> None:
    await reader.follow(PAGE)
    assert len(reader.programs) == 2
    told = await reader.run(reader.here("curl -s http://127.0.0.1:8080/metrics"))
    listed = set(re.findall(r"`(anywire_nats_\w+)", PAGE.read_text()))
    assert {name for name in listed if f"\n{name}" not in told} <= WHERE_IT_HAPPENS


def test_the_page_names_settings_that_there_are() -> None:
    text = PAGE.read_text()
    known = {*CollectorConfig.model_fields, *SubmissionsConfig.model_fields, *WorkerConfig.model_fields}
    named = {
        "at_once",
        "durable",
        "keep_trying",
        "redelivery",
        "max_starts",
        "time_limit",
        "keep",
        "max_tasks",
        "keyless",
    }
    assert named <= known
    for name in named:
        assert f"`{name}" in text, name
    assert str(CollectorConfig().time_limit).removesuffix(".0") in text
