"""Arms that differ in what clients send, and what a service's answer has cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anywire.errors import ConfigError
from anywire.events import TaskEnded
from anywire.stages import Stages
from anywire_experiment.plan.arms import Arm, arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import join_samples
from anywire_experiment.record.samples import LOADED


def arms(workload: dict[str, Any] | None = None, system: dict[str, Any] | None = None, **factors: Any) -> list[Arm]:
    base = {"engine": "synthetic", "transports": "memory"} | (system or {})
    workloads = {"one": {"requests": 5} | (workload or {})}
    plan = {"name": "t", "system": base, "factors": factors, "workloads": workloads}
    return arms_of(Plan.model_validate(plan))


DELIBERATES: dict[str, Any] = {"services": {"deliberation": {}}}


def test_a_level_has_members_of_the_requests() -> None:
    alone, five = arms(system=DELIBERATES, request=[{"alone": {"temperature": 0.7}}, {"five": {"model": "deliberate"}}])
    assert (alone.name, alone.request) == ("alone", {"temperature": 0.7})
    assert (five.name, five.request) == ("five", {"model": "deliberate"})
    assert alone.tree == five.tree


def test_members_rounds_and_aggregation_are_crossed() -> None:
    made = arms(
        {"model": "deliberate"},
        DELIBERATES,
        **{
            "request.deliberation.members": [1, 5],
            "request.deliberation.rounds": [0, 1],
            "request.deliberation.aggregation": ["mean", "borda"],
        },
    )
    assert len(made) == 8
    asked = {each.name: each.request["deliberation"] for each in made}
    assert asked["5+1+borda"] == {"members": 5, "rounds": 1, "aggregation": "borda"}
    assert asked["1+0+mean"] == {"members": 1, "rounds": 0, "aggregation": "mean"}


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"request": ["fast"]}, "factors.request: a level is a mapping with members of the requests"),
        ({"request": [{"a": {"messages": []}}]}, "the workload says 'messages'; leave it out"),
        ({"request.stream": [True]}, "the workload says 'stream'; leave it out"),
        ({"request.model": [5]}, "request.model: expected the name of a model, found 5"),
        ({"requests": [5]}, "a factor begins with one of: .*request"),
        (
            {"request.model": [{"dev": "deliberate:DEV"}]},
            "'one' asks for the model 'deliberate:DEV', which the service",
        ),
    ],
)
def test_what_is_no_request_is_told(factors: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arms(**factors)


# What an answer has cost


def ended(task_id: str, parent: str = "", attempts: int = 1, transport: str = "dds", tokens: int = 5) -> TaskEnded:
    return TaskEnded(
        id=task_id,
        at_ns=1,
        time=1.0,
        task_id=task_id,
        kind="chat",
        model="m",
        agent_id="a" if attempts else "",
        transport=transport if attempts else "",
        attempts=attempts,
        error="",
        chunks=1,
        prompt_chars=1,
        stages=Stages(),
        prompt_tokens=tokens,
        tokens=tokens,
        parent=parent,
    )


def joined(folder: Path, task: TaskEnded, *children: TaskEnded, transport: str = "") -> dict[str, Any]:
    """The row of an answer, right and whole, after its tasks are known."""
    given: dict[str, Any] = {"task_id": task.task_id, "outcome": "ok", "right": True, "transport": transport}
    empty: dict[str, Any] = {
        field.name: "" if field.type == pa.string() else [] if field.name == "piece_ns" else 0 for field in LOADED
    }
    pq.write_table(pa.Table.from_pylist([empty | given], schema=LOADED), folder / "loaded.parquet")
    join_samples([folder / "loaded.parquet"], [task, *children], folder / "samples.parquet", ["dds"])
    (row,) = pq.read_table(folder / "samples.parquet").to_pylist()
    return dict(row)


def test_an_answer_of_an_agent_costs_its_own_tokens(tmp_path: Path) -> None:
    row = joined(tmp_path, ended("t"), transport="dds")
    assert (row["tasks"], row["spent_tokens"], row["transport"], row["outcome"]) == (1, 10, "dds", "ok")


def test_an_answer_of_a_service_costs_what_it_asked_agents_for(tmp_path: Path) -> None:
    children = [ended(f"c{at}", "t") for at in range(4)]
    row = joined(tmp_path, ended("t", attempts=0, tokens=1000), *children, ended("of another", "u"))
    assert (row["tasks"], row["spent_tokens"], row["transport"], row["outcome"]) == (4, 40, "dds", "ok")


def test_a_service_that_asked_over_another_transport_has_not_answered_over_the_arms(tmp_path: Path) -> None:
    row = joined(tmp_path, ended("t", attempts=0), ended("c1", "t"), ended("c2", "t", transport="http"))
    assert (row["outcome"], row["transport"], row["right"]) == ("wrong_transport", "dds+http", False)


def test_an_answer_that_no_agent_gave_costs_none(tmp_path: Path) -> None:
    row = joined(tmp_path, ended("t", attempts=0, tokens=0))
    assert (row["tasks"], row["spent_tokens"], row["outcome"]) == (0, 0, "ok")
