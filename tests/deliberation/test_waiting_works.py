"""Work that waits for a free slot, behind that of others, does not hang."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tests.deliberation.deliberation_bench import BOB, Council, answers, asked, bench, ended
from tests.deliberation.test_running import joined

from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.patience import polled
from anywire_service_deliberation.budget import HANGING_AFTER_S, stage_ends

BUSY = "busy"


async def test_work_that_waits_for_a_slot_keeps_its_place(tmp_path: Path) -> None:
    clock = SimulatedClock()
    busy = Council(models=(BUSY,))
    busy.hold("proposal")
    async with bench(tmp_path, clock) as (served, kept):
        other = await joined(served, busy)
        try:
            await asked(kept, BOB, id="q-0", members=[{"model": BUSY}])
            await busy.all_asked("proposal", 1)
            taken = await asked(kept, members=[{"model": MODEL}, {"model": BUSY}], rounds=0)
            await answers(kept, 1)
            share = stage_ends(msgspec.structs.replace(taken, status="generating"), taken.submitted) - taken.submitted
            for part in (0.6, 0.2, 0.1):
                clock.advance(part * share)
                await polled(lambda: clock.now() > 0, "time has passed")
            busy.release("proposal")
            state = await ended(kept)
        finally:
            await other.close()
    assert state.status == "completed", state.reason
    assert not state.retried
    assert busy.asked("proposal") == ["member-1", "member-2"]


async def test_work_that_hangs_once_it_has_a_slot_is_replaced(tmp_path: Path) -> None:
    clock = SimulatedClock()

    def does(member: str, kind: str, number: int) -> str:
        return "hang" if kind == "proposal" and len(busy.asked(kind)) <= 2 else "answer"

    busy = Council(does, models=(BUSY,))
    async with bench(tmp_path, clock) as (served, kept):
        other = await joined(served, busy)
        try:
            await asked(kept, BOB, id="q-0", members=[{"model": BUSY}])
            await busy.all_asked("proposal", 1)
            await asked(kept, members=[{"model": MODEL}, {"model": BUSY}], rounds=0)
            await answers(kept, 1)
            clock.advance(1.2 * HANGING_AFTER_S)
            assert await kept.cancel("q-0", BOB) is not None
            await busy.all_asked("proposal", 2)
            clock.advance(1.2 * HANGING_AFTER_S)
            await busy.all_asked("proposal", 3)
            state = await ended(kept)
        finally:
            await other.close()
    assert state.status == "completed", state.reason
    assert [(each.code, each.agent) for each in state.retried["proposal/0/member-2"]] == [("hanging", MODEL)]
