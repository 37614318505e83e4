"""After a restart members are asked in the form of their models, which the agents have to tell first."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deliberation.deliberation_bench import Council, asked, bench, ended, status
from tests.deliberation.test_running import joined

from anywire.engine import EngineStatus
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.testing.doubles import MODEL


class Structured(Council):
    """Its model is asked for scores by a JSON schema."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", (Offer(MODEL, features={"json": True}),))


def asked_for_scores(engine: Council) -> list[TaskRequest]:
    return [event[3] for event in engine.recorder.named("asked") if event[2] == "score"]


@pytest.mark.parametrize("there", [True, False], ids=["its agent is there", "its agent comes later"])
async def test_a_score_is_asked_in_the_same_form_before_and_after(tmp_path: Path, there: bool) -> None:
    first = Structured()
    first.hold("score")
    async with bench(tmp_path, engine=first) as (_, kept):
        await asked(kept)
        await first.all_asked("score", 6)
    before = {(task.session, task.body) for task in asked_for_scores(first)}
    assert all("response_format" in body for _, body in before)
    later = Structured()
    async with bench(tmp_path, engine=later if there else Council(models=("another",))) as (served, kept):
        await status(kept, "scoring")
        other = None if there else await joined(served, later)
        try:
            assert (await ended(kept)).status == "completed"
        finally:
            if other is not None:
                await other.close()
    assert {(task.session, task.body) for task in asked_for_scores(later)} == before
