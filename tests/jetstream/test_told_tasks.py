"""Events of tasks on their way to the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from anywire.clock import SystemClock
from anywire.context import Context
from anywire.events import TaskDispatched, TaskEnded
from anywire.testing.patience import polled
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.told_tasks import ToldTasks, task_message


class Box:
    """A publisher that cannot hold one message, as an outbox raises for it."""

    def __init__(self, bad: str) -> None:
        self._bad = bad
        self.kept: list[str] = []

    async def put(self, messages: Sequence[Outgoing]) -> None:
        if any(each.order == self._bad for each in messages):
            raise ValueError("a message holds what is no JSON")
        self.kept += [each.order for each in messages]


async def test_an_event_that_no_message_can_hold_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    events = SimpleNamespace(subscribe=lambda name, callback, *kinds: heard.append(callback) or (lambda: None))
    box = Box("t-7")
    told = ToldTasks(cast("Context", SimpleNamespace(events=events, clock=SystemClock())), box, "anywire")
    await told.start()
    for number in range(300):
        heard[0](
            TaskDispatched(
                id=f"e-{number}",
                at_ns=0,
                time=0.0,
                task_id=f"t-{number}",
                attempt=1,
                agent_id="a",
                transport="memory",
                selector="first",
                candidates=1,
                waited_ms=0.0,
                model="m",
            )
        )
    await polled(lambda: len(box.kept) == 299, "all others are put")
    assert box.kept == [f"t-{number}" for number in range(300) if number != 7]
    assert told.lost == 1
    await told.close()
    assert len([each for each in caplog.messages if "t-7" in each]) == 1


def ended(number: int, error: str) -> TaskEnded:
    return TaskEnded(
        id=f"life-{number}",
        at_ns=0,
        time=0.0,
        task_id="t-1",
        kind="chat",
        model="m",
        agent_id="a",
        transport="memory",
        attempts=1,
        error=error,
        chunks=0,
        prompt_chars=0,
        stages={},
    )


async def test_a_background_task_that_is_run_again_under_its_id_is_told_again(tmp_path: Path) -> None:
    """It has ended because its process did; the next one completes it."""
    box = Outbox(tmp_path, "payload", 100, 10**6)
    await box.open()
    for event in (ended(1, "shutting_down"), ended(1, "shutting_down"), ended(2, "")):
        await box.put([task_message(event, "anywire")])
    assert [each.subject for each in await box.step([], (), 10, 10**6)] == ["task.failed", "task.completed"]
    await box.close()
