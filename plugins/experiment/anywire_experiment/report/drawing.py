"""How every figure looks, and how it becomes SVG that stands in a page by itself."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

WIDTH = 7.6
"""Inches at the size of 9 points; in a page a figure is as wide as its column."""

INK, PAPER, FAINT = "#010203", "#fdfcfb", "#0a0b0c"
"""Colours that stand for the page's own, which are dark on light or light on dark."""
ARM_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b35a8e", "#8a6d00", "#3f93c4", "#7a4b2a", "#5f6b7a")
"""Okabe and Ito's where they show on white, darker where they do not. On dark a page has lighter ones."""
_OF_PAGE = {INK: "currentColor", PAPER: "var(--paper)", FAINT: "var(--faint)"} | {
    color: f"var(--arm-{at})" for at, color in enumerate(ARM_COLORS)
}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


_PLACES, _FINE = re.compile(r'\b(?:d|x|y|transform)="[^"]*"'), re.compile(r"(\d+\.\d{2})\d+")
"""Six decimals of a point are more than a screen has; in texts they stay."""


class Look(NamedTuple):
    """Of an arm: told apart by line, marker and hatch as well as by colour."""

    color: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str
    hatch: str


_LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    *("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1))),
    *((0, (2, 1)), (0, (12, 2, 2, 2)), (0, (4, 4))),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_HATCHES = ("", "///", "\\\\\\", "|||", "---", "xxx", "+++", "//", "\\\\")
_LOOKS = [Look(*each) for each in zip((*ARM_COLORS, INK), _LINES, _MARKERS, _HATCHES, strict=True)]


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The same arm looks the same in every figure."""
    return {arm: _LOOKS[at % len(_LOOKS)] for at, arm in enumerate(arms)}


@contextmanager
def drawn(height: float) -> Iterator[Figure]:
    """An empty figure; whatever is drawn in it must be drawn inside of this context, `svg` too."""
    with mpl.rc_context(_SETTINGS):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as an SVG element, the same for the same data. ``name`` is unique in the page, and keeps its ids apart
    from those of other figures."""
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = _PLACES.sub(lambda found: _FINE.sub(r"\1", found[0]), text)
    for color, own in _OF_PAGE.items():
        text = text.replace(color, own)
    opening = text[: text.index(">") + 1]
    sized = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    labelled = f'{sized[:-1]} role="img" aria-labelledby="{name}-title {name}-desc">'
    told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    return Markup(labelled + told + text[len(opening) :])
