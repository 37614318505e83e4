"""What a gateway process tells its orchestrator of a task's caller, and what the orchestrator makes of it."""

from __future__ import annotations

import contextlib
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.caller import NO_LIMITS, Caller, Limits, Role
from anywire.errors import InvalidRequest
from anywire.messages import TaskRequest
from anywire.pipeline.fleet.claims import MAX_NAME
from anywire.roles.vouched_callers import MAX_LIMIT, VouchedCallers, vouched
from anywire.submission import Submission

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=200)
COUNTS = st.integers(0, MAX_LIMIT)
LIMITS = st.builds(
    Limits,
    models=st.lists(st.sampled_from(["a", "b*"]), max_size=2).map(tuple),
    max_priority=st.none() | st.integers(-5, 5),
    requests_per_minute=COUNTS,
    concurrency=COUNTS,
    tokens_per_day=COUNTS,
)
CALLERS = st.builds(Caller, NAMES, NAMES | st.just(""), st.sampled_from(get_args(Role)), LIMITS)


def sent(submission: Submission) -> TaskRequest:
    """As a pipeline sends it."""
    return TaskRequest("h", "t", 1, "chat", "m", "{}", tenant=submission.caller.tenant, parent=submission.parent)


@given(CALLERS)
def test_a_caller_with_a_key_arrives_with_what_is_counted(caller: Caller) -> None:
    told = vouched(Submission("chat", "m", "{}", caller=caller))
    assert told.caller == msgspec.structs.replace(
        caller, limits=Limits(caller.limits.models, caller.limits.max_priority)
    ), "what needs no counting is held here"
    assert len(told.parent) <= MAX_NAME
    assert told.parent.isprintable()
    counted = Limits(
        requests_per_minute=caller.limits.requests_per_minute,
        concurrency=caller.limits.concurrency,
        tokens_per_day=caller.limits.tokens_per_day,
    )
    found = VouchedCallers([]).of_task(sent(told), 0)
    assert found == msgspec.structs.replace(caller, limits=counted)
    assert (found.limits is NO_LIMITS) == (counted == NO_LIMITS), "no limits cost nothing"


@pytest.mark.parametrize("caller", [Caller(), Caller("", "acme"), Caller("", "", "operate")])
def test_a_caller_without_a_key_costs_nothing(caller: Caller) -> None:
    submission = Submission("chat", "m", "{}", caller=caller)
    assert vouched(submission) is submission
    assert VouchedCallers([]).of_task(sent(submission), 0) == Caller("", caller.tenant)


def test_limits_beyond_all_measure_are_cut() -> None:
    told = vouched(
        Submission("chat", "m", "{}", caller=Caller("x" * 200, limits=Limits((), None, 10**40, 10**40, 10**40)))
    )
    assert len(told.parent) <= MAX_NAME
    assert VouchedCallers([]).of_task(sent(told), 0).limits.concurrency == MAX_LIMIT


@given(st.text(max_size=60))
def test_what_names_no_caller_is_refused_or_read(text: str) -> None:
    task = TaskRequest("h", "t", 1, "chat", "m", "{}", parent=text)
    with contextlib.suppress(InvalidRequest):
        VouchedCallers([]).of_task(task, 0)


@pytest.mark.parametrize("caller", [Caller(), Caller("", "acme"), Caller("k", "acme")])
def test_what_a_client_names_as_its_parent_vouches_for_nobody(caller: Caller) -> None:
    forged = vouched(Submission("chat", "m", "{}", caller=caller, parent="operate 0 0 0 somebody"))
    assert VouchedCallers([]).of_task(sent(forged), 0) == caller
