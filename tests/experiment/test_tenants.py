"""Requests of several tenants, and what a report says of how they were served."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire.fairness import jain_index
from anywire_experiment.analysis.analyse import _served, analyse
from anywire_experiment.analysis.arm_figures import BandFigures
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.sample_rows import read_samples
from anywire_experiment.analysis.tenants import jain
from anywire_experiment.load.questions import _drawn
from anywire_experiment.plan.workload import Workload
from anywire_experiment.record.cells import SAMPLES_FILE
from anywire_experiment.record.samples import SAMPLES
from anywire_experiment.report import tables

SECOND = 10**9


class _Cell:
    workloads: ClassVar[dict[str, Any]] = {}
    events: ClassVar[list[Any]] = []
    processes: ClassVar[dict[str, Any]] = {}
    ended_ns = 0


def rows(*tasks: tuple[str, int, float, float, int], **more: list[Any]) -> pa.Table:
    """Samples of tasks: tenant, priority, received and sent in seconds, tokens. Requests are meant when they are
    received; ``more`` has further columns."""
    made = []
    for index, (tenant, priority, received, sent, tokens) in enumerate(tasks):
        made.append(
            {
                field.name: {"piece_ns": [], "right": None}.get(field.name, "" if field.type == pa.string() else 0)
                for field in SAMPLES
            }
            | {"workload": "w", "phase": "measured", "index": index, "outcome": "ok", "stages_comparable": True}
            | {"tenant": tenant, "priority": priority, "tokens": tokens, "intended_ns": int(received * SECOND)}
            | {"stage_received_ns": int(received * SECOND), "stage_selected_ns": int(sent * SECOND)}
            | {"done_ns": int(sent * SECOND)}
            | {name: values[index] for name, values in more.items()}
        )
    return pa.Table.from_pylist(made, schema=SAMPLES)


def measured(*tasks: tuple[str, int, float, float, int], **more: list[Any]) -> Measured:
    return Measured(_Cell(), rows(*tasks, **more), "w")  # type: ignore[arg-type]


def test_waits_and_answers_in_time_are_told_by_tenant_and_priority() -> None:
    deadlines = [5.0, 5.0, 0.0, 5.0]
    outcomes = ["ok", "ok", "ok", "deadline"]
    first = measured(
        *(("a", 0, 1, 9, 300), ("a", 1, 1, 2, 0), ("b", 0, 1, 11, 100), ("b", 0, 1, 0, 50)),
        deadline_s=deadlines,
        outcome=outcomes,
    )
    second = measured(("a", 0, 1, 5, 10))
    found = _served([first, second])
    assert found is not None
    assert found.bands == [
        BandFigures("a", 0, 2, 1, 310, mean_wait_s=6.0, longest_wait_s=8.0),
        BandFigures("a", 1, 1, 1, 0, mean_wait_s=1.0, longest_wait_s=1.0),
        BandFigures("b", 0, 2, 1, 100, mean_wait_s=10.0, longest_wait_s=10.0),
    ]


GREEDY = [("greedy", 0, at / 10, at / 10 + 2, 30) for at in range(40)]
MODEST = [("modest", 0, at / 2, at / 2 + 1, 50) for at in range(8)]


def test_fairness_is_of_the_tenants_that_wait_while_requests_come() -> None:
    """At the last request, 20 of the greedy and 6 of the modest tenant's tasks are sent. What empties the queue later
    would make the index that of what was asked for, whatever the order."""
    index = jain(measured(*GREEDY, *MODEST).rows)
    sent = [30 * sum(went <= 3.9 for *_, went, _ in GREEDY), 50 * sum(went <= 3.9 for *_, went, _ in MODEST)]
    assert sent == [600, 300]
    assert index == pytest.approx(jain_index(sent)) != pytest.approx(jain_index([1200, 400]))
    assert jain(measured(*GREEDY, *MODEST, ("rare", 0, 3, 3.1, 1000)).rows) == index
    assert jain(measured(*GREEDY).rows) is None
    assert jain(measured().rows) is None


def test_what_a_plan_judges_of_it() -> None:
    found = measured(
        *(("", 0, 1, 2, 1), ("", 5, 2, 2.5, 1), ("", 5, 3, 3.7, 1), ("", 5, 5, 0, 1), ("", 5, 5, 0, 1)),
        deadline_s=[0.5, 1.0, 0.0, 2.0, 2.0],
        outcome=["ok", "ok", "ok", "deadline_exceeded", "queue_full"],
        done_ns=[2 * SECOND, int(2.5 * SECOND), int(3.7 * SECOND), 7 * SECOND, 5 * SECOND],
    )
    found.began_ns = SECOND
    assert found.series("wait").tolist() == pytest.approx([1000, 500, 700, 2000])
    assert found.series("urgent_wait").tolist() == pytest.approx([3200 / 3])
    assert found.series("goodput").tolist() == pytest.approx([2 / 4])
    assert found.series("fairness").size == 0
    fair = measured(*GREEDY, *MODEST)
    assert fair.series("fairness").tolist() == [jain(fair.rows)]
    assert all(measured().series(metric).size == 0 for metric in ("wait", "urgent_wait", "goodput", "fairness"))


def test_goodput_and_waits_are_judged_like_every_metric(tmp_path: Path) -> None:
    tree = plan_of(metrics=["goodput", "wait", "urgent_wait"], statistic="mean", baseline="zeromq")
    record = fabricate(tmp_path / "record", tree, {"dds": Truth(failing=0.4, factor=2.0)})
    said = {each.metric: each.sentence for each in analyse(record).comparisons}
    assert set(said) == {"goodput", "wait", "urgent_wait"}
    assert said["goodput"].startswith("dds is lower than zeromq by")
    assert said["wait"].startswith("dds is longer than zeromq by")
    assert said["urgent_wait"].startswith("dds is longer than zeromq by")


def test_one_tenant_with_one_priority_needs_no_table() -> None:
    assert _served([measured(("", 0, 1, 2, 5), ("", 0, 2, 3, 5))]) is None
    assert _served([measured()]) is None


def test_the_table_has_a_row_for_each_tenant_and_priority() -> None:
    class Arm:
        arm = "fifo"
        served = _served([measured(*GREEDY, *MODEST, ("modest", 2, 1, 0, 0))])

    made = tables.served([Arm()])  # type: ignore[list-item]
    assert made.rows == [
        ["fifo", "greedy", "0", "40", "40 (100.0 %)", "2.00 s", "2.00 s", "1200", "0.900"],
        ["fifo", "modest", "0", "8", "8 (100.0 %)", "1.00 s", "1.00 s", "400", "0.900"],
        ["fifo", "modest", "2", "1", "1 (100.0 %)", "–", "–", "0", "0.900"],
    ]


def test_a_record_made_before_tenants_and_deadlines_were_told_is_read_and_says_nothing_of_them(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for lacking in (["tenant"], ["tenant", "deadline_s"]):
        table = rows(("", 0, 1, 9, 300), ("", 1, 1, 9, 300)).drop_columns(lacking)
        pq.write_table(table, tmp_path / SAMPLES_FILE)
        read = read_samples(tmp_path)
        assert read.schema.equals(SAMPLES)
        old = Measured(_Cell(), read, "w")  # type: ignore[arg-type]
        assert _served([old]) is None
        assert jain(old.rows) is None
    pq.write_table(table.drop_columns(["priority"]), tmp_path / SAMPLES_FILE)
    with pytest.raises(ValueError, match="has other columns"):
        read_samples(tmp_path)


def test_each_tenant_sends_its_share() -> None:
    rng = np.random.default_rng(1)
    drawn = [_drawn({"greedy": 9.0, "modest": 1.0}, rng, "") for _ in range(1000)]
    assert 850 <= drawn.count("greedy") <= 950
    assert _drawn({}, rng, "") == ""


def test_in_a_closed_loop_each_tenant_has_its_share_of_the_clients() -> None:
    loop = {"kind": "closed", "clients": 16}
    workload = Workload.model_validate({"requests": 1, "arrivals": loop, "tenants": {"greedy": 12, "b": 2, "c": 2}})
    assert [workload.tenant_of(client) for client in range(16)] == ["greedy"] * 12 + ["b"] * 2 + ["c"] * 2
    assert Workload.model_validate({"requests": 1, "arrivals": loop}).tenant_of(3) == ""
    with pytest.raises(pydantic.ValidationError, match="'b' gets no client of 16"):
        Workload.model_validate({"requests": 1, "arrivals": loop, "tenants": {"a": 99, "b": 1}})


@pytest.mark.parametrize(
    "fault",
    [
        {"tenants": {"a\r\nb": 1}},
        {"tenants": {"a": 0}},
        {"tenants": {"a": 1}, "through": "client_plane"},
        {"deadlines": {2: 1}, "through": "client_plane"},
        {"deadlines": {0: 1}},
        {"deadlines": {100_000: 1}},
    ],
)
def test_tenants_and_deadlines_that_cannot_be_told_are_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Workload(requests=1, **fault)
