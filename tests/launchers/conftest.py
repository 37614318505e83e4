"""The launcher ``ray`` with a stand-in for Ray, which need not be installed."""

from pathlib import Path

import pytest


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process and those that it starts find the stand-in. Set ``RAY_STAND_IN`` with it to have something go
    wrong."""
    folder = str(Path(__file__).parent / "stand_in")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=":")
    return monkeypatch
