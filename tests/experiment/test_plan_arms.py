"""A plan, its faults told in sentences, and the arms and orders that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import ALONE, arm_order, arms_of, config_of, load_seed
from anywire_experiment.plan.orders import workload_order
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.record.masking import without_secrets

WORKLOADS = {"one": {"requests": 5}, "many": {"seconds": 1, "stream": True}}
BASE: dict[str, Any] = {"name": "t", "system": {"engine": "synthetic"}, "workloads": WORKLOADS}


def plan(**members: Any) -> Plan:
    return Plan.model_validate(BASE | members)


def written(folder: Path, **members: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(BASE | members, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"blcks": 3}, "unknown key 'blcks': did you mean 'blocks'?"),
        ({"workloads": {"one": {"requsts": 5}}}, "unknown key 'workloads.one.requsts': did you mean 'requests'?"),
        (
            {"workloads": {"one": {"requests": 1, "arrivals": {"kind": "poisson", "rte": 4}}}},
            "unknown key 'workloads.one.arrivals.rte': did you mean 'rate'? known keys: kind, rate",
        ),
        ({"workloads": {"one": {}}}, "workloads.one: say when it ends: requests, seconds or both"),
        ({"factors": {"transport": ["memory", "memory"]}}, "the level 'memory' is there twice"),
        ({"factors": {"transport": [["dds", "http"]]}}, 'a list needs a label: {some-name: ["dds", "http"]}'),
        ({"compare": "selector"}, "there is no factor 'selector'"),
        ({"workloads": {"x": {"seconds": 2, "fault": {"kind": "kill", "at": 3}}}}, "comes after the end at 2 s"),
        ({"workloads": {"x": {"arrivals": {"kind": "trace", "file": "no.csv"}}}}, "there is no file no.csv"),
    ],
)
def test_a_fault_of_the_file_names_file_line_and_key(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    path = written(tmp_path, **members)
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("factor", "levels", "labels"),
    [
        ("agents", [1, 3], ["1", "3"]),
        ("lease.timeout", [0.5, 1.0], ["0.5", "1.0"]),
        ("engine.seed", [-1, 7], ["-1", "7"]),
        ("lease.timeout", [1e20, 2e20], ["1e20", "2e20"]),
        ("standby.enabled", [True, False], ["true", "false"]),
        ("agents", [{1: 2}, {2: 1}], ["1", "2"]),
    ],
)
def test_levels_that_are_numbers_have_labels_and_may_be_the_baseline(
    tmp_path: Path, factor: str, levels: list[Any], labels: list[str]
) -> None:
    given = levels[1] if not isinstance(levels[1], dict) else next(iter(levels[1]))
    path = written(tmp_path, factors={factor: levels}, baseline=given, workloads={1: {"requests": 5}}, name=7)
    made = load_plan(path)
    assert [each.label for each in made.factors[factor]] == labels
    assert (made.base_level, made.name, list(made.workloads)) == (labels[1], "7", ["1"])
    assert Plan.model_validate(json.loads(made.model_dump_json())) == made
    first = next(iter(levels[0])) if isinstance(levels[0], dict) else levels[0]
    changed = yaml.safe_dump({"baseline": first}).partition(": ")[2].strip()
    assert load_plan(path, [f"baseline={changed}"]).base_level == labels[0]


def test_agents_as_numbers_make_arms() -> None:
    made = arms_of(plan(factors={"agents": [1, 3], "transport": ["memory"]}, baseline=3))
    assert [(each.name, each.agents) for each in made] == [("1+memory", 1), ("3+memory", 3)]


def test_a_key_is_changed_without_editing_the_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    changed = load_plan(path, ["blocks=3", "system.engine={name: llama}", "workloads.one.requests=7"])
    assert (changed.blocks, changed.system["engine"], changed.workloads["one"].requests) == (3, {"name": "llama"}, 7)
    for wrong, said in (
        ("blocks", "expected KEY=VALUE"),
        ("name.x=1", "no keys inside of 'name'"),
        ("a=[", "not valid"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_plan(path, [wrong])
    with pytest.raises(ConfigError, match="blcks"):
        load_plan(path, ["blcks=3"])


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"workloads": {"one": {"requests": 9}, "two": {"requests": 10}}}, ["9 requests, and a block needs 10"]),
        ({"statistic": "p99", "workloads": {"one": {"requests": 99}}}, ["needs 100 whole answers for its p99"]),
        ({"metrics": ["failures", "throughput"], "workloads": {"one": {"requests": 9}}}, []),
        ({"workloads": {"one": {"seconds": 9}}}, []),
    ],
)
def test_too_few_requests_for_a_verdict_are_told_beforehand(members: dict[str, Any], told: list[str]) -> None:
    said = plan(**members).too_few_requests()
    assert len(said) == len(told)
    assert all(part in sentence for part, sentence in zip(told, said, strict=True))


def test_a_missing_plan_and_one_that_is_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no plan"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_plan(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"factors": {"transport": ["nope"]}}, "no transport named 'nope'; known: dds"),
        ({"factors": {"transport": [{"x": {"zeromq": {"bindd": 1}}}]}}, "unknown key 'transports.zeromq.bindd'"),
        ({"factors": {"selector": ["nope"]}}, "no selector named 'nope'"),
        ({"factors": {"pipeline.max_attemps": [1]}}, "did you mean 'max_attempts'?"),
        ({"factors": {"pipelin.x": [1]}}, "factors.pipelin.x: no such key of the config"),
        ({"factors": {"server.port": [1]}}, "factors.server.port: no such key"),
        ({"factors": {"agents": [0]}}, "factors.agents: a level is a number from 1 to 200, found 0"),
        (
            {"factors": {"network": [{"x": {"dely": 1}}]}},
            "unknown key 'factors.network.dely': did you mean 'delay_ms'?",
        ),
        (
            {"factors": {"transport": ["memory", "dds"], "transports.dds.lease": [1]}},
            "an option of a transport that this arm does not use",
        ),
        ({"system": {"engine": "synthetic", "server": {"port": 99999}}}, "system.server: the experiment settles this"),
        ({"system": {"engine": {"name": "synthetic", "itl": "x"}}}, "engine.itl"),
        (
            {
                "factors": {"transport": ["memory"]},
                "workloads": {"x": {"seconds": 5, "fault": {"kind": "kill"}}},
            },
            "in the orchestrator's own process",
        ),
    ],
)
def test_a_fault_of_an_arm_is_told_before_anything_starts(members: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arms_of(plan(**members))
    assert said in str(caught.value)


def test_every_combination_of_levels_is_an_arm() -> None:
    arms = arms_of(
        plan(
            system={
                "engine": {"name": "synthetic", "itl": 5},
                "transports": {"dds": {"domain": 40}, "zeromq": {"max_message_bytes": 2048}},
                "selector": "round_robin",
            },
            factors={
                "transport": ["dds", {"both": ["zeromq", "dds"]}],
                "engine": [{"slow": {"itl": 50}}, "synthetic"],
                "agents": [1, 3],
                "pipeline.resume": [True, False],
            },
        )
    )
    assert len(arms) == 16
    first = arms[0]
    assert first.name == "dds+slow+1+true"
    assert first.levels == {"transport": "dds", "engine": "slow", "agents": "1", "pipeline.resume": "true"}
    config = config_of(first)
    assert [(each.name, each.options) for each in config.transports] == [("dds", {"domain": 40})]
    assert config.engine.options == {"itl": 50}
    assert config.pipeline.resume
    assert config.selector.name == "round_robin"
    last = arms[-1]
    assert last.agents == 3
    assert [each.options for each in config_of(last).transports] == [{"max_message_bytes": 2048}, {"domain": 40}]
    assert config_of(last).engine.options == {"itl": 5}


def test_a_plan_without_factors_has_one_arm() -> None:
    (only,) = arms_of(plan())
    assert only.name == ALONE
    assert only.transports == ["dds"]


def test_a_dumped_plan_is_a_plan_again(tmp_path: Path) -> None:
    given = load_plan(
        written(tmp_path, factors={"transport": ["dds", {"tls": {"http": {"token": "s"}}}], "agents": [1, 2]})
    )
    (tmp_path / "plan.json").write_text(json.dumps(given.model_dump(mode="json")))
    assert load_plan(tmp_path / "plan.json") == given


SIX = plan(factors={"agents": list(range(1, 7))})
SIX_ARMS = arms_of(SIX)


@given(seed=st.integers(0, 2**40), block=st.integers(1, 1000))
def test_orders_are_drawn_from_the_seed_and_name_everything_once(seed: int, block: int) -> None:
    given = SIX.model_copy(update={"seed": seed})
    arms = SIX_ARMS
    drawn = arm_order(given, block, arms)
    assert drawn == arm_order(given, block, arms)
    assert sorted(each.name for each in drawn) == sorted(each.name for each in arms)
    assert sorted(workload_order(given, block)) == sorted(WORKLOADS)
    assert load_seed(given, block) == load_seed(given, block)


def test_blocks_have_orders_and_seeds_of_their_own() -> None:
    given, arms = SIX, SIX_ARMS
    assert len({tuple(each.name for each in arm_order(given, block, arms)) for block in range(20)}) > 10
    assert len({load_seed(given, block) for block in range(20)}) == 20
    assert len({tuple(workload_order(given, block)) for block in range(20)}) == 2


KEYS = st.sampled_from(["token", "secret_key", "name", "password", "note", "api_key"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
TREES = st.dictionaries(
    KEYS, st.one_of(TEXTS, st.integers(), st.dictionaries(KEYS, TEXTS), st.lists(TEXTS, max_size=3)), min_size=1
)


@given(tree=TREES, flow=st.booleans())
def test_no_secret_stays_in_the_plan_of_a_record(tree: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True)
    kept = yaml.safe_load(without_secrets(text))
    assert kept.keys() == tree.keys()

    def walk(before: Any, after: Any, secret: bool) -> None:
        if isinstance(before, dict):
            for key in before:
                walk(before[key], after[key], key not in ("name", "note"))
        elif isinstance(before, list):
            for each, other in zip(before, after, strict=True):
                walk(each, other, secret)
        elif secret and isinstance(before, str):
            assert after == "*" * 10
        else:
            assert after == before

    walk(tree, kept, False)


def test_a_plan_without_secrets_is_kept_to_the_byte() -> None:
    text = "name: x   # a remark\nfactors: {transport: [dds]}\n"
    assert without_secrets(text) == text
