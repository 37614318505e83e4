"""The service ``nats``: it assembles the parts that publish and that listen, over one connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anywire.context import Context
from anywire.metric import Metric
from anywire.service import Service
from anywire_service_nats.broker import Broker
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.inbound import Inbound
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.part import Part, Parts
from anywire_service_nats.publishing import Publishing
from anywire_service_nats.streams import Streams
from anywire_service_nats.told_deliberations import ToldDeliberations
from anywire_service_nats.told_tasks import ToldTasks


class OpenOutbox(Part):
    """Opens the outbox before, and closes it after, all that use it."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def start(self) -> None:
        await self._outbox.open()

    async def close(self) -> None:
        await self._outbox.close()


class NatsService(Service):
    """Keeps one connection to the NATS servers. The orchestrator starts and goes on without them."""

    name = "nats"
    Config = NatsServiceConfig

    config: NatsServiceConfig

    def __init__(self, config: NatsServiceConfig) -> None:
        super().__init__(config)
        self._broker = Broker(config)
        self._parts = Parts()
        self._inbound: Inbound | None = None

    @property
    def offered(self) -> Any:
        """Implements `anywire.collected_answers.Collects`."""
        return self._inbound

    async def start(self, context: Context) -> None:
        self._broker = Broker(self.config, f"anywire {context.info.hub_id}")
        for part in self._make(context):
            await self._parts.add(part)
        await self._broker.open()

    def all_started(self) -> None:
        self._parts.all_started()

    def gate_closed(self) -> None:
        self._parts.gate_closed()

    async def close(self) -> None:
        await self._parts.close()
        await self._broker.close()

    def metrics(self) -> Iterable[Metric]:
        yield Metric("connected", "Whether there is a connection to a NATS server.", float(self._broker.connected))
        yield from self._parts.metrics()

    def _make(self, context: Context) -> list[Part]:
        """The parts that are set, in the order in which they start."""
        config, clock = self.config, context.clock
        folder = config.folder.expanduser() if config.folder is not None else context.state_folder
        outbox = Outbox(folder.absolute(), config.envelope, config.outbox_messages, config.outbox_bytes, clock)

        def refused(name: str, subject: str, why: str) -> None:
            context.events.publish_plugin(self.name, "message_refused", {"id": name, "subject": subject, "why": why})

        publishing = Publishing(outbox, self._broker, clock, lambda each: Streams(config, each), refused)
        parts: list[Part] = [OpenOutbox(outbox), publishing]
        if kinds := [kind for kind in config.publish if kind != "tasks"]:
            parts.append(ToldDeliberations(context, outbox, config.producer, kinds))
        if "tasks" in config.publish:
            parts.append(ToldTasks(context, outbox, config.producer))
        self._inbound = Inbound(config, context, self._broker, outbox, folder.absolute())
        return [*parts, self._inbound]
