"""Several traces, or windows of one: other work in each block, the same for every arm of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.experiment.real_runs import PATIENCE, done, plan_tree, written

from anywire.errors import ConfigError
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.plan.workload import Trace
from anywire_experiment.record.folder import runnable_plan_of


def trace_file(folder: Path, name: str, count: int, apart: float = 0.01) -> Path:
    rows = [f"{at * apart:g},{10 + at},2" for at in range(count)]
    path = folder / name
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n")
    return path


def plan_of(folder: Path, blocks: int, **arrivals: Any) -> Path:
    tree = {"name": "t", "blocks": blocks, "workloads": {"w": {"arrivals": {"kind": "trace", **arrivals}}}}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_blocks_replay_the_files_in_turn_and_then_the_next_window() -> None:
    trace = Trace.model_validate(
        {"file": "a.csv", "further": ["b.csv"], "window": {"start": 5, "seconds": 10, "step": 20}}
    )
    parts = [trace.of_block(block) for block in range(1, 6)]
    assert [each.file.name for each in parts] == ["a.csv", "b.csv", "a.csv", "b.csv", "a.csv"]
    assert [each.window.start for each in parts if each.window] == [5, 5, 25, 25, 45]
    assert all(each.further == () for each in parts)


@pytest.mark.parametrize(
    ("arrivals", "blocks", "said"),
    [
        ({}, 12, "replays one trace in 12 blocks"),
        ({"further": ["b.csv", "c.csv"]}, 12, "replays 3 traces in 12 blocks"),
        ({"further": ["b.csv", "c.csv"]}, 3, ""),
        ({"window": {"seconds": 1, "step": 1}}, 12, ""),
        ({}, 1, ""),
    ],
)
def test_blocks_that_repeat_a_trace_are_told(arrivals: dict[str, Any], blocks: int, said: str) -> None:
    given = {"kind": "trace", "file": "a.csv"} | arrivals
    told = Plan.model_validate({"name": "t", "blocks": blocks, "workloads": {"w": {"arrivals": given}}})
    assert [said in each for each in told.repeated_traces()] == ([True] if said else [])


def test_a_file_that_is_not_there_and_a_window_after_the_end_are_told_beforehand(tmp_path: Path) -> None:
    trace_file(tmp_path, "a.csv", 100)
    with pytest.raises(ConfigError, match=r"workloads\.w\.arrivals\.further\.0: there is no file none\.csv"):
        load_plan(plan_of(tmp_path, 2, file="a.csv", further=["none.csv"]))
    moving = {"file": "a.csv", "window": {"seconds": 0.2, "step": 0.3}}
    load_plan(plan_of(tmp_path, 4, **moving))
    with pytest.raises(ConfigError, match=r"no requests in the window from 1\.2 s"):
        load_plan(plan_of(tmp_path, 5, **moving))


def test_a_gap_of_a_trace_in_the_middle_of_the_blocks_is_told_beforehand(tmp_path: Path) -> None:
    rows = [f"{at},10,2" for at in (0, 1, 2, 3, 9, 10)]
    (tmp_path / "gap.csv").write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n")
    trace_file(tmp_path, "long.csv", 100, apart=0.1)
    moving = {"file": "gap.csv", "window": {"seconds": 2, "step": 2}}
    load_plan(plan_of(tmp_path, 2, **moving))
    with pytest.raises(ConfigError, match=r"trace .*gap\.csv has no requests in the window from 4 s for 2 s"):
        load_plan(plan_of(tmp_path, 5, **moving))
    with pytest.raises(ConfigError, match=r"gap\.csv"):
        load_plan(plan_of(tmp_path, 2, file="long.csv", further=["gap.csv"], window={"start": 5, "seconds": 1}))


@pytest.mark.timeout(PATIENCE)
async def test_each_block_has_its_own_and_the_record_keeps_all(tmp_path: Path, dds_domain: int) -> None:
    files = [trace_file(tmp_path, f"{name}.csv", count).name for name, count in (("a", 3), ("b", 5))]
    arrivals = {"kind": "trace", "file": files[0], "further": files[1:]}
    warm_up = {"requests": 2, "limit": 2}
    tree = plan_tree(
        dds_domain,
        blocks=2,
        factors={"transport": ["memory", "tcp"]},
        workloads={"w": {"arrivals": arrivals, "warm_up": warm_up}},
    )
    code, said = await done("run", written(tmp_path, tree), "--out", tmp_path / "record")
    assert code == 0, said
    for block, count in ((1, 3), (2, 5)):
        for arm in ("memory", "tcp"):
            folder = tmp_path / "record" / "cells" / f"b{block:03}" / arm
            rows = pq.read_table(folder / "samples.parquet").to_pylist()
            measured = [each for each in rows if each["phase"] == "measured"]
            assert [each["outcome"] for each in measured] == ["ok"] * count
            assert len({each["prompt_chars"] for each in measured}) == count
    kept = json.loads((tmp_path / "record" / "plan.json").read_text())["workloads"]["w"]["arrivals"]
    assert (kept["file"], kept["further"]) == ("traces/w.csv", ["traces/w-2.csv"])
    again = runnable_plan_of(tmp_path / "record").workloads["w"].arrivals
    assert isinstance(again, Trace)
    assert all(each.is_file() for each in (again.file, *again.further))
