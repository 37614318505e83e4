"""Codes that sign a browser in: each stands for a key, counts once, and only for some minutes.

A link with a key in it would leave the key in histories, in lists of processes and in logs. A code is worth nothing
once the page that it opens has used it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

SECONDS = 300.0
"""Time for which a code counts."""
MOST = 64
"""Codes that count at once; a further one ends the oldest."""
MOST_OF_ONE = 4
"""Of them, those of one key; a further one ends the oldest of that key, so that no client ends those of others."""


class SignInCodes:
    """``now`` tells the time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._keys: dict[str, tuple[float, str]] = {}

    def __len__(self) -> int:
        self._forget_old()
        return len(self._keys)

    def new(self, key: str) -> str:
        """A code for ``key`` that nobody can guess."""
        self._forget_old()
        own = [code for code, (_, of) in self._keys.items() if of == key]
        if len(own) >= MOST_OF_ONE:
            del self._keys[own[0]]
        elif len(self._keys) >= MOST:
            del self._keys[next(iter(self._keys))]
        code = secrets.token_urlsafe(24)
        self._keys[code] = (self._now() + SECONDS, key)
        return code

    def take(self, code: str) -> str:
        """The key of ``code``, which counts no more from now on; empty for a code that does not count."""
        self._forget_old()
        return self._keys.pop(code, (0.0, ""))[1]

    def _forget_old(self) -> None:
        now = self._now()
        while self._keys:
            code = next(iter(self._keys))
            if self._keys[code][0] > now:
                return
            del self._keys[code]
