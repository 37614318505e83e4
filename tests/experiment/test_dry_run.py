"""What a plan will take and can show is told before it runs, and nothing is started for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.experiment.fabricated import SECOND, fabricate, finished, plan_of
from typer.testing import CliRunner, Result

from anywire_experiment.cli import app
from anywire_experiment.dry_run.chances import chances, compared, pairs
from anywire_experiment.dry_run.duration import AROUND, duration
from anywire_experiment.dry_run.forecast import forecast
from anywire_experiment.outcome.checked_record import checked
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.cells import read_cell
from anywire_experiment.run.managed import Managed
from anywire_experiment.statistics import FEWEST_BLOCKS

SYSTEM = {"engine": {"name": "synthetic", "itl": 10, "length": 200}}
FACTORS = {"transport": ["zeromq", "tcp"]}


def plan(**members: Any) -> Plan:
    given = {"name": "t", "blocks": 20, "system": SYSTEM, "factors": FACTORS, "workloads": {"one": {"requests": 60}}}
    return Plan.model_validate(given | members)


def written(folder: Path, **members: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan(**members).model_dump(mode="json", exclude_defaults=True), sort_keys=False))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pilots") / "pilot"
    tree = plan_of(blocks=6, factors=FACTORS, workloads={"one": {"requests": 60}}, metrics=["latency"])
    return finished(fabricate(folder, tree))


@pytest.mark.parametrize(
    ("workload", "seconds"),
    [
        ({"seconds": 7, "warm_up": {"requests": 0, "limit": 0}}, (7.0, 7.0)),
        (
            {"requests": 100, "arrivals": {"kind": "poisson", "rate": 20}, "warm_up": {"requests": 20, "limit": 60}},
            (6, 8),
        ),
        ({"requests": 40, "arrivals": {"kind": "bursts", "size": 20, "every": 3}, "warm_up": {"requests": 0}}, (6, 81)),
        ({"requests": 10, "max_tokens": 101, "warm_up": {"requests": 0, "limit": 0}}, (10.01, 10.01)),
        ({"requests": 10, "seconds": 2, "max_tokens": 101, "warm_up": {"requests": 0, "limit": 0}}, (2, 2)),
    ],
)
def test_a_cell_takes_as_long_as_its_workloads(workload: dict[str, Any], seconds: tuple[float, float]) -> None:
    made = plan(blocks=1, factors={}, workloads={"one": workload})
    found = duration(made, arms_of(made))
    assert (found.least - AROUND[0], found.most - AROUND[1]) == pytest.approx(seconds, rel=0.01)
    assert found.unknown == ()


def test_what_only_a_run_can_tell_is_not_guessed() -> None:
    made = plan(system={"engine": "echo"}, workloads={"one": {"requests": 60}})
    made = made.model_copy(update={"system": {"engine": {"name": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
    found = duration(made, arms_of(made))
    assert found.unknown == ("one",)
    assert found.least == 40 * AROUND[0]


def test_an_earlier_record_tells_the_minutes(pilot: Path) -> None:
    cells = [read_cell(path.parent) for path in pilot.glob("cells/*/*/cell.json")]
    took = sum((each.ended_ns - each.started_ns) / SECOND for each in cells) / len(cells)
    with checked(pilot) as (raw, _):
        same = plan(workloads={"one": {"requests": 60}})
        found = duration(same, arms_of(same), raw)
        assert found.least / 40 == pytest.approx(took, rel=0.05)
        assert found.most / 40 == pytest.approx(took, rel=0.05)
        more = plan(workloads={"one": {"requests": 600}})
        measured = sum(
            (run.ended_ns - run.began_ns) / SECOND for each in cells for run in each.workloads.values()
        ) / len(cells)
        assert duration(more, arms_of(more), raw).least / 40 == pytest.approx(took + 9 * measured, rel=0.05)


def test_power_is_that_of_the_pilots_spread(pilot: Path) -> None:
    with checked(pilot) as (_, results):
        made = plan(metrics=["latency", "failures"])
        assert [each.metric for each in pairs(made, arms_of(made))] == ["latency"], "failures are told and not judged"
        (one,) = chances(made, arms_of(made), results)
        assert one.spread == results.comparisons[0].comparison.spread  # type: ignore[union-attr]
        assert one.about == "one, latency: tcp beside zeromq"
        assert 0.5 < one.equivalent <= 1.0
        assert one.needed >= FEWEST_BLOCKS
        few = chances(plan(blocks=FEWEST_BLOCKS - 1), arms_of(made), results)
        assert (few[0].equivalent, few[0].different) == (0.0, 0.0)


def test_without_a_pilot_power_is_told_for_several_spreads() -> None:
    made = plan()
    told = chances(made, arms_of(made))
    assert [each.spread for each in told] == [0.02, 0.05, 0.10, 0.20]
    assert [each.different for each in told] == sorted((each.different for each in told), reverse=True)
    assert [each.needed for each in told] == sorted(each.needed for each in told)


def test_a_bigger_family_takes_more_blocks() -> None:
    few, many = plan(), plan(workloads={f"w{at}": {"requests": 60} for at in range(40)})
    assert chances(many, arms_of(many))[2].needed > chances(few, arms_of(few))[2].needed


def test_it_tells_all_of_it_and_starts_nothing(tmp_path: Path, pilot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("asyncio.create_subprocess_exec", started)
    monkeypatch.setattr(Managed, "start", started)
    done = run(written(tmp_path), "--dry-run", "--from", pilot)
    assert done.exit_code == 0, done.output
    assert "20 blocks of 2 arms are 40 cells, each with 1 workload: one." in done.output
    assert f"by {pilot}" in done.output
    orders = [line for line in done.output.splitlines() if line.startswith("  block ")]
    assert len(orders) == 12
    assert "and 8 blocks more" in done.output
    assert "The order is balanced: each arm is first in 10" in done.output
    assert "one, latency: tcp beside zeromq (spread" in done.output
    assert sorted(each.name for each in tmp_path.iterdir()) == ["plan.yaml"]


def test_the_order_told_is_the_order_run(tmp_path: Path) -> None:
    made = plan()
    found = forecast(made)
    assert [each.arm.name for each in found.places[:2]] == [
        name.strip()
        for name in run(written(tmp_path), "--dry-run").output.split("block 1:")[1].splitlines()[0].split(",")
    ]


def test_what_is_missing_here_has_its_own_status(tmp_path: Path) -> None:
    needed = {"broker": {"command": ["no-such-broker"]}}
    done = run(written(tmp_path, companions=needed), "--dry-run")
    assert done.exit_code == 1
    assert "It cannot run here:" in done.output
    assert "no-such-broker" in done.output
    done = run(written(tmp_path, energy=["gpu 99"], cpus={"load": [4000]}), "--dry-run")
    assert done.exit_code == 1
    assert "this machine has no source 'gpu 99'" in done.output
    assert "are not all cores that may be used here" in done.output


def test_warnings_say_what_to_change(tmp_path: Path) -> None:
    members = {"blocks": 3, "cpus": {"load": "any", "system": "any"}, "metrics": ["latency", "energy_per_request"]}
    done = run(written(tmp_path, **members), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "3 blocks: fewer than 6 are too few for an interval" in done.output
    assert "the load generator shares cores with the system" in done.output


def test_one_arm_has_nothing_to_compare(tmp_path: Path) -> None:
    done = run(written(tmp_path, factors={}), "--dry-run")
    assert done.exit_code == 0
    assert "Nothing is compared" in done.output


def test_without_dry_run_the_plan_is_printed_whole_and_is_a_plan(tmp_path: Path) -> None:
    done = run(written(tmp_path), "--set", "system.transports={http: {token: my-secret}}", "--blocks", 7)
    assert done.exit_code == 0, done.output
    assert "my-secret" not in done.output
    made = Plan.model_validate(yaml.safe_load(done.output))
    assert (made.blocks, made.margin) == (7, 0.10)


SEARCH = {"arrivals": {"kind": "search", "low": 20, "high": 640, "seconds": 3, "precision": 0.1}}


def test_the_steps_of_a_search_tell_how_long_it_takes(tmp_path: Path) -> None:
    made = plan(blocks=1, factors={}, workloads={"rate": SEARCH | {"warm_up": {"requests": 0, "limit": 0}}})
    found = duration(made, arms_of(made))
    assert found.unknown == ()
    # From 20 to 640 there are five doublings; between two of them three halvings leave less than 10 %.
    assert found.least - AROUND[0] == 3 * (1 + 1 + 3)
    assert found.most - AROUND[1] == 3 * (5 + 2 * (1 + 3))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"name": "t", "factors": FACTORS, "workloads": {"rate": SEARCH}}))
    done = run(path, "--dry-run")
    assert "rate is searched in 5 to 9 steps of 3 s in each cell" in done.output
    assert "It takes " in done.output


def test_a_window_of_a_trace_is_as_long_as_it_says() -> None:
    trace = {"kind": "trace", "file": "trace.csv", "window": {"seconds": 30}, "speed": 2}
    made = plan(blocks=1, factors={}, workloads={"one": {"arrivals": trace, "warm_up": {"requests": 0, "limit": 0}}})
    assert duration(made, arms_of(made)).least == AROUND[0] + 15


def test_where_most_is_unknown_that_is_said_first(tmp_path: Path) -> None:
    asked = {"requests": 60, "conversation": {"turns": 3}}
    done = run(written(tmp_path, workloads={"known": {"seconds": 2}, "talks": asked}), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "\nIt takes" not in done.output
    third = done.output.splitlines()[2]
    assert third.startswith("How long it takes is not known, for nothing tells how long talks will be measured: ")
    assert "All else takes " in third


def test_shares_are_told_by_the_spread_of_their_difference() -> None:
    exercises = {"exercises": {}, "requests": 40}
    made = plan(workloads={"right": exercises}, metrics=["quality"], share_margin=0.05)
    told = chances(made, arms_of(made))
    assert [(each.spread, each.of_share) for each in told] == [(at, True) for at in (0.01, 0.02, 0.05, 0.10)]
    assert told[0].equivalent > 0.99 > told[-1].equivalent
    assert [each.needed for each in told] == sorted(each.needed for each in told)
    assert chances(plan(metrics=["latency"]), arms_of(made))[0].of_share is False


def test_shares_of_a_pilot_are_told_by_its_spread(tmp_path: Path) -> None:
    members: dict[str, Any] = {
        "factors": FACTORS,
        "workloads": {"right": {"exercises": {}, "requests": 40}},
        "metrics": ["quality", "failures"],
    }
    folder = finished(fabricate(tmp_path / "pilot", plan_of(blocks=6, **members)))
    done = run(written(tmp_path, **members), "--dry-run", "--from", folder)
    assert done.exit_code == 0, done.output
    assert "with a margin of 10 % (of shares 5 points) and 1 comparison judged together:" in done.output
    assert "  right, share answered right: tcp beside zeromq (spread " in done.output
    assert " points): equal arms are shown to be equivalent with a chance of " in done.output
    assert ", arms 5 points apart to differ with " in done.output


def test_of_failures_and_times_of_faults_it_says_what_can_be_told(tmp_path: Path) -> None:
    workload = {"seconds": 5, "fault": {"kind": "kill", "at": 1}}
    done = run(written(tmp_path, workloads={"killed": workload}), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "  share of failed requests: told and not judged; where none fails in 20 blocks, the " in done.output
    assert "interval of 95 % reaches to 17 %\n" in done.output
    assert "  time to notice a fault, time to recover: judged as ratios where no block has 0; each block" in done.output
    alone = run(written(tmp_path, workloads={"one": {"seconds": 5}}, metrics=["failures"]), "--dry-run")
    assert "Nothing is judged, whatever is measured:\n  share of failed requests: told and not" in alone.output
    assert "no factor with two levels" not in alone.output


def test_an_arm_without_a_fault_has_nothing_to_notice() -> None:
    factors = {"fault": ["none", "kill", {"short": {"kind": "pause", "lasts": 0.2}}]}
    made = plan(factors=factors, workloads={"one": {"seconds": 5}}, agents=2)
    found = compared(made, arms_of(made))
    assert {each.metric for each in found} == {"latency", "failures"}, "the baseline has no fault"
    against = made.model_copy(update={"baseline": "kill"})
    by_arm: dict[str, list[str]] = {}
    for each in compared(against, arms_of(against)):
        by_arm.setdefault(each.candidate.name, []).append(each.metric)
    assert by_arm == {"none": ["latency", "failures"], "short": ["latency", "notice", "recovery", "failures"]}
