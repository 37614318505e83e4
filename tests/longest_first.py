"""Which files of tests begin first where several processes share them: those with tests that may take long, so that
none of these is still under way when all others have ended; a pytest plugin.

A test that may take longer than the timeout of all says so by its own, which is what is gone by. Among files alike
those with the most tests come first, as pytest-xdist has it.
"""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in the order in which they are collected."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return  # one process goes through them in the order of their names
    ordinary = float(config.getini("timeout"))
    tests = Counter(each.path for each in items)
    long = {each.path for each in items if _seconds(each, ordinary) > ordinary}
    items.sort(key=lambda each: (each.path not in long, -tests[each.path]))


def _seconds(item: pytest.Item, ordinary: float) -> float:
    """After which the test is ended."""
    marker = item.get_closest_marker("timeout")
    given = (*marker.args, marker.kwargs.get("timeout")) if marker is not None else ()
    return float(next((each for each in given if each is not None), ordinary))
