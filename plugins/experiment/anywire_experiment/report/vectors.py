"""Figures once more as files for a paper: SVG and PDF in fixed colours on white, the same bytes for the same data.

Both are written by matplotlib from the same drawing as the page's figure. In an SVG the letters are outlines, so that
it looks the same wherever it is shown; a PDF has its fonts inside.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

Kind = Literal["svg", "pdf"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PARTS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor", "backgroundcolor")
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "path", "pdf.fonttype": 42}


class _Wanted:
    def __init__(self, kinds: Collection[Kind]) -> None:
        self.kinds = kinds
        self.files: dict[str, bytes] = {}


_WANTED: ContextVar[_Wanted | None] = ContextVar("_WANTED", default=None)


@contextmanager
def collected(kinds: Collection[Kind]) -> Iterator[dict[str, bytes]]:
    """Every figure that is drawn inside of this context, as files by name (``NAME.pdf``)."""
    wanted = _Wanted(kinds)
    token = _WANTED.set(wanted)
    try:
        yield wanted.files
    finally:
        _WANTED.reset(token)


def keep(figure: Figure, name: str, title: str, colors: Mapping[str, str]) -> None:
    """Write ``figure``, where files of figures are wanted, with ``colors`` in the place of those that stand for a
    page's own. It must not be drawn on afterwards."""
    wanted = _WANTED.get()
    if wanted is None:
        return
    for artist in figure.findobj():
        _repaint(artist, colors)
        if isinstance(artist, Text) and (box := artist.get_bbox_patch()) is not None:
            _repaint(box, colors)
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        for kind in wanted.kinds:
            target = io.BytesIO()
            dates = {"Date": None} if kind == "svg" else {"CreationDate": None, "Producer": None}
            figure.savefig(target, format=kind, metadata={"Title": title, "Creator": "Anywire", **dates})
            wanted.files[f"{name}.{kind}"] = target.getvalue()


def _repaint(artist: Artist, colors: Mapping[str, str]) -> None:
    for part in _PARTS:
        read, write = (getattr(artist, f"{verb}_{part}", None) for verb in ("get", "set"))
        if read is None or write is None:
            continue
        try:
            found = read()
            own = colors.get(to_hex(found))
        except (TypeError, ValueError):  # several colours, or none
            continue
        if own is not None:
            write((*to_rgba(own)[:3], to_rgba(found)[3]))
