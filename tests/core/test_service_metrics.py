"""Numbers that services tell to whoever measures, and services that tell nonsense."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anywire.context import Context
from anywire.metric import MAX_METRICS, Metric
from anywire.service import Service, ServiceConfig
from anywire.testing.service_bench import service_bench

GOOD = Metric("size_bytes", "Bytes.", 3.5, {"kind": "a"})


class Telling(Service):
    name = "telling"

    def __init__(self, *told: Any, name: str = "telling") -> None:
        super().__init__(ServiceConfig())
        self.told, self.name = told, name  # type: ignore[misc]

    async def start(self, context: Context) -> None:
        """Nothing to begin."""

    async def close(self) -> None:
        """Holds nothing."""

    def metrics(self) -> Iterable[Metric]:
        for each in self.told:
            if isinstance(each, Exception):
                raise each
            yield each


async def test_numbers_of_all_services_are_told_under_their_names(tmp_path: Path) -> None:
    one, two = Telling(GOOD, Metric("runs", "Runs.", 2, counter=True)), Telling(GOOD, name="other")
    async with service_bench(one, two, state=tmp_path) as bench:
        told = [(name, metric.name) for name, metric in bench.host.metrics()]
        assert told == [("telling", "size_bytes"), ("telling", "runs"), ("other", "size_bytes")]
        assert not bench.orchestrator.boundary.failures
    assert bench.host.metrics() == []


async def test_what_is_no_number_is_left_out_and_counted(tmp_path: Path) -> None:
    wrong: list[Any] = [
        None,
        Metric("Upper", "", 1),
        Metric("x", "", float("nan")),
        Metric("x", "", "3"),  # type: ignore[arg-type]
        Metric("x", "", 1, {"a b": "c"}),
        Metric("x", "", 1, {"a": "c" * 10_000}),
        Metric("x", "", 1, None),  # type: ignore[arg-type]
        Metric("size_bytes", "Bytes.", 1, {"other": "label"}),
        Metric("size_bytes", "Bytes.", 1, {"kind": "b"}, counter=True),
    ]
    async with service_bench(Telling(GOOD, *wrong), state=tmp_path) as bench:
        assert bench.host.metrics() == [("telling", GOOD)]
        assert bench.orchestrator.boundary.failures["service telling.metrics"] == len(wrong)


async def test_a_service_that_raises_or_tells_for_ever_harms_nobody(tmp_path: Path) -> None:
    many = [Metric("n", "", number, {"number": str(number)}) for number in range(MAX_METRICS + 500)]
    raising, endless = Telling(GOOD, ValueError("no")), Telling(*many, name="endless")
    async with service_bench(raising, endless, Telling(GOOD, name="good"), state=tmp_path) as bench:
        told = bench.host.metrics()
        assert [name for name, _ in told] == ["endless"] * MAX_METRICS + ["good"]
        assert bench.orchestrator.boundary.failures == {"service telling.metrics": 1, "service endless.metrics": 1}
