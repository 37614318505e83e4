"""Whether a llama.cpp can use graphics cards: asked of it, in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex

from anywire.errors import ConfigError
from anywire_engine_models.llama_cpp.command import cards_command
from anywire_engine_models.processes.guarded import GuardedProcess

PATIENCE = 8.0
"""Seconds for the answer: a driver may have to load first."""
_HEADING = "Available devices:"
_CARD = re.compile(r"(?!CPU|BLAS|AMX|RPC)\w+: .*")
"""A line of a device that is a card: ``CUDA0: NVIDIA H200 (…)``."""

log = logging.getLogger(__name__)


class LlamaCards:
    """Remembers what each llama.cpp has answered; one that did not is asked again."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Task[bool | None]] = {}

    async def are_usable(self, server: str) -> bool | None:
        """Whether the llama.cpp that ``server`` names (see `LlamaSettings`) sees a card that it can use; None where
        that cannot be known."""
        asking = self._answers.get(server)
        if asking is None:
            asking = self._answers[server] = asyncio.create_task(_ask(server), name="cards of llama.cpp")
        usable = await asyncio.shield(asking)
        if usable is None and self._answers.get(server) is asking:
            del self._answers[server]
        return usable

    async def close(self) -> None:
        for asking in self._answers.values():
            asking.cancel()
        await asyncio.gather(*self._answers.values(), return_exceptions=True)


async def _ask(server: str) -> bool | None:
    try:
        command = cards_command(server)
    except ConfigError:
        return None  # a start says it better
    lines: list[str] = []
    process = GuardedProcess(command, dict(os.environ), lines.append)
    try:
        await asyncio.wait({process.ended}, timeout=PATIENCE)
    finally:
        await process.end(0.0)
    if _HEADING not in lines:
        log.info("%s does not tell which cards it can use", shlex.join(command))
        return None
    return any(_CARD.fullmatch(line.strip()) for line in lines[lines.index(_HEADING) + 1 :])
