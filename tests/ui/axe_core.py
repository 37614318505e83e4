"""Where axe-core is, which finds what keeps people from using a page (``npm install axe-core``)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

PLACES = (os.environ.get("ANYWIRE_AXE", ""), "node_modules/axe-core/axe.min.js")


@cache
def axe_source() -> str | None:
    """Its text; None where it is not installed."""
    for each in PLACES:
        if each and Path(each).is_file():
            return Path(each).read_text()
    return None
