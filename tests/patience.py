"""How long tests wait before they give up: no measure of speed. A pytest plugin multiplies its timeouts likewise.

All of it is multiplied by ``ANYWIRE_TEST_PATIENCE`` (a number, default 1), for machines that do other things too.
"""

from __future__ import annotations

import pytest
from tests.long_form import TIMES

from patience import FACTOR

__all__ = ["FACTOR", "PATIENCE"]

PATIENCE = 60.0 * FACTOR
"""Seconds until something is given up that other processes must do."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    factor = FACTOR * TIMES
    if factor == 1:
        return
    usual = config.getoption("timeout", None) or config.getini("timeout")
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker is not None else usual
        item.add_marker(pytest.mark.timeout(float(seconds or 0) * factor), append=False)
