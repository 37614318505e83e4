"""Deliberations as tasks of a pipeline: who is asked what and when, and what comes of it."""

from __future__ import annotations

from pathlib import Path

from tests.deliberation.deliberation_bench import ANN, Council, asked, bench, ended


async def test_members_propose_criticise_revise_and_score_and_one_wins(tmp_path: Path) -> None:
    engine = Council()
    async with bench(tmp_path, engine=engine) as (served, kept):
        taken = await asked(kept)
        assert taken.status == "submitted"
        state = await ended(kept)
        assert (state.status, state.reason) == ("completed", "")
        assert state.winner == state.ranking[0].member
        assert [engine.asked(kind).__len__() for kind in ("proposal", "critique", "revision")] == [3, 6, 3]
        answer = state.answers["proposal/0/member-1"]
        assert (answer.agent, answer.transport, answer.attempts) == ("agent", "memory", 1)
        assert (answer.prompt_tokens, answer.completion_tokens) == (10, 5)
        assert state.submitted <= answer.began <= answer.ended <= state.ended <= state.deadline
        assert not served.orchestrator.tasks()
        assert await kept.get("q-1", ANN) == state
