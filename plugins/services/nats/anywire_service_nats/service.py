"""The service ``nats``: it assembles the parts that publish and that listen, over one connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from anywire.context import Context
from anywire.metric import Metric
from anywire.service import Service
from anywire_service_nats.broker import Broker
from anywire_service_nats.config import NatsServiceConfig


class Part(Protocol):
    """Something that this service does. ``start`` is awaited before the first connection is tried, ``close`` after
    ``gate_closed``, in the order opposite to that of the starts, while there may be a connection still. Both must
    return soon whether or not there is one."""

    async def start(self) -> None: ...
    def gate_closed(self) -> None: ...
    async def close(self) -> None: ...
    def metrics(self) -> Iterable[Metric]: ...


class NatsService(Service):
    """Keeps one connection to the NATS servers. The orchestrator starts and goes on without them."""

    name = "nats"
    Config = NatsServiceConfig

    config: NatsServiceConfig

    def __init__(self, config: NatsServiceConfig) -> None:
        super().__init__(config)
        self._broker = Broker(config)
        self._parts: list[Part] = []

    @property
    def offered(self) -> Any:
        """The `Broker`."""
        return self._broker

    async def start(self, context: Context) -> None:
        self._broker = Broker(self.config, f"anywire {context.info.hub_id}")
        for part in self._make(context):
            self._parts.append(part)
            await part.start()
        await self._broker.open()

    def gate_closed(self) -> None:
        for part in self._parts:
            part.gate_closed()

    async def close(self) -> None:
        while self._parts:
            await self._parts.pop().close()
        await self._broker.close()

    def metrics(self) -> Iterable[Metric]:
        yield Metric("connected", "Whether there is a connection to a NATS server.", float(self._broker.connected))
        for part in self._parts:
            yield from part.metrics()

    def _make(self, context: Context) -> list[Part]:
        """The parts that are set, in the order in which they start."""
        return []
