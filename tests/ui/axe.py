"""What axe-core finds wrong for people who cannot see, or use no mouse. It comes with the stock clients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.ui.browsers import Page

AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[1] / "clients/node_modules/axe-core/axe.min.js"))
SERIOUS = ("serious", "critical")


def serious_findings(page: Page) -> list[str]:
    """A line for each finding of axe-core on what the page shows now that is serious or worse."""
    # The page's own policy lets no foreign script in; what the browser's tools run is let in.
    page.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})
    found: list[dict[str, Any]] = page.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run().then(found => done(found.violations), fault => done([{id: String(fault)}]));"
    )
    return [
        f"{each['id']}: {each.get('help', '')}: {[node['html'][:200] for node in each.get('nodes', ())]}"
        for each in found
        if each.get("impact", "critical") in SERIOUS
    ]
