"""The services of one orchestrator: started once it is the active one, told of the gate, closed after the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from anywire.context import Context
from anywire.errors import AnywireError, ConfigError
from anywire.gateway import Gateway
from anywire.metric import MAX_METRICS, Metric, metric_fault
from anywire.offers import Offer, offers_text
from anywire.pipeline.fleet.claims import check_offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.service import Service

log = logging.getLogger(__name__)

Numbers = Callable[[], Iterable[Metric]]
"""Tells the numbers of a part, as `anywire.service.Service.metrics` does."""

CLOSE_TIMEOUT = 5.0
"""Seconds after which a service that does not close is left alone."""


class ServiceHost:
    """Runs ``services`` beside ``orchestrator``, in this order; ``context`` makes what the service of a name is given.

    Beside an agent no services run yet. ``gateways`` are those of the orchestrator; their numbers are told with those
    of services.
    """

    def __init__(
        self,
        services: Sequence[Service],
        orchestrator: Orchestrator,
        context: Callable[[str], Context],
        gateways: Sequence[Gateway] = (),
    ) -> None:
        self._services, self._orchestrator, self._context = list(services), orchestrator, context
        self.gateways = gateways
        self._begun: list[Service] = []
        self._running: dict[str, Service] = {}
        self._gate_closed = False
        self._also: dict[str, Numbers] = {}

    def tell_also(self, name: str, numbers: Numbers) -> None:
        """Tell what ``numbers()`` gives with the numbers of services, as if it were one of that name."""
        self._also[name] = numbers

    async def start(self) -> None:
        """Start one after the other. Raises `ConfigError` that names the service when one cannot start; `close` ends
        those that have begun."""
        for service in self._services:
            self._begun.append(service)
            try:
                await service.start(self._context(service.name))
                offers = service.offers()
                _check(offers)
                self._orchestrator.services.add(service, offers)
            except Exception as error:
                what = str(error) if isinstance(error, AnywireError) else f"{type(error).__name__}: {error}"
                raise ConfigError(f"the service {service.name} cannot start: {what}") from error
            self._running[service.name] = service
            log.info("service %s runs", service.name)
        for service in list(self._running.values()):
            self._orchestrator.boundary.call(
                f"service {service.name}", "all_started", service.all_started, otherwise=None
            )

    def get(self, name: str) -> Any:
        """What the service of that name offers; None when it does not run. See `anywire.context.Services`."""
        service = self._running.get(name)
        if service is None:
            return None
        try:
            return service.offered
        except Exception as error:
            self._orchestrator.boundary.failed(f"service {name}", "offered", error)
            return None

    def metrics(self) -> list[tuple[str, Metric]]:
        """What the running services and the gateways tell to whoever measures; see `anywire.context.Services`."""
        found: list[tuple[str, Metric]] = []
        for name, service in self._running.items():
            found += [(name, each) for each in self._metrics_of(f"service {name}", service.metrics)]
        for gateway in self.gateways:
            found += [(gateway.name, each) for each in self._metrics_of(f"gateway {gateway.name}", gateway.metrics)]
        for name, numbers in self._also.items():
            found += [(name, each) for each in self._metrics_of(name, numbers)]
        return found

    def _metrics_of(self, label: str, numbers: Numbers) -> list[Metric]:
        boundary = self._orchestrator.boundary
        told = boundary.call(
            label, "metrics", lambda: list(islice(numbers(), MAX_METRICS + 1)), otherwise=list[Metric]()
        )
        if len(told) > MAX_METRICS:
            boundary.failed(label, "metrics", f"tells more than {MAX_METRICS} numbers; the others are left out")
        kinds: dict[str, tuple[frozenset[str], bool]] = {}
        good: list[Metric] = []
        seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        for metric in told[:MAX_METRICS]:
            fault = metric_fault(metric)
            kind = (frozenset(metric.labels), metric.counter) if not fault else None
            if kind is not None and kinds.setdefault(metric.name, kind) != kind:
                fault = f"{metric.name} has other labels than before, or is a counter once and once none"
            series = (metric.name, frozenset(metric.labels.items())) if not fault else None
            if series in seen:
                fault = f"{metric.name} is there twice with the same labels"
            if fault:
                boundary.failed(label, "metrics", fault)
            elif series is not None:
                seen.add(series)
                good.append(metric)
        return good

    def gate_closed(self) -> None:
        """Tell each that no task is taken in any more, once."""
        if self._gate_closed:
            return
        self._gate_closed = True
        for service in self._running.values():
            self._orchestrator.boundary.call(
                f"service {service.name}", "gate_closed", service.gate_closed, otherwise=None
            )

    async def close(self) -> None:
        """Close what has begun, the last one first, each within `CLOSE_TIMEOUT`; idempotent."""
        self._running.clear()
        while self._begun:
            service = self._begun.pop()
            closing = asyncio.ensure_future(_closed(service))
            await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT)
            if not closing.done():
                log.error("the service %s did not close within %g s and is left alone", service.name, CLOSE_TIMEOUT)
                closing.cancel()
            elif not closing.cancelled() and (error := closing.exception()) is not None:
                self._orchestrator.boundary.failed(f"service {service.name}", "close", error)


async def _closed(service: Service) -> None:
    await service.close()


def _check(offers: object) -> None:
    if not isinstance(offers, tuple) or not all(isinstance(each, Offer) and each.model for each in offers):
        raise TypeError(f"offers() gave {str(offers)[:80]}, which is no tuple of offers")
    fault = check_offers(offers_text(offers))
    if fault:
        raise TypeError(f"of its offers(): {fault}")
