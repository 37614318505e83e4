"""The contract of a gateway: how clients of some protocol reach the pipeline.

A gateway translates; it queues, retries and times nothing itself. It submits each task as an
`anywire.submission.Submission`, with the `anywire.caller.Caller` it has found, and turns the `TaskStream` it gets, or
the `AnywireError` raised, into its protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pydantic

from anywire.context import Context


class Gateway(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[pydantic.BaseModel]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    async def start(self, context: Context) -> None:
        """Begin to serve. Raises `ConfigError` when the address is in use, naming it and what to do."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting before anything is awaited (the next orchestrator may need the address), let what runs finish
        as the orchestrator's shutdown allows, release; idempotent."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients reach it (``http://127.0.0.1:8080``), known after ``start``."""
