"""The pages on workloads and on captures are done as written."""

from __future__ import annotations

import pytest
from tests.integration.test_docs import DOCS, Reader, reader

__all__ = ["reader"]

pytestmark = pytest.mark.timeout(240)


async def test_the_page_of_workloads_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "workloads.md")
    report = (reader.folder / "records/agents/report.md").read_text()
    assert "Sessions of dependent requests: 2 to 6 (uniform) turns" in report
    assert "Time of one (ms)" in report


async def test_the_page_of_captures_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "capture.md")
    assert not reader.programs
    assert (reader.folder / "records/captured/results.json").exists()
