"""Jain's index, longest waits and who is backlogged."""

from __future__ import annotations

import pytest

from anywire.fairness import MAX_PAIRS, OTHERS, Served, jain_index

SECOND = 10**9


def test_the_index_is_1_for_equal_shares_and_a_share_for_one_that_got_all() -> None:
    assert jain_index([]) == jain_index([0, 0]) == jain_index([7]) == jain_index([3, 3, 3]) == 1.0
    assert jain_index([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain_index([1, 2, 3]) == pytest.approx(36 / 42)


def test_only_tenants_of_which_tasks_waited_most_of_the_time_are_backlogged() -> None:
    served = Served(0)
    for second in range(10):
        served.add("greedy", 0, 0, second * SECOND, 100)
        served.add("steady", 0, second * SECOND, (second + 1) * SECOND, 50)
        served.add("rare", 0, second * SECOND, second * SECOND + SECOND // 10, 1000)
    assert served.backlogged(10 * SECOND) == {"greedy": 1000, "steady": 500}
    assert Served(0).backlogged(0) == {}


def test_waits_at_the_same_time_are_counted_once() -> None:
    served = Served(0)
    for _ in range(5):
        served.add("a", 0, 0, SECOND, 1)
    assert served.backlogged(3 * SECOND) == {}
    assert served.backlogged(2 * SECOND) == {"a": 5}


def test_what_was_waited_before_the_beginning_is_a_wait_and_no_backlog() -> None:
    served = Served(100 * SECOND)
    served.add("a", 1, 0, 101 * SECOND, 1)
    assert served.longest_ns == {("a", 1): 101 * SECOND}
    assert served.backlogged(110 * SECOND) == {}


def test_it_is_bounded_whatever_tenants_and_priorities_come() -> None:
    served = Served(0)
    for number in range(3 * MAX_PAIRS):
        served.add(f"t{number}", number, 0, number + 1, 1)
    assert len(served.longest_ns) == MAX_PAIRS + 1
    assert served.longest_ns[OTHERS, 0] == 3 * MAX_PAIRS
    assert max(priority for _, priority in served.longest_ns) == 10
    assert OTHERS not in served.backlogged(2)
