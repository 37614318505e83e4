"""Laws of counting: what any order of answers, failures and repeats does to a task."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.jetstream.any_json import ANY_JSON
from tests.long_form import examples

from anywire.collected_answers import CollectedAnswer, CollectedTask
from anywire_service_nats.collector.counting import counted, timed
from anywire_service_nats.collector.database import MAX_TASK_BYTES, Database
from anywire_service_nats.collector.heard import MAX_AGENTS, MAX_PROPOSAL_BYTES, Heard, NotAnAnswer, read_heard
from anywire_service_nats.collector.told import MAX_TEXT_BYTES, is_completed, told, told_shorter

LIMIT = 300.0

_heard = st.builds(
    lambda agent, failed, at, wanted: Heard(
        "t",
        CollectedAnswer(agent, "DEV", None if failed else {"content": agent}, "broken" if failed else "", at=at),
        wanted,
    ),
    st.sampled_from("abcdef"),
    st.booleans(),
    st.floats(0, 500),
    st.sampled_from((0, 3, 3, 3, 5)),
)


def _all(heard: list[Heard]) -> list[CollectedTask]:
    """The task after each of them, in the order of their times."""
    states: list[CollectedTask] = []
    for each in sorted(heard, key=lambda each: each.answer.at):
        states.append(counted(states[-1] if states else None, each, LIMIT))
    return states


@settings(max_examples=examples(100))
@given(st.lists(_heard, min_size=1, max_size=12))
def test_an_agent_counts_once_and_the_end_is_the_end(heard: list[Heard]) -> None:
    states = _all(heard)
    for before, after in pairwise(states):
        if before.is_final:
            assert after is before
        assert len(before.answers) <= len(after.answers)
        assert after.deadline == before.deadline
    for state in states:
        agents = [each.agent_id for each in state.answers]
        assert len(set(agents)) == len(agents)
        assert not state.is_final or state.began <= state.ended <= state.deadline


@settings(max_examples=examples(100))
@given(st.lists(_heard, min_size=1, max_size=12))
def test_a_task_ends_with_its_last_agent_or_with_its_time(heard: list[Heard]) -> None:
    last = _all(heard)[-1]
    ended = timed(last, last.deadline)
    assert ended.is_final
    is_complete = 0 < ended.wanted <= len(ended.answers)
    assert (ended.status == "timed_out") == (bool(ended.wanted) and not is_complete)
    if ended.status == "completed":
        assert ended.completed
        assert {each.agent_id for each in ended.answers if each.failed} == set(_failures(ended.reason))
    if ended.status == "failed":
        assert not ended.completed
    assert is_completed(ended) == (ended.status == "completed")
    assert last is timed(last, last.deadline - 0.001) or last.is_final


def _failures(reason: str) -> list[str]:
    return [each.partition(":")[0] for each in reason.split("; ") if each]


@settings(max_examples=examples(100))
@given(st.lists(_heard, min_size=1, max_size=8), st.data())
def test_what_is_delivered_again_changes_nothing(heard: list[Heard], data: st.DataObject) -> None:
    order = sorted(heard, key=lambda each: each.answer.at)
    again = data.draw(st.lists(st.integers(0, len(order) - 1), max_size=8))
    repeated: CollectedTask | None = None
    for number, each in enumerate(order):
        repeated = counted(repeated, each, LIMIT)
        for earlier in again:
            if earlier <= number:
                repeated = counted(repeated, order[earlier], LIMIT)
    assert repeated == _all(heard)[-1]


@settings(max_examples=examples(60))
@given(st.permutations([("a", False), ("b", True), ("c", False)]))
def test_the_order_of_answers_does_not_matter(order: list[tuple[str, bool]]) -> None:
    heard = [
        Heard("t", CollectedAnswer(agent, proposal=None if bad else agent, error="x" if bad else "", at=at), 3)
        for at, (agent, bad) in enumerate(order)
    ]
    task = _all(heard)[-1]
    assert task.status == "completed"
    assert {each.agent_id for each in task.completed} == {"a", "c"}
    assert task.reason == "b: x"


def test_an_answer_takes_the_place_of_a_failure_and_nothing_that_of_an_answer() -> None:
    failure = Heard("t", CollectedAnswer("a", error="no", at=1.0), 2)
    answer = Heard("t", CollectedAnswer("a", proposal="yes", at=2.0), 2)
    task = counted(counted(None, failure, LIMIT), answer, LIMIT)
    assert (task.status, [each.text for each in task.answers]) == ("collecting", ["yes"])
    assert counted(task, failure, LIMIT) is task


def test_who_names_no_number_of_agents_is_waited_for_until_the_time_is_over() -> None:
    task = counted(None, Heard("t", CollectedAnswer("a", proposal="x", at=1.0)), LIMIT)
    assert not task.is_final
    assert timed(task, 1.0 + LIMIT).status == "completed"
    failed = counted(None, Heard("t", CollectedAnswer("a", error="x", at=1.0)), LIMIT)
    assert timed(failed, 1.0 + LIMIT).status == "failed"


def test_a_payload_as_existing_workers_publish_it_is_read() -> None:
    heard = read_heard(
        {
            "task_id": "t-7",
            "agent_id": "agent-dev-2",
            "role": "DEV",
            "status": "completed",
            "proposal": {"content": "do it", "score": 1},
            "duration_ms": 812,
            "timestamp": "2026-01-05T10:00:00Z",
            "constraints": {"story_id": "s-1", "metadata": {"num_agents": "3"}},
        },
        5.0,
        failed=False,
    )
    assert (heard.task_id, heard.wanted, heard.story_id) == ("t-7", 3, "s-1")
    assert (heard.answer.text, heard.answer.duration_ms, heard.answer.at) == ("do it", 812, 5.0)
    failure = read_heard({"task_id": "t", "agent_id": "a", "error": "no\nroom"}, 5.0, failed=True)
    assert failure.answer.error == "no room"
    assert failure.answer.failed
    assert read_heard({"task_id": "t", "agent_id": "a", "error": None}, 5.0, failed=True).answer.failed


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({}, "proposal"),
        ({"proposal": "x"}, "task_id"),
        ({"proposal": "x", "task_id": "t"}, "agent_id"),
        ({"proposal": "x", "task_id": "t", "agent_id": 7}, "agent_id"),
        ({"proposal": "x", "task_id": "t" * 257, "agent_id": "a"}, "task_id"),
        ({"proposal": "x", "task_id": "t\x1b", "agent_id": "a"}, "printed"),
    ],
)
def test_what_is_no_answer_is_said(payload: dict[str, object], says: str) -> None:
    with pytest.raises(NotAnAnswer, match=says):
        read_heard(payload, 1.0, failed=False)


@settings(max_examples=examples(150))
@given(
    st.dictionaries(
        st.sampled_from(
            ("task_id", "agent_id", "role", "proposal", "error", "duration_ms", "num_agents", "constraints")
        ),
        ANY_JSON,
    ),
    st.booleans(),
)
def test_any_payload_is_counted_or_refused_in_a_sentence(payload: dict[str, object], failed: bool) -> None:
    try:
        heard = read_heard(payload, 1.0, failed=failed)
    except NotAnAnswer:
        return
    task = timed(counted(None, heard, LIMIT), 400.0)
    assert msgspec.json.decode(msgspec.json.encode(told(task)))["task_id"] == payload["task_id"]


def test_texts_that_are_too_long_are_cut_and_an_event_has_a_bound() -> None:
    heard = [
        read_heard(
            {"task_id": "t", "agent_id": f"a{number}", "num_agents": 8, "proposal": {"content": "ä" * 500_000}},
            float(number),
            failed=False,
        )
        for number in range(8)
    ]
    assert all(len(msgspec.json.encode(each.answer.proposal)) <= MAX_PROPOSAL_BYTES for each in heard)
    payload = told(_all(heard)[-1])
    assert len(payload["decisions"]) == 8
    assert len(msgspec.json.encode(payload)) < MAX_TEXT_BYTES + 8192


def _payload(**more: Any) -> dict[str, Any]:
    return {"task_id": "t", "agent_id": "a", "proposal": {"content": "yes"}} | more


@pytest.mark.parametrize("most", [2**64, -(2**63) - 1, 10**300])
def test_numbers_that_no_disk_takes_are_no_reason_to_stop(most: int) -> None:
    heard = read_heard(_payload(proposal={"content": "yes", "seed": most}), 1.0, failed=False)
    assert heard.answer.text == "yes"
    assert msgspec.msgpack.encode(counted(None, heard, LIMIT))


@pytest.mark.parametrize("depth", [90, 150, 990])
def test_a_proposal_of_any_depth_is_counted_or_refused(depth: int) -> None:
    proposal: list[Any] = []
    for _ in range(depth):
        proposal = [proposal]
    try:
        heard = read_heard(_payload(proposal=proposal), 1.0, failed=False)
    except NotAnAnswer:
        assert depth > 900
    else:
        msgspec.msgpack.encode([[[counted(None, heard, LIMIT)]]])


def test_one_task_has_a_bounded_number_of_agents() -> None:
    task = None
    for n in range(MAX_AGENTS + 5):
        task = counted(task, read_heard(_payload(agent_id=f"a-{n}"), 1.0, failed=False), LIMIT)
    assert task is not None
    assert len(task.answers) == MAX_AGENTS


def test_one_task_has_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    database = Database(tmp_path / "counted", 10, 1 << 30)
    assert database.open()
    text, agents = "x" * 200_000, 20
    heard = [read_heard(_payload(agent_id=f"a-{n}", proposal=text), 1.0, failed=False) for n in range(agents)]
    assert all(each.new for each in database.count(heard, LIMIT))
    task = database.get("t")
    assert task is not None
    assert len(task.answers) == agents
    assert task.answers[0].text == text
    assert task.answers[-1].proposal == {"content": "x" * 200, "cut": True}
    assert len(msgspec.msgpack.encode(task)) < 1.1 * MAX_TASK_BYTES
    database.close()


def test_what_no_server_takes_is_told_shorter() -> None:
    answers = tuple(
        CollectedAnswer(f"{n:0256}", "DEV", {"content": "\x01" * 10_000}, "" if n % 2 else "broken")
        for n in range(1000)
    )
    task = CollectedTask("t", 1.0, 301.0, "completed", 1000, answers=answers, ended=2.0)
    assert len(msgspec.json.encode(told(task))) > 1024 * 1024
    shorter = told_shorter(task)
    assert len(msgspec.json.encode(shorter)) < 512 * 1024
    assert (shorter["num_agents"], shorter["cut"]) == (1000, True)
    assert set(told(task)) < set(shorter)
