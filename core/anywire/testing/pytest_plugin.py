"""The pytest plugin of Anywire: a fleet for the tests of an application.

    def test_my_application(anywire_fleet):
        answer = my_application.ask("hello", base_url=anywire_fleet.base_url)

It comes with the distribution ``anywire`` (``pip install 'anywire[testing]' anywire-gateway-openai``). The mark
``anywire_fleet`` has the settings of `anywire.testing.app_fleet.app_fleet`::

    @pytest.mark.anywire_fleet(agents=2, answers="tests/answers.jsonl")

A file that is not there is looked for from pytest's root folder.
What it needs is imported when a test asks for a fleet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from anywire.testing.app_fleet import AppFleet

MARK = "anywire_fleet"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARK}(agents=1, engine='synthetic', answers=None, transport='memory', services=(), pipeline=None, ...): "
        "settings of the fleet of the fixture anywire_fleet",
    )


@pytest.fixture
def anywire_transport() -> str:
    """Name of the transport over which the fleet meets its agents. Parametrize it, or replace it in a conftest.py."""
    return "memory"


@pytest.fixture
def anywire_fleet(request: pytest.FixtureRequest, anywire_transport: str) -> Iterator[AppFleet]:
    """A running fleet (`anywire.testing.app_fleet.AppFleet`), for this test alone."""
    from anywire.testing.app_fleet import app_fleet

    settings: dict[str, Any] = {"transport": anywire_transport}
    for mark in reversed(list(request.node.iter_markers(MARK))):
        if mark.args:
            raise pytest.UsageError(f"the mark {MARK} takes settings by name alone: {MARK}(agents=2)")
        settings |= mark.kwargs
    answers = settings.get("answers")
    if answers is not None and not Path(answers).exists():
        settings["answers"] = request.config.rootpath / answers
    with app_fleet(**settings) as fleet:
        yield fleet
