"""One browser for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.ui.viewer import opened_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
