"""What a report says of sessions, and of requests that are given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import fabricate, plan_of
from tests.experiment.real_runs import plan_tree, run_cell

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.sample_rows import read_samples
from anywire_experiment.analysis.traffic import held_sessions, traffic_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.traffic import CANCELLED, NOT_ASKED
from anywire_experiment.plan.workload import Workload
from anywire_experiment.record.cells import SAMPLES_FILE
from anywire_experiment.record.samples import SAMPLES
from anywire_experiment.report import traffic
from anywire_experiment.report.surroundings import about

MS = 1_000_000


class _Cell:
    workloads: ClassVar[dict[str, Any]] = {}
    events: ClassVar[list[Any]] = []
    processes: ClassVar[dict[str, Any]] = {}
    ended_ns = 0


def measured(*rows: tuple[int | None, float, float, str]) -> Measured:
    """Of requests: session, intended and done in ms, outcome."""
    given: list[dict[str, Any]] = [
        {field.name: {"piece_ns": []}.get(field.name, "" if field.type == pa.string() else None) for field in SAMPLES}
        | {"workload": "w", "phase": "measured", "index": at, "outcome": outcome, "session": session, "turn": 0}
        | {"intended_ns": int(intended * MS), "done_ns": int(done * MS), "sent_ns": int(intended * MS)}
        for at, (session, intended, done, outcome) in enumerate(rows)
    ]
    return Measured(_Cell(), pa.Table.from_pylist(given, schema=SAMPLES), "w")  # type: ignore[arg-type]


PLAN = Plan.model_validate(plan_of())


def test_a_session_takes_from_its_first_request_to_its_last_answer() -> None:
    found = held_sessions(
        measured((0, 1, 2, "ok"), (1, 1, 4, "ok"), (0, 5, 9, "ok"), (1, 6, 7, "timeout"), (7, 3, 4, "ok"))
    )
    assert found.count == 3
    assert found.requests.tolist() == [2, 2, 1]
    assert found.took_ms.tolist() == [8, 1], "one that failed has no time"


def test_who_is_given_up_is_in_no_figure() -> None:
    block = measured((0, 1, 2, "ok"), (0, 3, 9, CANCELLED), (1, 1, 2, "ok"), (1, 2, 3, "timeout"), (1, 3, 3, NOT_ASKED))
    assert (block.requests, block.failed, block.cancelled) == (4, 2, 1)
    assert block.failures == {"timeout": 1, NOT_ASKED: 1}
    assert block.series("latency").tolist() == [1, 1]
    found = traffic_of(PLAN, {1: block})
    assert found is not None
    assert (found.sessions, found.whole, found.cancelled, found.not_asked, found.requests) == (2, 1, 1, 1, 2)


def test_without_sessions_and_cancels_nothing_is_said() -> None:
    assert traffic_of(PLAN, {1: measured((None, 1, 2, "ok"))}) is None
    assert traffic_of(PLAN, {}) is None
    assert traffic_of(PLAN, {1: measured()}) is None
    only_cancelled = traffic_of(PLAN, {1: measured((None, 1, 2, CANCELLED))})
    assert only_cancelled is not None
    assert (only_cancelled.sessions, only_cancelled.took_ms) == (0, None)


def test_the_time_of_sessions_has_an_interval_over_blocks() -> None:
    rng = np.random.default_rng(1)
    blocks = {
        number: measured(*((at, 0.0, 100 * float(np.exp(rng.normal(0, 0.1))), "ok") for at in range(9)))
        for number in range(1, 13)
    }
    found = traffic_of(PLAN, blocks)
    assert found is not None
    assert found.took_ms is not None
    assert found.took_ms.interval is not None
    assert found.took_ms.interval.low < 100 < found.took_ms.interval.high


def test_a_report_has_a_table_of_sessions(tmp_path: Path) -> None:
    record = fabricate(tmp_path / "record", plan_of())
    for number, path in enumerate(sorted(record.glob(f"cells/*/*/{SAMPLES_FILE}"))):
        table = pq.read_table(path)
        sessions = pa.array([row // 3 for row in range(table.num_rows)], pa.int64())
        outcomes = table["outcome"].to_pylist()
        outcomes[-1] = CANCELLED if number % 2 else "ok"
        table = table.set_column(table.schema.get_field_index("session"), "session", sessions)
        table = table.set_column(table.schema.get_field_index("outcome"), "outcome", pa.array(outcomes))
        pq.write_table(table.cast(SAMPLES), path)
    arms = analyse(record).figures
    made = traffic.table(arms)
    assert [row[0] for row in made.rows] == ["zeromq", "dds"]
    assert sum(int(row[5]) for row in made.rows) == PLAN.blocks
    assert all("to" in row[4] for row in made.rows)


def test_a_plan_s_traffic_is_told_in_words() -> None:
    workload = Workload.model_validate(
        {
            "requests": 9,
            "stream": True,
            "prompts": {"shared_prefix_tokens": 40, "prefixes": 3},
            "sizes": {"prompt": {"kind": "lognormal", "mean": 60, "spread": 20}, "answer": 20},
            "conversation": {
                "turns": {"kind": "uniform", "mean": 5, "spread": 3},
                "think": {"kind": "exponential", "mean": 2},
                "tools": {"share": 0.5, "time": 0.2},
                "fan_out": {"share": 0.1, "branches": 3},
            },
            "cancel": {"share": 0.05, "after_tokens": 6},
        }
    )
    said = about(workload)
    for part in (
        "Sessions of dependent requests: 2 to 8 (uniform) turns, 2 (exponential) s of thought.",
        "Tools: after 50.0 % of the turns, for 0.2 s, with a result of 200 tokens.",
        "Several requests at once: 3 in 10.0 % of the later turns.",
        "Sizes: prompts of 60 ± 20 (lognormal) tokens; answers of 20 tokens.",
        "Given up: 5.0 % of the streams after 6 pieces.",
        "Beginnings that prompts share: 3 of 40 tokens.",
    ):
        assert part in said, said


@pytest.mark.timeout(240)
async def test_sessions_are_held_over_a_gateway_and_over_a_client_plane(tmp_path: Path, dds_domain: int) -> None:
    talk = {
        "requests": 24,
        "stream": True,
        "max_tokens": 12,
        "arrivals": {"kind": "poisson", "rate": 50},
        "conversation": {"turns": 3, "tools": {"share": 1, "time": 0.01}},
        "cancel": {"share": 0.3, "after_tokens": 3},
        "warm_up": {"requests": 3, "limit": 3},
    }
    tree = plan_tree(dds_domain, workloads={"gateway": talk, "plane": talk | {"through": "client_plane"}})
    tree["system"] |= {"engine": {"name": "synthetic", "length": 12, "itl": 3}, "transports": "zeromq"}
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert (cell.state, cell.reason) == ("completed", "")
    samples = read_samples(tmp_path / "cell").to_pylist()
    for name in ("gateway", "plane"):
        rows = [each for each in samples if each["workload"] == name and each["phase"] == "measured"]
        assert len(rows) == 24
        outcomes = [each["outcome"] for each in rows]
        assert set(outcomes) == {"ok", CANCELLED}
        later = {each["session"]: each for each in rows if each["turn"] == 2}
        first = {each["session"]: each for each in rows if each["turn"] == 0}
        assert later
        assert all(each["prompt_chars"] > first[number]["prompt_chars"] for number, each in later.items())


def test_the_first_token_is_that_of_streams_where_a_trace_has_whole_answers_among_them() -> None:
    def rows(pieces: list[list[int]]) -> Measured:
        given = [
            {field.name: "" if field.type == pa.string() else None for field in SAMPLES}
            | {"workload": "w", "phase": "measured", "index": at, "outcome": "ok", "piece_ns": each}
            | {"intended_ns": 0, "first_ns": (at + 1) * MS, "done_ns": 9 * MS, "tokens": 2}
            for at, each in enumerate(pieces)
        ]
        return Measured(_Cell(), pa.Table.from_pylist(given, schema=SAMPLES), "w")  # type: ignore[arg-type]

    assert rows([[1], [], [1, 2]]).series("ttft").tolist() == [1, 3]
    assert rows([[], []]).series("ttft").tolist() == [1, 2]
    assert rows([]).series("ttft").size == 0
