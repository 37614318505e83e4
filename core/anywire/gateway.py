"""The contract of a gateway: how clients of some protocol reach the pipeline.

A gateway translates; it queues, retries and times nothing itself. It submits `Submission`s to the orchestrator
and turns the `TaskStream` it gets, or the `AnywireError` raised, into its protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pydantic

from anywire.messages import Kind

if TYPE_CHECKING:
    from anywire.orchestrator import Orchestrator


class Submission(msgspec.Struct, frozen=True):
    """A client's task as a gateway hands it over. ``body`` is OpenAI JSON text, validated by the gateway as far
    as its protocol goes. ``deadline_s`` 0 means the pipeline's default."""

    kind: Kind
    model: str
    body: str
    stream: bool = False
    priority: int = 0
    deadline_s: float = 0.0
    trace: str = ""
    hops: int = 0


class Gateway(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[pydantic.BaseModel]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    async def start(self, orchestrator: Orchestrator) -> None:
        """Begin to serve. Raises `ConfigError` when the address is in use, naming it and what to do."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting, let what runs finish as the orchestrator's shutdown allows, release; idempotent."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients reach it (``http://127.0.0.1:8080``), known after ``start``."""
