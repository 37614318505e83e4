"""With ``ANYWIRE_NOTHING_MISSING=1``, what is skipped because something is missing here fails; a pytest plugin.

The reason of such a skip begins with ``missing:``. What a test skips because it does not concern the transport, or the
user, that it runs with has another reason and stays skipped.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

STRICT = bool(os.environ.get("ANYWIRE_NOTHING_MISSING"))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_for_what_is_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_for_what_is_missing(report)
    return report


def _fail_for_what_is_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not STRICT or not report.skipped or not isinstance(report.longrepr, tuple):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if reason.startswith("missing:"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} cannot run here: {reason}"
