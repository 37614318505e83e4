"""Looking for messages instead of sleeping: for how long, and when not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.errors import ConfigError
from anywire.messages import Chunk
from anywire.plugins import Plugins
from anywire.testing.patience import polled
from anywire.testing.rig import Rig, request
from anywire_dds.busy_poll import JUDGED, MISSES, POWER, RESTS, TRIED_AGAIN, BusyPoll

SECONDS = 0.001


class Machine:
    """A clock that a test turns, the part of a core that the loop gets, and a battery."""

    def __init__(self) -> None:
        self.now, self.core_time, self.share = 100.0, 0.0, 1.0
        self.on_battery = False
        self.yields = self.looks_at_power = 0

    def poll(self) -> BusyPoll:
        return BusyPoll(
            SECONDS, clock=lambda: self.now, core_time=lambda: self.core_time,
            on_battery=self._look_at_power, others_first=self._yield,
        )  # fmt: skip

    def _look_at_power(self) -> bool:
        self.looks_at_power += 1
        return self.on_battery

    def _yield(self) -> None:
        self.yields += 1

    async def wait(self, seconds: float) -> None:
        """The time passes, in small parts, and the loop turns after each of them."""
        steps = 20
        for _ in range(steps):
            self.now += seconds / steps
            self.core_time += self.share * seconds / steps
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_the_loop_looks_until_nothing_has_come_for_so_long() -> None:
    machine = Machine()
    poll = machine.poll()
    assert not poll.looks()
    poll.received()
    await machine.wait(0.9 * SECONDS)
    assert poll.looks()
    poll.sent()
    await machine.wait(0.9 * SECONDS)
    assert poll.looks()
    assert machine.yields >= 20
    await machine.wait(0.2 * SECONDS)
    assert not poll.looks()
    turns = machine.yields
    await machine.wait(1.0)
    assert machine.yields == turns


async def test_messages_that_come_late_are_not_looked_for_except_now_and_then() -> None:
    machine = Machine()
    poll = machine.poll()
    looked = []
    for _ in range(3 * TRIED_AGAIN):
        await machine.wait(10 * SECONDS)
        poll.received()
        looked.append(poll.looks())
        await machine.wait(2 * SECONDS)
        poll.sent()  # what it sends in return is no reason to look: its answer comes late too
        assert poll.looks() == looked[-1]
        await machine.wait(2 * SECONDS)
    assert looked[: MISSES - 1] == [True] * (MISSES - 1)
    assert sum(looked[MISSES - 1 :]) == 3
    for _ in range(2):
        poll.received()
        await machine.wait(0.5 * SECONDS)
    assert poll.looks(), "messages come soon again"


async def test_the_loop_sleeps_while_others_want_the_core() -> None:
    machine = Machine()
    poll = machine.poll()
    machine.share = 0.2
    poll.received()
    for _ in range(40):
        await machine.wait(0.5 * SECONDS)
        if not poll.looks():
            break
        poll.sent()
    assert not poll.looks()
    poll.sent()
    assert not poll.looks()
    machine.share = 1.0
    await machine.wait(1.1 * RESTS)
    poll.sent()
    assert poll.looks()
    for _ in range(40):
        await machine.wait(0.5 * SECONDS)
        poll.sent()
    assert poll.looks(), "a core of its own: it goes on"


async def test_short_looks_are_judged_together() -> None:
    machine = Machine()
    poll = machine.poll()
    machine.share = 0.2
    for _ in range(round(JUDGED / SECONDS) + 2):
        poll.sent()
        await machine.wait(1.5 * SECONDS)
    poll.sent()
    assert not poll.looks()


async def test_the_loop_sleeps_on_battery() -> None:
    machine = Machine()
    machine.on_battery = True
    poll = machine.poll()
    for _ in range(5):
        poll.sent()
        assert not poll.looks()
        await machine.wait(SECONDS)
    assert machine.looks_at_power == 1
    machine.on_battery = False
    await machine.wait(1.1 * POWER)
    poll.sent()
    assert poll.looks()


@given(st.lists(st.sampled_from(["sent", "received", "wait", "long"]), max_size=30))
def test_after_its_end_the_loop_sleeps(steps: list[str]) -> None:
    async def main() -> None:
        machine = Machine()
        poll = machine.poll()
        for step in steps:
            if step == "sent":
                poll.sent()
            elif step == "received":
                poll.received()
            else:
                await machine.wait(SECONDS / 4 if step == "wait" else 2 * SECONDS)
        poll.stop()
        poll.stop()
        turns = machine.yields
        for _ in range(3):
            assert not poll.looks()
            poll.sent()
            poll.received()
            await machine.wait(RESTS)
        assert machine.yields == turns

    asyncio.run(main())


async def test_both_ends_of_a_link_look_after_a_message_and_sleep_then(dds_domain: int) -> None:
    async with Rig("dds", {"domain": dds_domain, "busy_poll": 1000}) as rig:
        port, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub("h")
        await sink.event("joined", "a")
        hub.send("a", request(info, "t"))
        task, reply = (await agent.event("task", "t"))[3:5]
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, ("x",), final=True))
        await sink.event("chunk", "t")
        ends: list[Any] = [hub, port]
        polls = [each.inner.endpoints.poll for each in ends]
        assert all(isinstance(each, BusyPoll) for each in polls)

        await polled(lambda: not any(each.looks() for each in polls), "both loops sleep when nothing comes")


@pytest.mark.parametrize("value", [-1, 1001, 0.5])
def test_an_impossible_time_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="busy_poll"):
        Plugins().create("transports", "dds", {"busy_poll": value})


async def test_where_a_system_cannot_let_others_go_first_the_loop_looks_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.sched_yield", raising=False)
    machine = Machine()
    poll = BusyPoll(
        SECONDS, clock=lambda: machine.now, core_time=lambda: machine.core_time, on_battery=lambda: False
    )  # fmt: skip
    poll.received()
    await machine.wait(0.9 * SECONDS)
    assert poll.looks()
    await machine.wait(0.2 * SECONDS)
    assert not poll.looks()
