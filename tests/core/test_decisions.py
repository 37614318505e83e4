"""What waiting tasks and many agents cost: bytes of memory, and calls for each decision."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from anywire.caller import Caller
from anywire.identity import hub_info
from anywire.messages import AgentInfo, AgentStatus, TaskRequest
from anywire.offers import Offer, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.submission import Submission
from anywire.testing.puppet import PuppetTransport

MODEL = "model"
PLUGINS = Plugins()
SLOTS = 8
MEASURED = 500
MOST_BYTES = 4096
"""Of a task that waits, beside its body."""


def body(number: int) -> str:
    """Some 1,500 tokens with one of eight beginnings."""
    messages = [{"role": "system", "content": f"{number % 8} " + "be brief " * 620}, {"role": "user", "content": "?"}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 100, "n": number})


BODIES = [body(number) for number in range(64)]


class Stand:
    """An orchestrator with agents that the test plays, half of whose slots are free."""

    def __init__(self, orchestrator: Orchestrator, wire: PuppetTransport) -> None:
        self.orchestrator, self.wire, self.count = orchestrator, wire, 0

    def join(self, agents: int, own: bool, model: str = MODEL, slots: int = SLOTS) -> None:
        for number in range(agents):
            agent_id, offer = f"{model}-{number}", Offer(model, digest=f"sha256:{number}" if own else "")
            self.wire.sink.agent_joined(AgentInfo(agent_id, 1, capabilities=("chat",)))
            status = AgentStatus(agent_id, 1, "ready", offers_text((offer,)), slots)
            self.wire.sink.agent_reported(agent_id, 1, status)

    def submit(self, model: str = MODEL, stream: bool = False) -> Any:
        self.count += 1
        caller = Caller("key", f"tenant-{self.count % 100}")
        session = f"session-{self.count % 64}"
        return self.orchestrator.submit(
            Submission("chat", model, BODIES[self.count % len(BODIES)], stream, caller=caller, session=session)
        )


async def stand(scheduler: str, selector: str) -> Stand:
    plugins, wire = Plugins(), PuppetTransport()
    orchestrator = Orchestrator(
        hub_info(),
        [wire],
        plugins.create("schedulers", scheduler, {"max_queue_size": 100_000}),
        plugins.create("selectors", selector, {}),
        plugins=plugins,
    )
    await orchestrator.start()
    return Stand(orchestrator, wire)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("scheduler", "selector"),
    [*((name, "least_loaded") for name in PLUGINS.names("schedulers")), ("fifo", "prefix_affinity")],
)
async def test_a_task_that_waits_takes_less_than_4_kib_beside_its_body(
    scheduler: str, selector: str, stream: bool
) -> None:
    made = await stand(scheduler, selector)
    made.join(1, False, slots=1)
    waiting = [made.submit(stream=stream) for _ in range(100)]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        waiting += [made.submit(stream=stream) for _ in range(MEASURED)]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert made.orchestrator.waiting == MEASURED + 99
    await made.orchestrator.close()
    assert taken / MEASURED < MOST_BYTES


def calls_of(work: Callable[[], object]) -> int:
    """How many calls of Python functions, turns of generators included, and of C functions ``work`` takes."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


async def calls_per_decision(scheduler: str, selector: str, agents: int, queued: int, own: bool) -> float:
    """The median of the calls that it takes to take a task in and send it, and to end it, where tasks of 100 tenants
    wait for another model."""
    made = await stand(scheduler, selector)
    made.join(1, False, "other", 1)
    made.join(agents, own)
    for _ in range(queued + 1):
        made.submit("other")
    for _ in range(agents * SLOTS // 2):
        made.submit()
    running = [(agent_id, task) for agent_id, task in made.wire.sent if isinstance(task, TaskRequest)]
    running = [each for each in running if each[1].model == MODEL]
    made.wire.sent.clear()

    def decide() -> None:
        made.submit()
        _, ended = running.pop(0)
        made.wire.chunk(ended, 0, "text", final=True)

    found = []
    for _ in range(40):
        found.append(calls_of(decide))
        running += [(agent_id, task) for agent_id, task in made.wire.sent if isinstance(task, TaskRequest)]
        made.wire.sent.clear()
    await made.orchestrator.close()
    return sorted(found)[len(found) // 2]


@pytest.mark.parametrize("own", [False, True], ids=["one group", "a group for each agent"])
@pytest.mark.parametrize("selector", ["least_loaded", "power_of_two", "prefix_affinity"])
async def test_a_decision_takes_as_many_calls_with_many_agents_and_tasks_as_with_few(selector: str, own: bool) -> None:
    few = await calls_per_decision("fifo", selector, 20, 20, own)
    many = await calls_per_decision("fifo", selector, 400, 1000, own)
    assert many < 1.3 * few + 20
