"""Queues in order of rank, and what tasks are charged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.caller import Caller
from anywire.scheduler import Outcome, QueuedTask, QueueKey, Ready
from anywire.scheduler_tools.charges import MAX_COUNTED, MAX_OPEN, MAX_TENANTS, Charges, ExpectedTokens
from anywire.scheduler_tools.ranked_queues import RankedQueues, asked_once

KEYS = [(QueueKey(name, "chat"),) for name in "ab"]


def task(task_id: str = "t", tenant: str = "x", max_tokens: int = 0) -> QueuedTask:
    return QueuedTask(task_id, KEYS[0], 0, 0, 0, 400, max_tokens=max_tokens, caller=Caller(tenant, tenant))


def outcome(task_id: str = "t", tokens: int = 0, error: str = "", prompt_tokens: int = 0, tenant: str = "x") -> Outcome:
    return Outcome(task_id, "a", error, 1.0, 2.0, 3, prompt_tokens, tokens, tenant)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 5), st.booleans()), max_size=80))
def test_the_first_is_the_smallest_of_all_that_are_there_and_of_equals_the_oldest(
    calls: list[tuple[tuple[QueueKey, ...], int, bool]],
) -> None:
    queues: RankedQueues[list[int]] = RankedQueues()
    inside: list[tuple[tuple[QueueKey, ...], int, list[int]]] = []
    for number, (keys, rank, adds) in enumerate(calls):
        if adds or not inside:
            item = [number]
            queues.add(keys, (rank,), item)
            inside.append((keys, rank, item))
        else:
            keys, rank, item = inside.pop(rank % len(inside))
            queues.remove(keys, (rank,), item)
        for ready in (KEYS, KEYS[:1], KEYS[1:]):
            could = [each for each in inside if each[0] in ready]
            least = min((rank for _, rank, _ in could), default=None)
            found = queues.first(lambda keys, ready=ready: keys in ready)  # type: ignore[misc]
            if least is None:
                assert found is None
            else:
                # Of equals for other keys any may be first; for the same keys it is the oldest.
                firsts = [next((each for each in could if each[:2] == (keys, least)), None) for keys in ready]
                assert any(first is not None and first[2] is found for first in firsts)
            below = queues.first(lambda keys, ready=ready: keys in ready, (3,))  # type: ignore[misc]
            assert (below is not None) == (least is not None and least < 3)
    for keys, rank, item in inside:
        queues.remove(keys, (rank,), item)
    assert queues._queues == {}


def test_ready_is_asked_once_for_the_same_keys() -> None:
    asked: list[tuple[QueueKey, ...]] = []

    def ready(keys: tuple[QueueKey, ...]) -> bool:
        asked.append(keys)
        return keys is KEYS[0]

    once: Ready = asked_once(ready)
    assert [once(keys) for keys in (*KEYS, *KEYS)] == [True, False, True, False]
    assert asked == KEYS


def test_a_task_is_charged_what_is_expected_and_then_what_it_used() -> None:
    charges = Charges(50, answer_weight=2)
    assert charges.charge(task()) == 100 + 2 * 50
    assert charges.settle(outcome(tokens=10, prompt_tokens=90)) == 90 + 2 * 10 - 200
    # A further attempt of it, which was not charged, costs all that it used.
    assert charges.settle(outcome(tokens=10, prompt_tokens=90)) == 110


def test_one_that_was_refused_or_put_back_costs_nothing_and_one_that_failed_its_prompt() -> None:
    charges = Charges(50)
    charged = charges.charge(task())
    assert charges.settle(outcome(error="refused")) == -charged
    assert charges.undo(task()) == 0
    charged = charges.charge(task())
    assert charges.undo(task()) == charged
    charged = charges.charge(task())
    assert charged + charges.settle(outcome(error="cancelled")) == 100


def test_expectations_follow_answers_and_end_at_max_tokens() -> None:
    expected = ExpectedTokens(50)
    assert expected.answer(task()) == 50
    for _ in range(60):
        expected.learn(outcome(tokens=400))
    expected.learn(outcome(tokens=1, error="agent_lost"))
    assert expected.answer(task()) == pytest.approx(400)
    assert expected.answer(task(max_tokens=30)) == 30
    assert expected.answer(task(tenant="another")) == 50


def test_an_engine_that_counts_wrongly_shuts_no_tenant_out() -> None:
    charges = Charges(50)
    charges.charge(task())
    assert charges.settle(outcome(tokens=2**62, prompt_tokens=2**62)) <= 2 * MAX_COUNTED
    assert charges.expected.answer(task()) <= MAX_COUNTED


def test_what_is_kept_is_bounded() -> None:
    charges = Charges(50)
    for number in range(MAX_OPEN + 10):
        charges.charge(task(f"t{number}"))
    assert len(charges._open) == MAX_OPEN
    for number in range(MAX_TENANTS + 10):
        charges.settle(outcome(f"t{number}", 5, tenant=f"tenant{number}"))
    assert len(charges.expected._means) == MAX_TENANTS
