"""The contract of a gateway: how clients of some protocol reach the pipeline.

A gateway translates; it queues, retries and times nothing itself. It submits each task as an
`anywire.submission.Submission`, with the `anywire.caller.Caller` it has found, and turns the `TaskStream` it gets, or
the `AnywireError` raised, into its protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import pydantic

from anywire.access_settings import TlsConfig
from anywire.context import Context
from anywire.metric import Metric


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

    @property
    def is_local(self) -> bool:
        """Whether, as configured, only processes of this machine can be its clients; False where that is not sure.
        Asked before `start`. By default True when its option ``host`` is of the loopback interface, or empty."""
        from anywire.transport_tools import is_loopback

        host = getattr(self.config, "host", None)
        return isinstance(host, str) and (not host or is_loopback(host))

    @property
    def tls(self) -> TlsConfig | None:
        """The certificate that it shows to clients at its address, by which they know it; None without TLS."""
        return None

    def metrics(self) -> Iterable[Metric]:
        """Numbers for whoever measures, as they are now; as `anywire.service.Service.metrics`. A gateway that tells
        them itself has none."""
        return ()


@runtime_checkable
class PassesOn(Protocol):
    """What a `anywire.context.Context` is besides in a gateway process, which brings tasks to an orchestrator elsewhere
    on this machine. A gateway submits tasks there as ever; whatever else is asked of it, it passes on."""

    @property
    def orchestrator_socket(self) -> Path:
        """The Unix socket of the orchestrator's own gateway of the same kind. It believes what this one says of a
        client's address."""
        ...
