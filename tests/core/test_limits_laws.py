"""Limits as laws: whatever comes in whatever order, none is exceeded, and nothing is refused that is within them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.long_form import examples

from anywire.caller import Caller, Limits
from anywire.errors import LimitReached
from anywire.pipeline.tasks.limits import DAY, WINDOW, CallerLimits, Share
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, Script
from anywire.testing.rig import Rig, read

CALLERS = ("a", "b")
LIMITS = st.builds(
    Limits,
    requests_per_minute=st.integers(0, 4),
    concurrency=st.integers(0, 3),
    tokens_per_day=st.sampled_from((0, 1, 20, 60)),
)


class _Running:
    def __init__(self, share: Share, root: str, reserved: int, parent: _Running | None) -> None:
        self.share, self.root, self.reserved, self.parent = share, root, reserved, parent
        self.below = 0


class LimitsMachine(RuleBasedStateMachine):
    """Beside the counters: everything that ever happened, from which each count is made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.limits = CallerLimits(self.clock, self.wall)
        self.taken: list[tuple[str, float]] = []
        self.running: list[_Running] = []
        self.ended: list[tuple[str, int, int]] = []
        """Caller, day and tokens."""
        self.allowed: dict[str, Limits] = {}

    def wall(self) -> float:
        return 100 * DAY + self.clock.now()

    @rule(caller_id=st.sampled_from(CALLERS), limits=LIMITS)
    def change(self, caller_id: str, limits: Limits) -> None:
        self.allowed[caller_id] = limits

    @rule(
        caller_id=st.sampled_from(CALLERS),
        prompt=st.integers(0, 10),
        longest=st.sampled_from((0, 5, 100)),
        is_kept=st.booleans(),
    )
    def take(self, caller_id: str, prompt: int, longest: int, is_kept: bool) -> None:
        limits = self.allowed.get(caller_id, Limits())
        expected = self.reached(caller_id, limits)
        if expected:
            with pytest.raises(LimitReached, match="|".join(expected)) as reached:
                self.limits.take(Caller(caller_id, limits=limits), prompt, longest)
            assert reached.value.retry_after > 0
            return
        share = self.limits.take(Caller(caller_id, limits=limits), prompt, longest)
        if not is_kept:
            self.limits.give_back(share)
            return
        if limits.requests_per_minute:
            self.taken.append((caller_id, self.clock.now()))
        self.running.append(_Running(share, caller_id, prompt + longest, None))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), prompt=st.integers(0, 10))
    def take_child(self, data: Any, prompt: int) -> None:
        parent = data.draw(st.sampled_from(self.running))
        if self.tokens_reached(parent.root, parent.share.limits):
            with pytest.raises(LimitReached, match="tokens_per_day"):
                self.limits.take_child(parent.share, prompt, 0)
            return
        share = self.limits.take_child(parent.share, prompt, 0)
        self.running.append(_Running(share, parent.root, prompt, parent))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(0, 30))
    def end(self, data: Any, tokens: int) -> None:
        ending = data.draw(st.sampled_from(self.running))
        self.running.remove(ending)
        self.limits.end(ending.share, tokens)
        own, total = max(0, tokens - ending.below), max(tokens, ending.below)
        if ending.parent is not None:
            ending.parent.below += total
        if ending.share.limits.tokens_per_day:
            self.ended.append((ending.root, self.day, own))

    @rule(seconds=st.sampled_from((0.5, 10.0, 30.0, 60.0, 7200.0, 86400.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @property
    def day(self) -> int:
        return int(self.wall() // DAY)

    def used(self, caller_id: str) -> int:
        return sum(tokens for who, day, tokens in self.ended if (who, day) == (caller_id, self.day))

    def reserved(self, caller_id: str) -> int:
        return sum(each.reserved for each in self.running if each.root == caller_id)

    def tokens_reached(self, caller_id: str, limits: Limits) -> bool:
        return 0 < limits.tokens_per_day <= self.used(caller_id) + self.reserved(caller_id)

    def reached(self, caller_id: str, limits: Limits) -> list[str]:
        """The limits that forbid another task now."""
        recent = sum(who == caller_id and when > self.clock.now() - WINDOW for who, when in self.taken)
        running = sum(each.root == caller_id and each.parent is None for each in self.running)
        return [
            name
            for name, is_reached in (
                ("requests_per_minute", 0 < limits.requests_per_minute <= recent),
                ("concurrency", 0 < limits.concurrency <= running),
                ("tokens_per_day", self.tokens_reached(caller_id, limits)),
            )
            if is_reached
        ]

    @invariant()
    def saves_all_that_is_used(self) -> None:
        day, spent, before = self.limits.take_unsaved()
        for caller_id, tokens in spent.items():
            assert tokens + before[caller_id] == self.used(caller_id)
        self.limits.keep_unsaved(day, spent)


def test_limits_are_kept_and_nothing_else_is_refused() -> None:
    run_state_machine_as_test(LimitsMachine, settings=settings(max_examples=examples(25), stateful_step_count=40))


async def test_two_hundred_submissions_at_once_are_counted_exactly() -> None:
    keys = [
        Caller("rate", limits=Limits(requests_per_minute=37)),
        Caller("at once", limits=Limits(concurrency=23)),
        Caller("tokens", limits=Limits(tokens_per_day=1_000_000_000)),
        Caller("none"),
    ]
    async with Rig("memory", {"network": "limits"}) as rig:
        await rig.agent("a", slots=64)
        pipeline = await rig.pipeline("a")
        script = Script("x", 2)

        async def ask(caller: Caller) -> str:
            try:
                stream = pipeline.submit(Submission("chat", MODEL, script.body(), True, caller=caller))
            except LimitReached:
                return "refused"
            return await read(stream)

        told = await asyncio.gather(*(ask(caller) for _ in range(50) for caller in keys))
        taken = {each.id: sum(text != "refused" for text in told[n::4]) for n, each in enumerate(keys)}
        assert taken == {"rate": 37, "at once": 23, "tokens": 50, "none": 50}
        assert pipeline.stats()["events"]["limits_reached"] == 200 - sum(taken.values())
        _, spent, _ = pipeline.limits.take_unsaved()
        assert spent == {"tokens": 100}
        # All have ended, so that as many as before may be under way.
        told = await asyncio.gather(*(ask(keys[1]) for _ in range(50)))
        assert sum(text != "refused" for text in told) == 23
