"""Schedulers that are fair to tenants, in the pipeline: charged with what engines counted, and with a full queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anywire_schedulers.attained_service import AttainedService, AttainedServiceConfig
from anywire_schedulers.fair import Fair, FairConfig
from tests.core.test_serving import Puppet, offer

from anywire import errors
from anywire.caller import Caller
from anywire.fairness import jain_index
from anywire.offers import Offer
from anywire.scheduler import QueuedTask, Scheduler
from anywire.selector import AgentView, Candidates, Selector, SelectorConfig
from anywire.submission import Submission
from anywire.testing.doubles import MODEL
from anywire.testing.rig import read

Make = Callable[..., Any]
SCHEDULERS: list[Callable[[int], Scheduler]] = [
    lambda most: Fair(FairConfig(max_queue_size=most)),
    lambda most: AttainedService(AttainedServiceConfig(max_queue_size=most, half_life=0)),
]


@pytest.fixture
def wire() -> Puppet:
    return Puppet()


def ask(pipeline: Any, tenant: str, model: str = MODEL) -> Any:
    return pipeline.submit(Submission("chat", model, "{}", True, caller=Caller(tenant, tenant)))


@pytest.mark.parametrize("made", SCHEDULERS, ids=["fair", "attained_service"])
async def test_a_greedy_tenant_gets_no_more_tokens_than_the_others(
    pipeline_of: Make, wire: Puppet, made: Callable[[int], Scheduler]
) -> None:
    pipeline = await pipeline_of(wire, scheduler=made(1000))
    offer(wire, "a", Offer(MODEL), slots=1)
    for _ in range(150):
        ask(pipeline, "greedy")
    for _ in range(60):
        ask(pipeline, "long answers")
        ask(pipeline, "modest")
    lengths = {"greedy": 100, "long answers": 400, "modest": 100}
    served = dict.fromkeys(lengths, 0)
    for number in range(90):
        _, request = wire.requests[number]
        tokens = lengths[request.tenant]
        wire.answer(request, usage=f'{{"prompt_tokens": 1, "completion_tokens": {tokens}}}')
        served[request.tenant] += tokens
    assert jain_index(served.values()) >= 0.95, served
    assert pipeline.stats()["plugin_failures"] == {}


@pytest.mark.parametrize("made", SCHEDULERS, ids=["fair", "attained_service"])
async def test_a_queue_that_one_tenant_has_filled_lets_another_in(
    pipeline_of: Make, wire: Puppet, made: Callable[[int], Scheduler]
) -> None:
    pipeline = await pipeline_of(wire, scheduler=made(4))
    offer(wire, "a", Offer(MODEL), slots=0)
    greedy = [ask(pipeline, "greedy") for _ in range(4)]
    with pytest.raises(errors.QueueFull):
        ask(pipeline, "greedy")
    ask(pipeline, "modest")
    assert pipeline.waiting == 4
    # The newest of the greedy one ends.
    with pytest.raises(errors.QueueFull, match="took the place"):
        await read(greedy[-1])


@pytest.mark.parametrize("made", SCHEDULERS, ids=["fair", "attained_service"])
@pytest.mark.parametrize("chosen", [False, True], ids=["held", "while its agent is chosen"])
async def test_nobody_is_charged_for_a_task_that_ended_before_it_was_sent(
    pipeline_of: Make, wire: Puppet, made: Callable[[int], Scheduler], chosen: bool
) -> None:
    class Cancelling(Selector):
        """Lets tasks for another model wait, or cancels them."""

        def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | None:
            if task.key.model == MODEL:
                return next(candidates.by_load())
            if chosen:
                pipeline.cancel(task.task_id)
            return None

    scheduler: Any = made(1000)
    pipeline = await pipeline_of(wire, scheduler=scheduler, selector=Cancelling(SelectorConfig()))
    offer(wire, "a", Offer(MODEL), slots=1)
    offer(wire, "b", Offer("another"), slots=1)
    for _ in range(5):
        ask(pipeline, "lucky")
        ask(pipeline, "unlucky")
    for _ in range(100):
        stream = ask(pipeline, "unlucky", "another")
        stream.cancel("the client has gone")
        with pytest.raises(errors.TaskCancelled):
            await read(stream)
    for number in range(8):
        wire.answer(wire.requests[number][1], usage='{"prompt_tokens": 1, "completion_tokens": 256}')
    served = [request.tenant for _, request in wire.requests]
    assert served[1:7].count("unlucky") >= 3, served
    assert len(scheduler._charges._open) == 1, "of the task that runs"
    assert pipeline.stats()["plugin_failures"] == {}
