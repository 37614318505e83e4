"""Checks that take long: what they hold up, and what becomes of them when nobody waits for them any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.deliberation.deliberation_bench import ANN, Council, answers, asked, bench, ended

from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import expect
from anywire.testing.recorder import Recorder
from anywire_service_deliberation.budget import stage_ends
from anywire_service_deliberation.question import Member, Question
from anywire_service_deliberation.record import Check


class SlowCheck:
    """Waits at the first proposal of member-2."""

    kind = "slow"
    recorder: Recorder
    gate: asyncio.Event

    async def check(self, question: Question, member: Member, text: str) -> Check:
        begun = sum(event[1] == member.name for event in self.recorder.named("begun"))
        self.recorder.add("begun", member.name)
        if member.name == "member-2" and not begun:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.recorder.add("cancelled", member.name)
                raise
        return Check(self.kind, True)


CHECKS = [{"kind": "slow", "python": f"{__name__}:SlowCheck"}]


@pytest.fixture(autouse=True)
def recorder() -> Recorder:
    SlowCheck.recorder, SlowCheck.gate = Recorder(), asyncio.Event()
    return SlowCheck.recorder


@pytest.mark.parametrize("text", ["answer", "blank"])
async def test_who_answers_after_being_replaced_is_taken_and_the_newer_try_is_stopped(
    tmp_path: Path, text: str
) -> None:
    """A blank text says nothing: the newer try goes on, and is no failure."""
    clock, tries = SimulatedClock(), Counter[str]()

    class Blank(Council):
        def _text(self, member: str, kind: str, does: str, body: str) -> str:
            return " " if does == "blank" else super()._text(member, kind, does, body)

    def does(member: str, kind: str, number: int) -> str:
        if (member, kind) != ("member-2", "proposal"):
            return "answer"
        tries[member] += 1
        return text if tries[member] == 1 else "hang" if text == "answer" else "answer"

    engine = Blank(does)
    async with bench(tmp_path, clock, engine=engine, checks=CHECKS) as (_, kept):
        taken = await asked(kept, rounds=0)
        await answers(kept, 2)
        if text == "blank":
            engine.hold("proposal")
        share = stage_ends(msgspec.structs.replace(taken, status="generating"), taken.submitted) - taken.submitted
        clock.advance(0.95 * share)
        await engine.recorder.until(lambda: engine.asked("proposal").count("member-2") == 2, "it is replaced")
        engine.hold("score")
        SlowCheck.gate.set()
        if text == "blank":
            engine.release("proposal")
        else:
            await engine.recorder.until(lambda: engine.named("cancelled", "proposal") == ["member-2"], "it is stopped")
        await engine.all_asked("score", 6)
        engine.release("score")
        state = await ended(kept)
    assert state.status == "completed", state.reason
    assert state.answers["proposal/0/member-2"].text.strip()


async def test_checks_end_with_their_deliberation(tmp_path: Path, recorder: Recorder) -> None:
    async with bench(tmp_path, checks=CHECKS) as (_, kept):
        await asked(kept, rounds=0)
        await answers(kept, 2)
        await recorder.until(lambda: ("begun", "member-2") in [event[:2] for event in recorder.events], "it is checked")
        state = await expect(kept.cancel("q-1", ANN, "enough"), "it is cancelled")
        assert state is not None
        assert state.status == "cancelled"
        await recorder.until(lambda: len(recorder.named("cancelled")) == 1, "its check is cancelled")
