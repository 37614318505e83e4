from pathlib import Path

from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, QueueKey
from anywire.testing.strategy_kit import SchedulerConformance


class TestFifo(SchedulerConformance):
    scheduler = "fifo"

    def test_order_is_that_of_arrival_over_all_models(self) -> None:
        fifo = Plugins().create("schedulers", "fifo", {})
        for number in range(30):
            fifo.put(QueuedTask(f"t{number}", QueueKey(f"m{number % 3}", "chat"), received_ns=number))
        first = fifo.take(lambda key: True)
        second = fifo.take(lambda key: True)
        fifo.put_back(second)
        fifo.put_back(first)
        out = [fifo.take(lambda key: True).task_id for _ in range(30)]
        assert out == [f"t{number}" for number in range(30)]


class TestShortestFirst(SchedulerConformance):
    """The one that the experiments bring along as a file."""

    scheduler = "shortest_first"
    plugins = (str(Path(__file__).parents[2] / "benchmarks/experiments/plugins/shortest_first.py"),)

    def test_the_shortest_goes_first_and_of_equals_the_one_that_came_first(self) -> None:
        scheduler = self.make()
        for number, chars in enumerate([30, 10, 20, 10]):
            scheduler.put(QueuedTask(f"t{number}", QueueKey(f"m{number % 2}", "chat"), 0, number, 0, chars))
        assert [scheduler.take(lambda key: True).task_id for _ in range(4)] == ["t1", "t3", "t2", "t0"]
