"""What the page of telemetry says is done as written, with real processes and a receiver."""

from __future__ import annotations

import pytest
from tests.integration.test_docs import DOCS, Reader, reader
from tests.telemetry.otlp_receiver import otlp_receiver

from anywire_service_opentelemetry.names import SCHEMA_VERSION
from anywire_service_opentelemetry.tracer import MAX_OPEN

__all__ = ["reader"]  # a fixture

pytestmark = pytest.mark.timeout(150)
PAGE = DOCS / "how-to" / "telemetry.md"


async def test_the_page_of_telemetry_works_as_written(reader: Reader) -> None:
    usual = reader.here
    async with otlp_receiver() as receiver:
        reader.here = lambda text: usual(text).replace(":4318", f":{receiver.port}")  # type: ignore[method-assign]
        await reader.follow(PAGE)
        assert not reader.programs
        assert {each.name for each in receiver.spans} >= {"POST /v1/chat/completions", "chat synthetic", "engine"}
        assert receiver.lines


def test_the_page_says_the_numbers_that_hold() -> None:
    text = PAGE.read_text()
    assert f"semantic conventions {SCHEMA_VERSION}" in text
    assert f"{MAX_OPEN:,} tasks" in text
