"""Logging of a process: to stderr, coloured on a terminal, plain elsewhere."""

from __future__ import annotations

import logging
import sys

from anywire.config import LogLevel

_CHATTY = ("httpx", "httpcore", "aiohttp.access", "asyncio")


def configure(level: LogLevel) -> None:
    """Set up the root logger; libraries that log every request speak from ``debug`` on only."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, highlighter=NullHighlighter())
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="[%X]"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
