"""20,000 tasks of 100 tenants, 1,000,000 with ANYWIRE_SOAK, go through the pipeline by a simulated clock, while agents
join, fail, pause and leave as chance has it: each ends exactly once, and nothing is left in any book.

Each scheduler and each selector that is shipped has its turn. A failure names its seed and how far the day went, as
``ANYWIRE_SEED=… ANYWIRE_TASKS=…``: with these in the environment that test runs that day alone, as far.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from anywire_schedulers.attained_service import AttainedService
from anywire_schedulers.edf import Edf
from anywire_schedulers.fair import Fair
from anywire_schedulers.priority import Priority
from anywire_schedulers.wspt import Wspt
from tests.conformance import package_selectors
from tests.long_form import SOAK
from tests.simulation.world import QUEUE, World

from anywire.builtin.fifo import Fifo
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, Scheduler
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig

SEED = int(os.environ.get("ANYWIRE_SEED", "1"))
LONG = 50 if SOAK else 1
TASKS = int(os.environ.get("ANYWIRE_TASKS", 1000 * LONG))
"""Of each day; with those of the other tests 20,000, or 1,000,000."""


class Hesitant(Selector):
    """Takes the least loaded agent, and lets every third task wait all the same."""

    name = "hesitant"

    def __init__(self) -> None:
        super().__init__(SelectorConfig())
        self._chance = random.Random(1)

    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | None:
        return next(candidates.by_load()) if self._chance.random() > 0.3 else None


DAYS: list[tuple[type[Scheduler], dict[str, Any], str, dict[str, Any]]] = [
    (Fifo, {}, "least_loaded", {}),
    (Fifo, {}, "round_robin", {}),
    (Priority, {}, "random", {}),
    (Priority, {"kept_back": 0.4, "aging": 0.5}, "power_of_two", {}),
    (Priority, {"priority_levels": 5}, "hesitant", {}),
    (Edf, {}, "latency", {}),
    (Edf, {"patience": 1}, "success", {}),
    (Fair, {}, "prefix_affinity", {}),
    (Fair, {"quantum": 50}, "prefix_affinity", {"cache": "slots", "skips": 3}),
    (Fair, {"weights": {"tenant0": 3}}, "hesitant", {}),
    (AttainedService, {}, "session_affinity", {}),
    (AttainedService, {"by": "session", "half_life": 2, "longest_wait": 1}, "resource_aware", {}),
    (AttainedService, {"longest_wait": 0}, "hesitant", {}),
    (Wspt, {}, "warm_first", {}),
    (Wspt, {"longest_wait": 1}, "weighted", {"scorers": {"prefix_affinity": 2, "latency": 1, "success": 1}}),
    (Wspt, {}, "fuzzy", {}),
    (Fair, {}, "by_policy", {"default": "session_affinity", "policies": {"fast": "latency"}}),
]


@cache
def _plugins() -> Plugins:
    plugins = Plugins()
    plugins.add(package_selectors.__name__)
    return plugins


def _world(seed: int, day: int, ways: tuple[bool, bool] | None = None) -> World:
    scheduler, options, selector, more = DAYS[day]
    plugins = _plugins()
    chooses = Hesitant() if selector == "hesitant" else plugins.create("selectors", selector, more)
    return World(seed, scheduler(scheduler.Config(max_queue_size=QUEUE, **options)), chooses, plugins, ways)


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """pytest keeps every log record of a test with what its traceback holds."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


NAMES = [f"{scheduler.name}-{selector}-{number}" for number, (scheduler, _, selector, _) in enumerate(DAYS)]


@pytest.mark.parametrize("day", range(len(DAYS)), ids=NAMES)
def test_each_task_ends_exactly_once(day: int) -> None:
    world = _world(SEED, day)
    asyncio.run(world.run(TASKS))
    assert world.submitted == TASKS
    assert world.ended["answered"] > TASKS / 10


def test_everything_that_can_happen_happens() -> None:
    """A simulation in which nothing goes wrong would prove little."""
    world = _world(1, 2, (True, False))
    asyncio.run(world.run(2600 * LONG))
    counts = world.ended + world.refused + Counter(world.orchestrator.stats()["events"])
    assert counts.keys() >= {
        *("answered", "cancelled", "deadline_exceeded", "engine_failed", "agent_lost", "stream_corrupted"),
        *("reader_stalled", "no_agent", "queue_full", "limit_reached", "deadline_too_short", "payload_too_large"),
        *(
            "no_progress",
            "retries",
            "repeated",
            "refused",
            "hedges",
            "hedges_won",
            "fallbacks",
            "trips",
            "congested",
            "overdue",
        ),
        *("foreign_messages", "claims_rejected", "quarantines", "drained", "isolated"),
        *("preemptions", "model_fallbacks"),
    }


def test_a_seed_decides_everything() -> None:
    traces = []
    for _ in range(2):
        world = _world(SEED, 8)
        asyncio.run(world.run(200 * LONG))
        traces.append(world.trace.hexdigest())
    assert traces[0] == traces[1]
