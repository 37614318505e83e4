"""Logs of models in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

from anywire_engine_models.host.model_log import Logged, LogLine


async def texts(log: AsyncIterator[Logged]) -> list[str]:
    """The lines of a log that lacks none."""
    found = []
    async for each in log:
        assert isinstance(each, LogLine), each
        found.append(each.text)
    return found


async def next_text(log: AsyncIterator[Logged]) -> str:
    """The next line of a log."""
    line = await anext(log)
    assert isinstance(line, LogLine), line
    return line.text
