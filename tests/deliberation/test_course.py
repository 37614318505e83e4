"""The course of a deliberation, event by event."""

from __future__ import annotations

import pytest
from tests.deliberation.acted import SUBMITTED, Acted, question, work

from anywire_service_deliberation.budget import ends_by
from anywire_service_deliberation.course import Course
from anywire_service_deliberation.effects import Finished, Keep
from anywire_service_deliberation.question import MAX_MEMBERS
from anywire_service_deliberation.record import Answer, WorkId


def begun(members: int = 3, **changes: object) -> Acted:
    acted = Acted(question(members, **changes))
    acted.begin()
    return acted


def under_way(acted: Acted) -> list[str]:
    return [str(each) for each in acted.under_way]


def test_from_the_submission_to_the_winner() -> None:
    acted = begun(3, synthesis=True)
    assert acted.status() == "generating"
    assert under_way(acted) == ["proposal/0/member-1", "proposal/0/member-2", "proposal/0/member-3"]
    acted.answer_all()
    assert (acted.status(), acted.state.round) == ("critiquing", 1)
    assert len(acted.under_way) == 6
    assert not [each for each in acted.under_way if each.member == each.about]
    acted.answer_all()
    assert (acted.status(), acted.state.round) == ("revising", 1)
    assert under_way(acted) == ["revision/1/member-1", "revision/1/member-2", "revision/1/member-3"]
    acted.answer_all()
    assert acted.status() == "scoring"
    assert len(acted.under_way) == 6
    for each in list(acted.under_way):
        acted.answer(each, 5.0 if each.about == "member-2" else 3.0)
    assert acted.state.winner == "member-2"
    assert (acted.status(), acted.state.is_final) == ("scoring", False)
    assert under_way(acted) == ["synthesis/0/member-2"]
    acted.now += 7
    acted.answer_all()
    assert [state.status for state in acted.finished] == ["completed"]
    assert acted.state.synthesis == "synthesis/0/member-2"
    assert acted.state.reason == ""
    assert acted.state.ended == SUBMITTED + 7
    assert acted.state.ranking[0].member == "member-2"
    assert all(ask.tries == 1 and ask.avoid == () for ask in acted.asks)


def test_all_works_of_a_stage_are_asked_for_at_once_and_kept_before() -> None:
    acted = Acted(question(MAX_MEMBERS, rounds=0))
    effects = acted.course.begin(acted.now)
    assert isinstance(effects[0], Keep)
    acted._carry_out(effects)
    assert len(acted.under_way) == MAX_MEMBERS
    acted.answer_all()
    assert len(acted.under_way) == MAX_MEMBERS * (MAX_MEMBERS - 1)


def test_rounds_follow_each_other() -> None:
    acted = begun(3, rounds=2)
    seen = []
    while not acted.finished:
        seen.append((acted.status(), acted.state.round))
        acted.answer_all()
    assert seen == [
        ("generating", 0),
        ("critiquing", 1),
        ("revising", 1),
        ("critiquing", 2),
        ("revising", 2),
        ("scoring", 2),
    ]


def test_a_failed_work_is_tried_once_more_and_avoids_who_failed() -> None:
    acted = begun()
    acted.fail("proposal/0/member-2", again=True)
    ask = acted.asks[-1]
    assert (str(ask.work), ask.tries, ask.avoid) == ("proposal/0/member-2", 2, ("agent 1 of member-2",))
    acted.fail("proposal/0/member-2", again=True)
    assert len(acted.asks) == 4
    failure = acted.state.failures["proposal/0/member-2"]
    assert (failure.tries, failure.agent) == (2, "agent 2 of member-2")
    while not acted.finished:
        acted.answer_all()
    assert acted.status() == "degraded"
    assert acted.state.reason == "member-2: no proposal (agent_lost: agent_lost says why)"
    assert not [
        each
        for each in acted.asks
        if "member-2" in (each.work.member, each.work.about) and each.work.kind != "proposal"
    ]


def test_a_work_that_was_replaced_with_success_is_no_degradation() -> None:
    acted = begun()
    acted.fail("proposal/0/member-2", again=True)
    while not acted.finished:
        acted.answer_all()
    assert acted.status() == "completed"
    assert [failure.code for failure in acted.state.retried["proposal/0/member-2"]] == ["agent_lost"]


def test_a_refusal_is_not_tried_again() -> None:
    acted = begun()
    acted.fail("proposal/0/member-2", "forbidden", again=False)
    assert len(acted.asks) == 3


def test_the_failure_of_an_earlier_try_changes_nothing() -> None:
    acted = begun()
    acted.fail("proposal/0/member-2", again=True)
    acted.fail("proposal/0/member-2", again=True, tries=1)
    assert work("proposal/0/member-2") in acted.under_way
    assert not acted.state.failures


def test_nonsense_scores_are_counted_and_dropped() -> None:
    acted = begun(3, rounds=0)
    acted.answer_all()
    acted.fail("score/0/member-1/member-2", "nonsense", again=True)
    acted.fail("score/0/member-1/member-2", "nonsense", again=True)
    acted.answer("score/0/member-1/member-3", float("nan"), ended=1.0)
    assert acted.state.dropped == 3
    twice = Answer("score/0/member-1/member-3", score=float("nan"), agent="agent of member-1", ended=1.0)
    assert acted.course.answered(work("score/0/member-1/member-3"), twice, acted.now) == []
    assert len(acted.under_way) == 5
    acted.answer("score/0/member-1/member-3", 17.0, ended=2.0)
    assert acted.state.dropped == 4
    acted.answer_all()
    assert acted.status() == "degraded"
    assert "member-1: 2 scores missing (nonsense 2 times: " in acted.state.reason
    assert all("member-1" not in each.scores for each in acted.state.ranking if each.member != "member-1")


def test_an_empty_proposal_is_no_proposal() -> None:
    acted = begun()
    for ended in (1.0, 2.0):
        acted.under_way.pop(work("proposal/0/member-1"))
        acted._carry_out(acted.course.answered(work("proposal/0/member-1"), Answer(" \n", ended=ended), acted.now))
    assert acted.state.failures["proposal/0/member-1"].code == "nonsense"
    assert acted.state.dropped == 0


def test_below_the_quorum_nobody_wins_and_proposals_are_kept() -> None:
    acted = begun(3, quorum=3)
    acted.fail("proposal/0/member-3")
    acted.answer_all()
    assert acted.status() == "failed"
    assert acted.state.reason == (
        "2 of 3 members have a proposal, 3 must: member-3: no proposal (agent_lost: agent_lost says why)"
    )
    assert (acted.state.winner, acted.state.ranking) == ("", ())
    assert set(acted.state.answers) == {"proposal/0/member-1", "proposal/0/member-2"}


def test_proposals_that_nobody_scored_do_not_count() -> None:
    acted = begun(3, rounds=0)
    acted.answer_all()
    for each in list(acted.under_way):
        acted.fail(each, "nonsense")
    assert acted.status() == "failed"
    assert acted.state.reason.startswith("3 of 3 members have a proposal, 0 of them scored, 1 must: member-1: 2 scores")
    assert len(acted.state.answers) == 3


def test_the_only_proposal_needs_no_score() -> None:
    acted = begun(1, rounds=3)
    acted.answer_all()
    assert (acted.status(), acted.state.winner) == ("completed", "member-1")
    assert len(acted.asks) == 1


def test_the_only_proposal_that_is_left_wins_where_the_quorum_allows_it() -> None:
    acted = begun(3)
    acted.fail("proposal/0/member-1")
    acted.fail("proposal/0/member-2")
    acted.answer_all()
    assert (acted.status(), acted.state.winner) == ("degraded", "member-3")


def test_who_was_not_criticised_does_not_revise_and_a_failed_revision_keeps_the_proposal() -> None:
    acted = begun(3)
    acted.answer_all()
    for each in list(acted.under_way):
        if each.about == "member-1":
            acted.fail(each)
    acted.answer_all()
    assert under_way(acted) == ["revision/1/member-2", "revision/1/member-3"]
    acted.fail("revision/1/member-2")
    acted.answer_all()
    assert acted.status() == "scoring"
    assert len(acted.under_way) == 6


def test_a_stage_has_its_share_of_what_is_left() -> None:
    acted = begun(3, timeout=160.0, synthesis=True)
    end = ends_by(acted.kept)
    assert end == SUBMITTED + 159
    assert acted.wakes_at - SUBMITTED == pytest.approx(159 * 4 / (4 + 2 * 2 + 4 + 2 * 1.5 + 3))
    acted.now += 15
    acted.answer_all()
    assert acted.wakes_at - acted.now == pytest.approx(144 * 4 / (4 + 4 + 3 + 3))
    assert {ask.deadline for ask in acted.under_way.values()} == {acted.wakes_at}


def test_the_promise_is_kept_when_nobody_answers_and_it_says_timed_out() -> None:
    acted = begun(3, timeout=100.0)
    acted.pass_time(1000)
    assert acted.status() == "timed_out"
    assert acted.state.reason.startswith("0 of 3 members have a proposal, 1 must: member-1: no proposal (late: ")
    assert acted.state.ended <= SUBMITTED + 100
    assert {str(each) for each in acted.stops} == set(acted.state.failures)


def test_without_a_quorum_the_proposals_take_from_the_time_of_what_follows() -> None:
    acted = begun(3, timeout=100.0)
    first_share = acted.wakes_at
    acted.pass_time(first_share - acted.now + 1)
    assert acted.status() == "generating"
    assert not acted.stops
    acted.answer("proposal/0/member-1")
    assert acted.status() == "generating"
    acted.answer("proposal/0/member-2")
    acted.pass_time(acted.wakes_at - acted.now)
    assert acted.status() == "critiquing"
    assert list(acted.state.failures) == ["proposal/0/member-3"]


def test_the_stage_ends_at_its_time_and_late_answers_are_listed_and_not_counted() -> None:
    acted = begun(3, timeout=100.0)
    acted.answer("proposal/0/member-1")
    acted.answer("proposal/0/member-2")
    while acted.status() == "generating":
        acted.pass_time(acted.wakes_at - acted.now)
    assert acted.state.failures["proposal/0/member-3"].code == "late"
    acted.answer("proposal/0/member-3")
    acted.answer("proposal/0/member-3")
    assert list(acted.state.late) == ["proposal/0/member-3"]
    assert len(acted.under_way) == 2
    while not acted.finished:
        acted.answer_all()
    assert acted.status() == "degraded"
    assert acted.state.reason.startswith("member-3: no proposal (late: ")


def test_a_try_that_hangs_is_replaced_and_the_first_answer_counts() -> None:
    acted = begun(5, timeout=100.0)
    acted.now += 2
    for number in range(1, 5):
        acted.answer(f"proposal/0/member-{number}")
    ends = acted.asks[0].deadline
    acted.pass_time(acted.wakes_at - acted.now)
    assert acted.now < ends
    assert acted.stops == [work("proposal/0/member-5")]
    assert (acted.asks[-1].tries, len(acted.asks)) == (2, 6)
    assert acted.state.retried["proposal/0/member-5"][0].code == "hanging"
    acted.fail("proposal/0/member-5", "cancelled", tries=1)
    assert not acted.state.failures
    acted.answer("proposal/0/member-5")
    while not acted.finished:
        acted.answer_all()
    assert acted.status() == "completed"


def test_a_machine_that_is_merely_busy_is_not_asked_twice() -> None:
    """One slot for five members, each takes a sixth of the stage."""
    acted = begun(5, timeout=100.0)
    each = (acted.wakes_at - acted.now) / 6
    for number in range(1, 6):
        acted.pass_time(each)
        acted.answer(f"proposal/0/member-{number}")
    assert len([ask for ask in acted.asks if ask.work.kind == "proposal"]) == 5


def test_cancelling_stops_every_work_and_keeps_what_is_there() -> None:
    acted = begun(4)
    acted.answer("proposal/0/member-1")
    acted.cancel()
    assert acted.status() == "cancelled"
    assert acted.state.reason == "the client has gone"
    assert len(acted.stops) == 3
    assert list(acted.state.answers) == ["proposal/0/member-1"]
    acted.cancel("again")
    acted.answer("proposal/0/member-2")
    acted.pass_time(1000)
    assert len(acted.finished) == 1
    assert list(acted.state.answers) == ["proposal/0/member-1"]


def test_it_can_be_cancelled_before_it_begins() -> None:
    acted = Acted(question())
    acted.cancel()
    acted.begin()
    assert (acted.status(), acted.asks) == ("cancelled", [])


def test_one_that_is_cancelled_after_a_restart_before_it_goes_on_is_cancelled_in_any_stage() -> None:
    acted = begun(2, rounds=0)
    acted.answer_all()
    acted.answer("score/0/member-1/member-2")
    acted.under_way.clear()
    acted.course = Course(acted.kept)
    acted.cancel()
    assert (acted.status(), acted.state.winner, acted.stops) == ("cancelled", "", [])


def test_a_deadline_that_the_pipeline_noticed_is_want_of_time() -> None:
    acted = begun(1)
    acted.fail("proposal/0/member-1", "deadline_exceeded")
    assert acted.status() == "timed_out"


def test_after_a_restart_the_missing_works_alone_are_asked_for() -> None:
    acted = begun(3)
    acted.answer("proposal/0/member-1")
    acted.fail("proposal/0/member-2", again=True)
    acted.asks.clear()
    acted.restart(down=5)
    assert [(str(ask.work), ask.tries) for ask in acted.asks] == [
        ("proposal/0/member-2", 2),
        ("proposal/0/member-3", 1),
    ]
    assert acted.asks[0].avoid == ("agent 1 of member-2",)
    acted.begin()
    assert len(acted.asks) == 2
    while not acted.finished:
        acted.answer_all()
        if not acted.finished:
            acted.restart(down=1)
    assert acted.status() == "completed"


def test_the_time_that_the_orchestrator_was_down_is_not_charged_to_a_stage_but_to_the_whole() -> None:
    acted = begun(3, timeout=100.0)
    acted.answer("proposal/0/member-1")
    acted.restart(down=50)
    assert acted.status() == "generating"
    assert len(acted.under_way) == 2
    assert acted.now < acted.wakes_at < SUBMITTED + 100
    acted.restart(down=60)
    assert acted.status() == "timed_out"


def test_one_that_has_ended_says_so_when_it_is_begun_again() -> None:
    acted = begun(1)
    acted.answer_all()
    acted.finished.clear()
    acted.restart()
    assert acted.finished == [acted.state]
    assert isinstance(acted.course.begin(acted.now), list)


def test_events_before_the_beginning_have_no_effects() -> None:
    acted = Acted(question())
    acted.answer("proposal/0/member-1")
    acted.fail("proposal/0/member-1")
    acted.wake()
    assert acted.status() == "submitted"
    assert not acted.state.answers


def test_what_was_never_asked_for_has_no_effects() -> None:
    acted = begun(2, rounds=0)
    before = acted.state
    for text in (
        "score/0/member-1/member-2",
        "proposal/0/stranger",
        "critique/1/member-1/member-2",
        "proposal/7/member-1",
    ):
        acted.answer(text)
        acted.fail(text)
    assert acted.state is before


def test_a_synthesis_that_fails_degrades_and_leaves_the_winner() -> None:
    acted = begun(2, rounds=0, synthesis=True)
    acted.answer_all()
    acted.answer_all()
    acted.fail(f"synthesis/0/{acted.state.winner}")
    assert acted.status() == "degraded"
    assert acted.state.winner
    assert "no synthesis (agent_lost" in acted.state.reason


def test_the_time_is_over_before_the_synthesis() -> None:
    acted = begun(2, rounds=0, synthesis=True, timeout=50.0)
    acted.answer_all()
    acted.answer_all()
    acted.pass_time(100)
    assert (acted.status(), acted.state.synthesis) == ("degraded", "")
    assert acted.state.ended <= SUBMITTED + 50


def test_wakes_too_early_and_clocks_that_go_back_do_no_harm() -> None:
    acted = begun(3)
    at = acted.wakes_at
    acted.now -= 1000
    acted.wakes_at = 0.0
    acted.wake()
    assert acted.wakes_at == at
    acted.now -= 500
    acted.answer_all()
    assert acted.status() == "critiquing"
    assert acted.wakes_at - SUBMITTED == pytest.approx(299 * 4 / (4 + 4 + 3))


def test_the_text_of_a_work_names_it() -> None:
    for each in (WorkId("critique", 2, "member-2", "member-3"), WorkId("proposal", 0, "member-1")):
        assert WorkId.of(str(each)) == each


def test_the_end_is_the_last_effect() -> None:
    acted = begun(1)
    effects = acted.course.answered(work("proposal/0/member-1"), Answer("yes"), acted.now)
    assert [type(effect) for effect in effects] == [Keep, Finished]
