"""The conditions of --fail-if: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.errors import ConfigError
from anywire_experiment.analysis.metrics import MEANINGS
from anywire_experiment.gate.condition import SHARES, condition


@pytest.mark.parametrize(
    ("text", "larger", "threshold"),
    [
        ("slower > 5 %", {"latency": True, "ttft": True, "itl": True}, 0.05),
        ("slower>5%", {"latency": True, "ttft": True, "itl": True}, 0.05),
        ("Slower > 2.5 percent in latency", {"latency": True}, 0.025),
        ("faster > 5 % in ttft, itl", {"ttft": False, "itl": False}, 0.05),
        ("lower > 10 % in throughput", {"throughput": False}, 0.10),
        ("slower", {"latency": True, "ttft": True, "itl": True}, 0.0),
        ("fails more > 1 point", {"failures": True}, 0.01),
        ("fails more", {"failures": True}, 0.0),
        ("right less often > 3 percentage points", {"quality": False}, 0.03),
        ("less fair > 5 %", {"fairness": False}, 0.05),
        ("not equivalent within 5 % in latency", {"latency": None}, 0.05),
        ("not equivalent within 2 points in quality", {"quality": None}, 0.02),
    ],
)
def test_a_condition_is_of_metrics_in_a_direction(text: str, larger: dict[str, bool | None], threshold: float) -> None:
    found = condition(text)
    assert found.larger == larger
    assert found.threshold == pytest.approx(threshold)


def test_worse_is_of_everything_in_its_own_direction() -> None:
    found = condition("worse > 5 %")
    assert set(found.larger) == set(MEANINGS) - SHARES
    assert found.larger["latency"] is True
    assert found.larger["throughput"] is False
    assert set(condition("worse").larger) == set(MEANINGS)
    assert set(condition("worse > 1 point").larger) == SHARES


def test_it_may_name_workloads_and_arms() -> None:
    found = condition("slower > 5 % in latency of one-client, st.reams over dds+random")
    assert (found.workloads, found.arms) == (("one-client", "st.reams"), ("dds+random",))
    assert found.is_of("latency", "one-client", "dds+random")
    assert not found.is_of("latency", "one-client", "http")
    assert not found.is_of("latency", "other", "dds+random")
    assert not found.is_of("ttft", "one-client", "dds+random")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "that is no condition; examples: `slower > 5 %`"),
        ("slower > ", "a number must follow"),
        ("slower > 5", "say in which unit 5 is"),
        ("slower 5 %", "write `>` before the number: slower > 5 %"),
        ("slowr > 5 %", "did you mean 'slower'?"),
        ("slower > 5 % in latncy", "there is no metric 'latncy'; did you mean 'latency'?"),
        ("slower > 5 % in throughput", "throughput gets higher or lower, and not slower"),
        ("slower > 5 points in latency", "latency is judged in %, and not in points"),
        ("fails more > 5 %", "failures is judged in points, and not in %"),
        ("faster > 100 %", "nothing gets smaller by 100 % or more"),
        ("not equivalent", "'not equivalent' is no finding"),
        ("not equivalent within", "a number must follow"),
        ("not equivalent within 0 %", "a margin is more than 0"),
        ("slower > 5 % and fails more", "that is no condition"),
        ("slower > -5 %", "that is no condition"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_do(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        condition(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith("--fail-if ")


@given(st.text(max_size=60))
def test_whatever_somebody_writes_is_a_condition_or_a_clear_error(text: str) -> None:
    said = ""
    try:
        condition(text)
    except ConfigError as error:
        said = str(error)
    assert said == "" or said.startswith("--fail-if ")
