"""What is published of a deliberation: the fields of the contract, each message once, the same from any process."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deliberation.acted import Acted, question

from anywire.caller import Caller
from anywire_service_deliberation.record import Deliberation, Failure
from anywire_service_nats.deliberation_messages import due, ids_at_the_end
from anywire_service_nats.envelopes import encode
from anywire_service_nats.outgoing import Outgoing

ALL = ("answers", "deliberations")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
METADATA = {"story_id": "s-1", "plan_id": "p-1", "ceremony_id": "c-1", "task_type": "review", "max_retries": "2"}


def states(members: int = 3, rounds: int = 1, fails: frozenset[str] = frozenset()) -> list[Deliberation]:
    """Every state of a deliberation whose members in ``fails`` have no proposal."""
    acted = Acted(question(members, rounds=rounds, metadata=METADATA, trace=TRACE, priority=3))
    found = [acted.state]
    acted.begin()
    while not acted.state.is_final:
        found.append(acted.state)
        work = next(iter(acted.under_way))
        acted.now += 0.25
        if work.member in fails and work.kind == "proposal":
            acted.fail(work)
        else:
            acted.answer(work, 4.0 if work.kind == "score" else None)
    return [*found, acted.state]


def told(states: list[Deliberation], *, from_the_end: bool = False) -> list[Outgoing]:
    """What a process publishes that sees these states one after the other, or the last one alone."""
    found: list[Outgoing] = []
    put: set[str] = set()
    for state in states[-1:] if from_the_end else states:
        new = due(state, "anywire", ALL, put)
        found += new
        put |= {each.envelope.id for each in new}
    return found


@given(st.integers(1, 4), st.integers(0, 2), st.sets(st.sampled_from(["member-1", "member-2", "member-3"])))
def test_each_message_comes_once_and_a_later_process_makes_the_same(members: int, rounds: int, fails: set[str]) -> None:
    seen = states(members, rounds, frozenset(fails))
    as_it_went = told(seen)
    assert len({each.envelope.id for each in as_it_went}) == len(as_it_went)
    assert set(ids_at_the_end(seen[-1], ALL)) < {each.envelope.id for each in as_it_went}
    at_the_end = told(seen, from_the_end=True)
    assert {each.envelope.id: each for each in as_it_went} == {each.envelope.id: each for each in at_the_end}


@given(st.integers(0, 2))
def test_an_answer_is_told_once_it_cannot_change_any_more(rounds: int) -> None:
    for state in states(3, rounds):
        for each in due(state, "anywire", ("answers",)):
            assert state.is_final or state.status == "scoring" or rounds == 0
            text = each.envelope.payload["proposal"]["content"]
            assert text.startswith("revision" if rounds else "proposal")


def test_all_members_are_counted_by_a_collector() -> None:
    found = [each for each in told(states(3, 1, frozenset({"member-2"}))) if each.subject.startswith("agent.")]
    assert [each.subject.rpartition(".")[2] for each in found] == ["completed", "failed", "completed"]
    payloads = [each.envelope.payload for each in found]
    assert {each["task_id"] for each in payloads} == {"q-1"}
    assert {each["num_agents"] for each in payloads} == {3}
    assert [each["agent_id"] for each in payloads] == ["member-1", "member-2", "member-3"]


COMPLETED = """task_id status agent_id role num_agents proposal duration_ms timestamp constraints artifacts summary
metrics workspace_report""".split()
FAILED = "task_id agent_id error role error_type num_agents duration_ms timestamp".split()


def test_the_fields_are_those_of_the_contract() -> None:
    by_subject = {each.subject: each.envelope for each in told(states(2, 1, frozenset()))}
    answer = by_subject["agent.response.completed"].payload
    assert set(COMPLETED) <= set(answer)
    assert answer["proposal"]["content"] == "revision/1/member-2"
    assert answer["constraints"] == {
        "story_id": "s-1",
        "plan_id": "p-1",
        "timeout_seconds": 300,
        "max_retries": 2,
        "metadata": {
            "story_id": "s-1",
            "ceremony_id": "c-1",
            "task_type": "review",
            "task_id": "q-1",
            "num_agents": 2,
        },
    }
    assert set(answer["metrics"]) == {"tokens_in", "tokens_out", "latency_ms"}
    assert {"story_id", "task_id", "decisions", "timestamp"} <= set(
        by_subject["orchestration.deliberation.completed"].payload
    )
    dispatched = by_subject["orchestration.task.dispatched"].payload
    assert (dispatched["task_id"], dispatched["story_id"], dispatched["role"]) == ("q-1", "s-1", "DEV")
    result = by_subject["deliberation.completed"].payload
    assert (result["status"], result["winner"]) == ("completed", result["ranking"][0]["member"])
    assert result["answer"].startswith("revision")
    for each in by_subject.values():
        assert (each.correlation, each.trace, each.priority) == ("q-1", TRACE, 3)


def test_the_fields_of_what_failed_are_those_of_the_contract() -> None:
    found = told(states(2, 1, frozenset({"member-1", "member-2"})))
    by_subject = {each.subject: each.envelope.payload for each in found}
    assert set(FAILED) <= set(by_subject["agent.response.failed"])
    ended = by_subject["orchestration.deliberation.failed"]
    assert (ended["task_id"], bool(ended["error"])) == ("q-1", True)
    assert by_subject["deliberation.failed"]["status"] == "failed"


def test_a_member_that_is_still_asked_when_it_is_cancelled_has_failed() -> None:
    acted = Acted(question(3))
    acted.begin()
    acted.answer(next(iter(acted.under_way)))
    cancelled = msgspec.structs.replace(acted.state, status="cancelled", reason="enough", ended=acted.now + 1)
    found = due(cancelled, "anywire", ("answers",))
    assert [each.subject.rpartition(".")[2] for each in found] == ["completed", "failed", "failed"]
    assert found[1].envelope.payload["error"] == "enough"


def test_two_deliberations_of_one_id_have_messages_of_their_own() -> None:
    state = states(2)[-1]
    later = msgspec.structs.replace(state, submitted=state.submitted + 4000)
    asked = msgspec.structs.replace(state.question, caller=Caller("bob", "other"))
    others = msgspec.structs.replace(state, question=asked)
    ids = [{each.envelope.id for each in due(one, "anywire", ALL)} for one in (state, later, others)]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


@pytest.mark.parametrize("kind", ["answers", "deliberations"])
def test_nothing_is_told_that_is_not_asked_for(kind: str) -> None:
    subjects = {each.subject.partition(".")[0] for each in due(states(2)[-1], "anywire", (kind,))}
    assert subjects == ({"agent"} if kind == "answers" else {"orchestration", "deliberation"})


def test_what_is_too_large_has_a_shorter_form() -> None:
    for each in due(states(2)[-1], "anywire", ALL):
        if each.instead is None:
            continue
        subject, envelope = each.instead
        assert envelope.id == each.envelope.id
        assert each.envelope.payload["task_id"] == envelope.payload["task_id"]
        if subject == "agent.response.failed":
            assert envelope.payload["error_type"] == "payload_too_large"
        else:
            assert envelope.payload["answer_left_out"]


def test_both_forms_hold_every_message() -> None:
    failed = Failure("agent_lost", "it went", tries=2, at=1_700_000_001.0)
    state = msgspec.structs.replace(states(2)[-1], failures={"critique/1/member-1/member-2": failed})
    for each in due(state, "anywire", ALL):
        assert encode(each.envelope, "payload")
        assert encode(each.envelope, "flat")
