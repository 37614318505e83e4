"""What this service hears, put together as it is configured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from anywire.collected_answers import CollectedTasks
from anywire.context import Context
from anywire.metric import Metric
from anywire_service_nats.broker import Broker
from anywire_service_nats.collector.collector import Collector
from anywire_service_nats.collector.database import Database
from anywire_service_nats.collector.routes import collected_routes
from anywire_service_nats.collector.store import Store
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.config_inbound import CollectorConfig
from anywire_service_nats.listening.dead_letters import DeadLetters
from anywire_service_nats.listening.listener import Source
from anywire_service_nats.outgoing import Publisher
from anywire_service_nats.part import Part, Parts
from anywire_service_nats.requests.ledger import Ledger
from anywire_service_nats.requests.ledger_file import LedgerFile
from anywire_service_nats.requests.requests_part import Requests
from anywire_service_nats.requests.serving import Serving
from anywire_service_nats.requests.submissions import Submissions
from anywire_service_nats.requests.worker import Worker

SOURCE = "nats"
"""The source of this service's events."""


class Inbound(Part):
    """A part of the service. ``folder`` is the one below which its files are."""

    def __init__(
        self, config: NatsServiceConfig, context: Context, broker: Broker, publisher: Publisher, folder: Path
    ) -> None:
        self._context, self._publisher = context, publisher
        self._source = Source(broker, config)
        self._letters = DeadLetters(publisher, context.events, config.producer, SOURCE)
        self._parts, self._made = Parts(), list[Part]()
        self._collector: Collector | None = None
        if config.collector is not None:
            self._collector = self._make_collector(config.collector, config.producer, folder / "collected")
            self._made.append(self._collector)
        if config.worker is not None or config.submissions is not None:
            self._made.append(self._make_requests(config, broker, folder / "requests"))

    @property
    def collected(self) -> CollectedTasks | None:
        return self._collector

    async def start(self) -> None:
        if self._collector is not None:
            self._context.routes.add(*collected_routes(self._collector))
        for part in self._made:
            await self._parts.add(part)

    def all_started(self) -> None:
        self._parts.all_started()

    def gate_closed(self) -> None:
        self._parts.gate_closed()

    async def close(self) -> None:
        await self._parts.close()

    def metrics(self) -> Iterable[Metric]:
        yield from self._letters.metrics()
        yield from self._parts.metrics()

    def _make_collector(self, config: CollectorConfig, producer: str, folder: Path) -> Collector:
        store = Store(Database(folder, config.max_tasks, config.max_bytes))
        return Collector(config, store, self._source, self._publisher, self._letters, self._context.clock, producer)

    def _make_requests(self, config: NatsServiceConfig, broker: Broker, folder: Path) -> Requests:
        context, clock = self._context, self._context.clock
        ledger = Ledger(LedgerFile(folder))
        takers: list[Part] = []
        rest: Serving | None = None
        keep = 0.0
        if config.worker is not None:
            rest = Serving(config.worker, ledger, self._publisher, broker, clock)
            takers.append(Worker(config.worker, context, self._source, rest, self._letters, config.producer))
            keep = config.worker.keep_trying
        if config.submissions is not None:
            submissions = config.submissions
            rest = Serving(submissions, ledger, self._publisher, broker, clock, submissions.max_open)
            takers.append(Submissions(submissions, context, self._source, rest, ledger, self._letters, config.producer))
            keep = max(keep, submissions.keep_trying)
        assert rest is not None
        return Requests(ledger, rest, takers, clock, keep)
