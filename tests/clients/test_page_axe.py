"""axe-core finds nothing serious in any view of the page, in light and in dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.ui.axe import AXE, serious_findings
from tests.ui.browsers import DESK, PHONE, Page, browsing, needs_browser
from tests.ui.page_fleets import PageFleet, page_fleet

from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
pytestmark = [
    needs_browser,
    pytest.mark.skipif(not AXE.exists(), reason="missing: axe-core (tests/clients/install.sh)"),
    pytest.mark.timeout(240),
]
VIEWS = {
    "fleet": "slow",
    "fleet/slow": "slow",
    "queue": "slow",
    "tasks": "slow",
    "task": "answered",
    "playground": "Send",
    "models": "slow",
    "deliberations": "Install anywire-service-deliberation",
    "reports": "set services.ui.records",
    "keys": "Make a key",
}
"""The views, each with a text that it shows once it is whole."""
SLOW = {"name": "synthetic", "models": ["slow"], "itl": 3_600_000}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageFleet]:
    folder = tmp_path_factory.mktemp("fleet")
    key, keys = new_key(), folder / "keys.json"
    add_key(keys, record_of(key, role="operate", tenant="lab"))
    agents = [{"id": "quick", "count": 2}, {"id": "slow", "engine": SLOW, "slots": 1}]
    with page_fleet(folder, key=str(key), access={"keys": str(keys)}, agents=agents) as running:
        yield running


@pytest.fixture(scope="module")
def page(fleet: PageFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(fleet.url, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_view_has_serious_findings(page: Page, fleet: PageFleet, size: tuple[int, int], scheme: str) -> None:
    page.open()
    page.ask("sessionStorage.clear()")
    page.open()
    page.show(size, scheme)
    page.until_text("Sign in", "main h1")
    assert serious_findings(page) == []
    page.type("#key", str(fleet.client.headers["authorization"].removeprefix("Bearer ")))
    page.click("button[type=submit]")
    page.until_text("live", "#connection")
    task = fleet.chat().headers["x-anywire-task"]
    fleet.client.post("/v1/agents/quick-1/drain", json={"reason": "tried"}).raise_for_status()
    with fleet.streaming(model="slow"):
        for view, text in VIEWS.items():
            page.go(f"tasks/{task}" if view == "task" else view)
            page.until(lambda: page.texts("main h1") and page.text("main"), view)
            page.until_text(text)
            assert serious_findings(page) == [], view
    fleet.client.post("/v1/agents/quick-1/restore").raise_for_status()
