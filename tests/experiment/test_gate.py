"""compare --fail-if: what is shown fails, what is not does not, and what cannot be judged is no pass."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.experiment.fabricated import Truth, fabricate, finished, plan_of
from typer.testing import CliRunner, Result

from anywire_experiment.cli import app
from anywire_experiment.gate.condition import condition
from anywire_experiment.gate.evidence import Evidence
from anywire_experiment.gate.judged import judged
from anywire_experiment.plan.metric import Metric
from anywire_experiment.statistics.unpaired import Side

TREE = plan_of(blocks=16, workloads={"one": {"requests": 20}}, metrics=["latency", "failures"])

pytestmark = pytest.mark.usefixtures("computed_once")


def sealed(folder: Path, truths: dict[str, Truth], **members: object) -> Path:
    return finished(fabricate(folder, TREE | members, truths))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gate")
    return {
        "before": sealed(folder / "before", {"dds": Truth(factor=1.1)}, seed=1),
        "alike": sealed(folder / "alike", {"dds": Truth(factor=1.1)}, seed=2),
        "slower": sealed(folder / "slower", {"dds": Truth(factor=1.6)}, seed=3),
        "failing": sealed(folder / "failing", {"dds": Truth(factor=1.1, failing=0.3)}, seed=4),
        "few": sealed(folder / "few", {}, seed=5, blocks=6),
    }


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_what_became_slower_fails_and_is_named(records: dict[str, Path]) -> None:
    done = compare(records["before"], records["slower"], "--baseline", "A", "--fail-if", "slower > 5 %")
    assert done.exit_code == 1, done.output
    assert "FAILED: slower > 5 %" in done.output
    breaches = [line for line in done.output.splitlines() if "where more than 5 % fails" in line]
    assert [line.split(":")[0].strip() for line in breaches] == ["dds, one, latency"]
    assert "95 % interval for 2 tests together" in breaches[0]
    assert "not shown of the other 1 of 2" in done.output
    assert "The records are of different times" in done.output


def test_the_other_way_round_it_is_faster(records: dict[str, Path]) -> None:
    arguments = (records["before"], records["slower"], "--baseline", "B")
    assert compare(*arguments, "--fail-if", "slower > 5 %").exit_code == 0
    assert compare(*arguments, "--fail-if", "faster > 5 %").exit_code == 1


def test_what_did_not_change_passes_and_tells_what_would_have_been_found(records: dict[str, Path]) -> None:
    done = compare(
        records["before"], records["alike"], "--fail-if", "slower > 5 %", "--fail-if", "fails more > 1 point"
    )
    assert done.exit_code == 0, done.output
    assert "passed: slower > 5 %" in done.output
    assert "passed: fails more > 1 point" in done.output
    assert "or more would have been, with a chance of about 80 %" in done.output


def test_equivalence_must_be_shown(records: dict[str, Path]) -> None:
    wide, narrow = "not equivalent within 30 % in latency", "not equivalent within 0.1 % in latency"
    assert compare(records["before"], records["alike"], "--fail-if", wide).exit_code == 0
    done = compare(records["before"], records["alike"], "--fail-if", narrow)
    assert done.exit_code == 1
    assert "not shown to be equivalent within 0.1 %" in done.output


def test_more_failures_fail(records: dict[str, Path]) -> None:
    done = compare(records["before"], records["failing"], "--fail-if", "fails more > 5 points over dds")
    assert done.exit_code == 1, done.output
    assert "dds, one, share of failed requests: more, +" in done.output


def test_an_arm_that_fails_instead_of_answering_is_not_called_faster(records: dict[str, Path]) -> None:
    done = compare(records["slower"], records["failing"], "--fail-if", "faster > 5 %")
    assert "dds, one, latency: faster" not in done.output or done.exit_code == 1


def test_one_record_is_judged_by_its_own_pairs(records: dict[str, Path]) -> None:
    assert compare(records["slower"], "--fail-if", "slower > 5 %").exit_code == 1
    done = compare(records["before"], "--fail-if", "slower > 25 %")
    assert done.exit_code == 0, done.output
    assert "different times" not in done.output
    assert compare(records["before"], "--fail-if", "slower > 2 %").exit_code == 1


def test_what_cannot_be_judged_is_not_equivalent(records: dict[str, Path]) -> None:
    done = compare(records["before"], records["few"], "--fail-if", "not equivalent within 30 % in latency")
    assert done.exit_code == 1
    assert "6 blocks are too few" in done.output


def test_where_nothing_can_be_judged_it_fails(records: dict[str, Path]) -> None:
    done = compare(records["before"], records["few"], "--fail-if", "slower > 5 %")
    assert done.exit_code == 1
    assert "cannot be judged, so it fails" in done.output
    assert "6 blocks are too few" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail-if", "slowr > 5 %"], "did you mean 'slower'?"),
        (["--fail-if", "slower > 5 % of nothing"], "the records have nothing that it is about; metrics: latency"),
        (["--fail-if", "slower > 5 % in ttft"], "the records have nothing that it is about"),
        (["--baseline", "C", "--fail-if", "slower > 5 %"], "--baseline C: expected A or B"),
    ],
)
def test_a_wrong_command_has_its_own_status(records: dict[str, Path], arguments: list[str], said: str) -> None:
    done = compare(records["before"], records["alike"], *arguments)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.replace("│", " ").split())


def test_without_a_second_record_there_must_be_a_condition(records: dict[str, Path]) -> None:
    done = compare(records["before"])
    assert done.exit_code == 2
    assert "give a second record" in done.output


def test_an_edited_record_is_refused(records: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(records["alike"], tmp_path / "edited")
    (tmp_path / "edited/results.json").write_text("{}")
    done = compare(records["before"], tmp_path / "edited", "--fail-if", "slower > 5 %")
    assert done.exit_code == 1
    assert "results.json: changed since it was sealed" in str(done.exception)


def side(*values: float) -> Side:
    return Side(*(np.asarray(each) for each in values))


def evidence(metric: Metric, *limits: float, reason: str = "") -> Evidence:
    return Evidence("a, w", "w", metric, "a", (lambda _: side(*limits)) if limits else None, reason)


@pytest.mark.parametrize(
    ("text", "found", "breached"),
    [
        ("slower > 5 %", evidence("latency", 0.2, 0.06, 0.3), True),
        ("slower > 5 %", evidence("latency", 0.2, 0.04, 0.3), False),
        ("faster > 5 %", evidence("latency", -0.2, -0.3, -0.06), True),
        ("faster > 5 %", evidence("latency", -0.2, -0.3, -0.04), False),
        ("lower > 5 %", evidence("throughput", -0.2, -0.3, -0.06), True),
        ("worse", evidence("throughput", -0.2, -0.3, -0.01), True),
        ("worse", evidence("throughput", 0.2, 0.1, 0.3), False),
        ("not equivalent within 5 %", evidence("latency", 0.0, -0.04, 0.04), False),
        ("not equivalent within 5 %", evidence("latency", 0.0, -0.04, 0.06), True),
        ("not equivalent within 5 %", evidence("latency", 0.0, -math.inf, 0.04), True),
        ("fails more > 1 point", evidence("failures", 0.1, 0.011, 0.2), True),
        ("fails more > 1 point", evidence("failures", 0.1, 0.009, 0.2), False),
        ("slower > 5 %", evidence("latency", 0.2, -math.inf, 0.3), True),  # nothing speaks for it
        ("slower > 5 %", evidence("latency", reason="too few"), True),
    ],
)
def test_a_condition_goes_by_the_limit_and_not_by_the_value(text: str, found: Evidence, breached: bool) -> None:
    (one,) = judged([condition(text)], [found], 0.95)
    assert one.breached is breached
    assert bool(one.breaches) is breached
    if breached:
        assert one.breaches[0].startswith(("a, w", "cannot be judged", "not shown to be equivalent"))


def test_of_several_only_what_is_shown_is_named() -> None:
    found = [evidence("latency", 0.2, 0.06, 0.3), evidence("ttft", 0.0, -0.1, 0.1), evidence("itl", reason="bursts")]
    (one,) = judged([condition("slower > 5 %")], found, 0.95)
    assert one.breaches == [
        "a, w, latency: slower, +22.1 %, where more than 5 % fails "
        "(95 % interval for 3 tests together +6.2 % to +35.0 %)"
    ]
    assert one.rest.startswith("not shown of the other 1 of 3; a change of +")
    assert one.rest.endswith("1 of 3 could not be judged: a, w, time per token after the first: bursts")


def test_each_test_has_its_share_of_the_risk() -> None:
    asked: list[float] = []

    def limits(level: float) -> Side:
        asked.append(level)
        return side(0.0, -0.1, 0.1)

    found = [Evidence("a, w", "w", "latency", "a", limits)] * 5
    judged([condition("slower"), condition("faster")], found, 0.95)
    assert asked == pytest.approx([1 - 2 * 0.05 / 10] * 10)
