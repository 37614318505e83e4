"""The templates of pages, which ask for nothing outside of themselves."""

from __future__ import annotations

import re
from typing import Any

import jinja2

MOST_ROWS = 30
"""Of a table that is not folded."""
_CODE = re.compile(r"`([^`\n]+)`")


def rendered(name: str, **given: Any) -> str:
    """The template ``name`` with what it shows; all text is escaped."""
    templates = environment()
    assert templates.loader is not None
    css, _, _ = templates.loader.get_source(templates, "page.css")
    return templates.get_template(name).render(css=css, **given)


def environment() -> jinja2.Environment:
    """Of the templates of this folder."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("anywire_experiment.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["MOST_ROWS"] = MOST_ROWS
    made.filters["by_code"] = by_code
    # A number stays with its sign and its unit.
    made.filters["units"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    return made


def by_code(text: str) -> list[str]:
    """What is between backticks in sentences, at each odd place, and what is around that."""
    return _CODE.split(text)
