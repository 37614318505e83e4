"""A server that is there and still loads the model: it takes no request yet, and is asked again after a pause."""

from __future__ import annotations

import asyncio
import random
import re

from anywire.errors import EngineFailed

STATUS = 503
"""With it llama.cpp, SGLang, LocalAI, Hugging Face's servers and others say that they load; with other texts it says
that they are overloaded, or broken."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two requests, doubled from one to the other."""

_LOADING = re.compile(r"\b(loading|being loaded|warming up)\b", re.IGNORECASE)
_FAILED = re.compile(r"\b(error|exception|fail\w*|unable|could ?n[o']t|cannot|can't)\b", re.IGNORECASE)


class StillLoading(EngineFailed):
    """The server takes no request before it has loaded the model."""


def is_loading(status: int, message: str) -> bool:
    """Whether an answer of that status, with that error, says so."""
    return status == STATUS and _LOADING.search(message) is not None and _FAILED.search(message) is None


class LoadingPauses:
    """The pauses of one request: at most ``timeout`` seconds together, and no more than ``time_left_ms`` (0: no
    deadline) from now on."""

    def __init__(self, timeout: float, time_left_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + (min(timeout, time_left_ms / 1000) if time_left_ms else timeout)
        self._pause = FIRST_PAUSE

    def next(self, asked: float) -> float:
        """Seconds until the server is to be asked again, at least the ``asked`` ones that it names itself; 0 once the
        time is over."""
        left = self._until - self._loop.time()
        pause = max(asked, self._pause * random.uniform(0.5, 1))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return max(0.0, min(pause, left))
