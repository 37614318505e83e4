"""What is counted of tasks, against a count of the plain kind."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from anywire.events import TaskEnded
from anywire.measures.families import OTHER, Family, HistogramFamily
from anywire.measures.histogram import MOST_SERIES
from anywire.measures.task_measures import MOST_TRANSPORTS, STAGE, TaskMeasures
from anywire.stages import STAGES, Stages


def plain_spans(stages: Stages) -> dict[str, float]:
    """Each reached stage to the next, one after the other."""
    found: dict[str, float] = {}
    reached = [(name, at) for name in STAGES if (at := getattr(stages, name))]
    for (before, began), (after, ended) in pairwise(reached):
        if stages.comparable or not (before == "sent" or after == "delivered"):
            found[f"{before}-{after}"] = (ended - began) / 1e6
    return found


times = st.integers(0, 10**10) | st.just(0)
any_stages = st.builds(Stages, *[times] * len(STAGES), st.booleans())
whole_stages = st.lists(st.integers(1, 10**10), min_size=9, max_size=9).map(
    lambda found: msgspec.structs.replace(Stages(), **dict(zip(STAGES, found, strict=True)))
)


@given(any_stages | whole_stages)
def test_spans_are_those_between_reached_stages(stages: Stages) -> None:
    assert stages.spans_ms() == plain_spans(stages)
    assert list(stages.spans_ms()) == list(plain_spans(stages))


def ended(stages: Stages, **members: Any) -> TaskEnded:
    told: dict[str, Any] = {
        "kind": "chat",
        "model": "m",
        "agent_id": "a",
        "transport": "dds",
        "attempts": 1,
        "error": "",
        "chunks": 1,
        "prompt_chars": 1,
        "at_ns": 2 * 10**10,
    }
    return TaskEnded(id="1", time=0.0, task_id="t", stages=stages, **(told | members))


tasks = st.builds(
    ended,
    any_stages | whole_stages,
    kind=st.sampled_from(["chat", "embedding"]),
    model=st.sampled_from(["m", "n"]),
    transport=st.sampled_from(["dds", "memory"]),
    error=st.sampled_from(["", "", "engine_failed"]),
    prompt_tokens=st.integers(0, 5),
    tokens=st.integers(0, 5),
    stream=st.booleans(),
    first_ms=st.sampled_from([0.0, 1.5]),
    deltas=st.integers(0, 3),
    trace=st.sampled_from(["", f"00-{'1' * 32}-{'2' * 16}-01"]),
)


def families(measures: TaskMeasures) -> dict[str, Any]:
    return {family.name: family for family in measures.families()}


@given(st.lists(tasks, max_size=12))
def test_everything_is_counted_once(told: list[TaskEnded]) -> None:
    measures = TaskMeasures()
    for task in told:
        measures.add(task, task.model)
    found = families(measures)
    duration: HistogramFamily = found["gen_ai_server_request_duration_seconds"]
    assert Counter({each.labels[:4]: sum(each.counts) for each in duration.samples}) == Counter(
        ({"chat": "chat", "embedding": "embeddings"}[task.kind], task.model, task.transport, task.error)
        for task in told
    )
    answered = [task for task in told if not task.error]
    spans: Counter[tuple[str, str, int]] = Counter()
    sums: dict[tuple[str, str], float] = {}
    for task in answered:
        for stage, ms in plain_spans(task.stages).items():
            seconds = max(0.0, ms * 1e-3)
            labels = (stage, task.transport)
            sums[labels] = sums.get(labels, 0.0) + seconds
            spans[stage, task.transport, bisect_left(STAGE, seconds)] += 1
    stage_family: HistogramFamily = found["anywire_stage_seconds"]
    counted: Counter[tuple[str, str, int]] = Counter()
    for each in stage_family.samples:
        for at, number in enumerate(each.counts):
            counted[each.labels[0], each.labels[1], at] += number
    assert sum((counted - spans).values()) <= 1, "a time may be rounded to the other side of a bound"
    assert counted.total() == spans.total()
    for each in stage_family.samples:
        assert abs(each.sum - sums[each.labels[0], each.labels[1]]) < 1e-6
    tokens: Family = found["anywire_tokens"]
    expected: Counter[tuple[str, str]] = Counter()
    for task in told:
        expected[task.model, "input"] += task.prompt_tokens
        expected[task.model, "output"] += task.tokens or task.deltas
    assert dict(tokens.samples) == dict(expected)
    first: HistogramFamily = found["gen_ai_server_time_to_first_token_seconds"]
    streams = [task for task in answered if task.stream and task.first_ms]
    assert sum(sum(each.counts) for each in first.samples) == len(streams)
    per_token: HistogramFamily = found["gen_ai_server_time_per_output_token_seconds"]
    assert sum(sum(each.counts) for each in per_token.samples) == sum(task.deltas > 1 for task in streams)
    traced = [task for task in told if task.trace]
    assert bool(traced) == any(each.exemplars for each in duration.samples)


def test_names_that_are_made_up_have_bounded_room() -> None:
    measures = TaskMeasures()
    for number in range(2 * MOST_SERIES):
        measures.add(ended(Stages(1, 2), transport=f"t{number}", model=f"m{number}"), f"m{number}")
    duration: HistogramFamily = families(measures)["gen_ai_server_request_duration_seconds"]
    assert len(duration.samples) <= MOST_SERIES + 1
    assert sum(sum(each.counts) for each in duration.samples) == 2 * MOST_SERIES
    assert len({each.labels[2] for each in duration.samples}) == MOST_TRANSPORTS + 1
    assert any(each.labels[2] == OTHER for each in duration.samples)
    assert len(measures._sorts) <= MOST_SERIES
