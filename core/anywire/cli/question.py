"""What a command asks a model."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """What is asked, and how."""

    prompt: str
    max_tokens: int | None = None
    priority: int = 0
    timeout: float = 0.0
    """Seconds until the server gives the task up; 0 leaves it to the server."""
