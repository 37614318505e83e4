"""One browser for each file of tests that look at a page of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.ui.browsers import Page, browsing


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab without a server: `tests.ui.viewer.viewing` names it."""
    pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
    with browsing("", tmp_path_factory.mktemp("profile")) as page:
        yield page
