"""How every figure looks, and how it becomes SVG that stands in a page by itself."""

from __future__ import annotations

import html
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from anywire_experiment.report import vectors

WIDTH = 7.6
"""Inches at the size of 9 points; in a page a figure is as wide as its column."""

INK, PAPER, FAINT = "#010203", "#fdfcfb", "#0a0b0c"
"""Colours that stand for the page's own, which are dark on light or light on dark."""
ARM_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b35a8e", "#8a6d00", "#3f93c4", "#7a4b2a", "#5f6b7a")
"""Okabe and Ito's where they show on white, darker where they do not. On dark a page has lighter ones."""
_OF_PAGE = {INK: "currentColor", PAPER: "var(--paper)", FAINT: "var(--faint)"} | {
    color: f"var(--arm-{at})" for at, color in enumerate(ARM_COLORS)
}

_ON_PAPER = {INK: "#111111", PAPER: "#ffffff", FAINT: "#c8ccd0"}
"""The page's own colours, where a figure stands alone."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
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
MOST_ARMS = len(_LOOKS)
"""As many can be told apart in a figure, in black and white too."""


MOST_LETTERS = 26
"""Of a name in a figure; the text below it has the whole."""


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The same arm looks the same in every figure."""
    return {arm: _LOOKS[at % len(_LOOKS)] for at, arm in enumerate(arms)}


def brief(text: str, most: int = MOST_LETTERS) -> str:
    """With at most so many letters, the middle left out."""
    if len(text) <= most:
        return text
    front = most // 2
    return f"{text[:front]}…{text[len(text) - (most - front - 1) :]}"


def brief_names(names: Sequence[str]) -> dict[str, str]:
    """As a figure has room for them. Two that would look the same are told apart by their number."""
    short = {name: brief(name) for name in names}
    found = Counter(short.values())
    return {name: told if found[told] == 1 else f"{told} ({at})" for at, (name, told) in enumerate(short.items(), 1)}


class Picture(NamedTuple):
    """A figure with what is said below it."""

    image: str
    caption: str


@contextmanager
def drawn(height: float) -> Iterator[Figure]:
    """An empty figure; whatever is drawn in it must be drawn inside of this context, `svg` too."""
    with mpl.rc_context(_SETTINGS):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an SVG element, its texts escaped, the same for the same data. ``name`` is unique in the page, and
    keeps its ids apart from those of other figures."""
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(target, format="svg", transparent=True)
    vectors.keep(figure, name, title, _ON_PAPER)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    # The metadata have the date in them.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = _PLACES.sub(lambda found: _FINE.sub(r"\1", found[0]), text)
    for color, own in _OF_PAGE.items():
        text = text.replace(color, own)
    opening = text[: text.index(">") + 1]
    sized = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    labelled = f'{sized[:-1]} role="img" aria-labelledby="{name}-title {name}-desc">'
    told = (
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return labelled + told + text[len(opening) :]


def legend(figure: Figure, axes: Axes) -> None:
    """Above the figure, with lines and marks as they are drawn."""
    handles, labels = axes.get_legend_handles_labels()
    widest = 55 + 5 * max(map(len, labels), default=0)
    columns = max(min(len(labels), 4, int(72 * WIDTH / widest)), 1)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8, handlelength=3.6)


def value_axis(axes: Axes, low: float, high: float, which: str) -> None:
    """Of times: logarithmic where they span more than a factor of 8."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if low == high:
        low, high = (0.9 * low, 1.1 * high) if high > 0 else (0.0, 1.0)
    if low > 0 and high / low > 8:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        set_limits(low / 1.1, high * 1.25)
        few = math.log10(high / low) < 1.5
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        set_limits(max(low - 0.1 * (high - low), 0.0), high + 0.12 * (high - low) or 1.0)
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
