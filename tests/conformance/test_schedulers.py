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
