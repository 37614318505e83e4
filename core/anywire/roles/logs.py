"""Logging of a process: to standard error, in one format."""

from __future__ import annotations

import logging
import os
import sys

from anywire.config import LogLevel
from anywire.log_lines import JsonLines, LogFormat, RepeatLimit, TextLines

CHATTY = ("httpx", "httpcore", "aiohttp.access", "asyncio", "watchfiles")


def configure(level: LogLevel, form: LogFormat = "text") -> None:
    """Set up the root logger; libraries that log every request speak from ``debug`` on only. Text has the names of
    loggers at ``debug``, and colours on a terminal unless ``NO_COLOR`` is set."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonLines())
    else:
        coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        handler.setFormatter(TextLines(coloured=coloured))
    handler.addFilter(RepeatLimit())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: LogLevel) -> None:
    """Log from another level on. Handlers stay, those of services too, and so does the form of lines."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for each in root.handlers:
        if isinstance(each.formatter, TextLines):
            each.formatter.with_names = level == "debug"
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
