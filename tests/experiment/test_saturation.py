"""The search for the rate that a system bears: what it finds of queues whose capacity is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiment.answering import measured, whole
from tests.experiment.fabricated import fabricate, plan_of
from tests.experiment.real_runs import plan_tree, run_cell
from tests.long_form import SOAK, examples

from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.analysis.capacity import bracket_of
from anywire_experiment.analysis.sample_rows import read_samples
from anywire_experiment.plan.saturation import Bracket, Search, Step, bracket, is_borne, lengths, next_rate
from anywire_experiment.plan.workload import Workload
from anywire_experiment.record.cells import SAMPLES_FILE, read_cell
from anywire_experiment.record.samples import SAMPLES
from anywire_experiment.report import saturation
from anywire_experiment.report.surroundings import about


def queue(rate: float, seconds: float, slots: int, service: Iterator[float], rng: np.random.Generator) -> Step:
    """What is seen of a step at a queue with so many slots, first come, first served."""
    at = np.cumsum(rng.exponential(1 / rate, round(3 * rate * seconds) + 50))
    at = at[at < seconds]
    free = np.zeros(slots)
    took = np.empty(at.size)
    for number, came in enumerate(at):
        slot = int(free.argmin())
        free[slot] = max(free[slot], came) + next(service)
        took[number] = free[slot] - came
    return Step(rate, at - (at[0] if at.size else 0.0), took, np.ones(at.size, dtype=bool), np.zeros(at.size))


def searched(search: Search, slots: int, mean: float, seed: int, spread: float = 0.3) -> tuple[Bracket, int]:
    """What is found of a queue whose services take ``mean`` seconds, and after how many steps."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log1p(spread**2))
    service = iter(lambda: float(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma)), None)
    steps: list[Step] = []
    while (rate := next_rate(search, steps)) is not None:
        steps.append(queue(rate, search.seconds, slots, service, rng))
    return bracket(search, steps), len(steps)


@pytest.mark.parametrize(("slots", "mean"), [(1, 0.005), (4, 0.05), (32, 0.3)])
def test_the_capacity_of_a_queue_is_found(slots: int, mean: float) -> None:
    """Its true capacity is slots / mean. Each block's finding is within the precision and the chance of its arrivals,
    and the geometric mean over blocks, which is what an arm is judged by, closer."""
    true = slots / mean
    search = Search(low=max(10, 0.2 * true), high=10 * true, seconds=3, precision=0.1)
    found = [searched(search, slots, mean, seed) for seed in range(60 if SOAK else 16)]
    capacities = np.array([each.capacity for each, _ in found], dtype=float)
    assert np.isfinite(capacities).all()
    ratios = capacities / true
    assert 0.85 <= np.exp(np.log(ratios).mean()) <= 1.15
    assert np.std(np.log(ratios)) < 0.15
    assert max(count for _, count in found) <= 12


def test_one_system_bears_more_than_another() -> None:
    search = Search(low=20, high=2000, seconds=3)
    slow = [searched(search, 4, 0.050, seed)[0].capacity for seed in range(12)]
    fast = [searched(search, 4, 0.040, seed + 100)[0].capacity for seed in range(12)]
    logs = np.log(np.array(fast, dtype=float) / np.array(slow, dtype=float))
    assert np.exp(logs.mean()) == pytest.approx(1.25, rel=0.1)


def step(rate: float, took: float, growth: float = 0.0, failing: float = 0.0, late: float = 0.0) -> Step:
    count = 200
    at = np.linspace(0, 3, count)
    answered = np.arange(count) >= failing * count
    return Step(rate, at, took + growth * at, answered, np.full(count, late))


def test_a_rate_is_borne_while_latency_does_not_grow_and_requests_do_not_fail() -> None:
    search = Search(low=10, high=100, seconds=3, precision=0.1)
    assert is_borne(search, step(10, 0.2), 0.2)
    assert is_borne(search, step(10, 0.3), 0.2), "a latency that is longer and stays so"
    assert not is_borne(search, step(10, 0.2, growth=0.1), 0.2)
    assert is_borne(search, step(10, 0.2, failing=0.01), 0.2)
    assert not is_borne(search, step(10, 0.2, failing=0.05), 0.2)
    assert not is_borne(search, step(10, 0.2, failing=1), 0.2)
    assert not is_borne(search, Step(10, np.array([]), np.array([]), np.array([], dtype=bool), np.array([])), 0.2)
    strict = search.model_copy(update={"latency": 0.25})
    assert is_borne(strict, step(10, 0.2), 0.2)
    assert not is_borne(strict, step(10, 0.3), 0.2)


def test_what_the_load_generator_cannot_send_is_no_limit_of_the_system() -> None:
    search = Search(low=10, high=100, seconds=3, precision=0.1)
    late = step(80, 0.2, growth=0.2, late=0.3)
    assert bracket(search, [step(10, 0.2), step(20, 0.2), step(40, 0.2), late]) == Bracket(40, 80, True)
    assert Bracket(40, 80, True).capacity is None
    own = step(50, 0.2, growth=0.2)
    assert bracket(search, [step(10, 0.2), step(40, 0.2), late, own]) == Bracket(40, 50, False)
    assert bracket(search, [step(10, 0.2), own, late]) == Bracket(10, 50, False), (
        "the lowest that was not borne decides"
    )


def test_a_capacity_outside_of_the_plan_s_rates_is_not_guessed() -> None:
    search = Search(low=10, high=100, seconds=3)
    assert Bracket(100, float("inf")).capacity is None
    assert Bracket(0, 10).capacity is None
    assert next_rate(search, [step(10, 0.2, failing=1)]) is None
    borne = [step(rate, 0.2) for rate in (10, 20, 40, 80, 100)]
    assert [next_rate(search, borne[:at]) for at in range(6)] == [10, 20, 40, 80, 100, None]


@given(st.floats(1, 1e4), st.floats(1.01, 9000), st.floats(0.02, 1), st.floats(0, 1e5), st.integers(0, 2**31))
@settings(max_examples=examples(40), deadline=None)
def test_every_search_ends_with_a_bracket_as_narrow_as_wanted(
    low: float, times: float, precision: float, truth: float, noise: int
) -> None:
    """Whatever the system does, also one that does not bear a rate that it bore before."""
    search = Search(low=low, high=low * times, seconds=FEW / low, precision=precision)
    rng = np.random.default_rng(noise)
    steps: list[Step] = []
    while (rate := next_rate(search, steps)) is not None:
        assert low <= rate <= low * times
        bears = rate <= truth * rng.uniform(0.5, 1.5)
        steps.append(Step(rate, np.zeros(3), np.full(3, 0.1), np.full(3, bears), np.zeros(3)))
        assert len(steps) < 60
    found = bracket(search, steps)
    if found.capacity is not None:
        assert found.borne < found.not_borne <= found.borne * (1 + precision) * (1 + 1e-9)
        assert found.borne < found.capacity < found.not_borne


FEW = 21.0


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({"low": 10, "high": 5}, "is not above `low`"),
        ({"low": 1, "high": 5}, "it needs 20"),
        ({"low": 100, "high": 1e6}, "more than 200000 requests"),
        ({"low": 10, "high": 20, "precision": 0.001}, "precision"),
    ],
)
def test_a_search_that_can_tell_nothing_is_refused(load: dict[str, Any], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        Workload.model_validate({"arrivals": {"kind": "search"} | load})


@pytest.mark.parametrize("more", [{"requests": 5}, {"seconds": 5}, {"cancel": {"share": 1, "after": 1}}])
def test_a_search_has_its_own_end(more: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="has steps of its own"):
        Workload.model_validate({"arrivals": {"kind": "search", "low": 10, "high": 20}} | more)


async def test_steps_are_sent_until_the_rate_is_known_and_each_row_says_its_own(tmp_path: Path) -> None:
    one = asyncio.Semaphore(1)

    async def handler(request: web.Request) -> web.StreamResponse:
        async with one:
            await asyncio.sleep(0.01)
        return await whole(request)

    load = {"arrivals": {"kind": "search", "low": 25, "high": 2000, "seconds": 1, "precision": 0.5}}
    table = await measured(tmp_path, handler, load, warm_up=3)
    rows = [each for each in table.to_pylist() if each["phase"] == "measured"]
    warm = [each for each in table.to_pylist() if each["phase"] == "warm_up"]
    assert {each["offered"] for each in warm} == {None}
    tried = list(dict.fromkeys(each["offered"] for each in rows))
    assert tried[:2] == [25, 50]
    assert 50 < max(tried) <= 200
    assert len(tried) >= 3
    assert {each["outcome"] for each in rows} == {"ok"}


BLOCKS = 16
SEARCH = {"kind": "search", "low": 20, "high": 400, "seconds": 2, "precision": 0.1}


def with_searches(record: Path, services: dict[str, float]) -> Path:
    """The record with the rows of searches at queues of four slots, whose services take so long in each arm."""
    for path in sorted(record.glob(f"cells/*/*/{SAMPLES_FILE}")):
        cell = read_cell(path.parent)
        rng = np.random.default_rng([cell.block, cell.order])
        mean = services[cell.arm]
        search, began = Search.model_validate(SEARCH), 10**12
        steps: list[Step] = []
        model = {name: values[-1] for name, values in pq.read_table(path).to_pydict().items()}
        rows: list[dict[str, Any]] = []
        while (rate := next_rate(search, steps)) is not None:
            made = queue(rate, search.seconds, 4, repeat(mean), rng)
            steps.append(made)
            for at, took in zip(made.at, made.took, strict=True):
                intended = began + int(at * 1e9)
                done = intended + int(took * 1e9)
                times = {"intended_ns": intended, "done_ns": done, "sent_ns": intended, "index": len(rows)}
                rows.append(model | times | {"offered": rate, "phase": "measured", "outcome": "ok"})
            began += 60 * 10**9
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), path)
    return record


def test_arms_are_judged_by_the_rate_that_they_bear(tmp_path: Path) -> None:
    tree = plan_of(workloads={"w": {"arrivals": SEARCH}}, baseline="zeromq", blocks=BLOCKS)
    record = with_searches(fabricate(tmp_path / "record", tree), {"zeromq": 0.05, "dds": 0.03})
    found = analyse(record)
    (compared,) = found.comparisons
    assert compared.metric == "capacity"
    assert "dds is higher than zeromq" in compared.sentence
    made = saturation.table(found.figures)
    assert [row[:1] + row[2:6] for row in made.rows] == [[arm, str(BLOCKS), "0", "0", "0"] for arm in ("zeromq", "dds")]
    borne = {each.arm: each.metrics["capacity"].typical for each in found.figures}
    for arm, true in (("zeromq", 80), ("dds", 400 / 3)):
        value = borne[arm]
        assert value is not None
        assert value.value == pytest.approx(true, rel=0.12)
        assert value.interval is not None


def test_a_rate_that_the_plan_does_not_reach_is_not_judged(tmp_path: Path) -> None:
    tree = plan_of(workloads={"w": {"arrivals": SEARCH}}, baseline="zeromq", blocks=BLOCKS)
    record = with_searches(fabricate(tmp_path / "record", tree), {"zeromq": 0.05, "dds": 0.001})
    found = analyse(record)
    (compared,) = found.comparisons
    assert compared.verdict is None
    assert "dds was not seen to bear one rate and not to bear another" in str(compared.excluded)
    assert saturation.table(found.figures).rows[1][3] == str(BLOCKS)
    said = about(Workload.model_validate({"arrivals": SEARCH}))
    assert (
        "in steps of 2 s, from 20 to at most 400 per second, until the rate that is borne is known within 10.0 %"
        in said
    )


@pytest.mark.timeout(240)
async def test_the_capacity_of_real_slots_is_found(tmp_path: Path, dds_domain: int) -> None:
    """Two slots with answers of 40 ms bear 50 requests per second."""
    search = {"kind": "search", "low": 21, "high": 500, "seconds": 1.5, "precision": 0.2}
    tree = plan_tree(dds_domain, workloads={"w": {"arrivals": search, "max_tokens": 1, "warm_up": {"requests": 5}}})
    tree["workloads"]["w"]["warm_up"] = {"requests": 5, "limit": 5}
    tree["system"] |= {"engine": {"name": "synthetic", "ttft": 40}, "agent": {"slots": 2}, "transports": "zeromq"}
    cell = await run_cell(tree, tmp_path / "cell", dds_domain)
    assert (cell.state, cell.reason) == ("completed", "")
    rows = read_samples(tmp_path / "cell")
    found = bracket_of(rows, Search.model_validate(search)).capacity
    assert found is not None
    assert 30 <= found <= 70


def growing(record: Path, arm: str, growth: float, blocks: int) -> Path:
    """The record with latencies of that arm that grow by a share of the time, in its first blocks."""
    for path in sorted(record.glob(f"cells/*/{arm}/{SAMPLES_FILE}"))[:blocks]:
        table = pq.read_table(path)
        intended = table["intended_ns"].to_numpy()
        done = table["done_ns"].to_numpy() + (growth * (intended - intended.min())).astype(np.int64)
        table = table.set_column(table.schema.get_field_index("done_ns"), "done_ns", pa.array(done))
        pq.write_table(table.cast(SAMPLES), path)
    return record


@pytest.mark.parametrize(
    ("arrivals", "growth", "blocks", "is_told"),
    [
        ({"kind": "poisson", "rate": 100}, 0.2, 12, True),
        ({"kind": "poisson", "rate": 100}, 0.2, 7, True),
        ({"kind": "poisson", "rate": 100}, 0.2, 5, False),
        ({"kind": "poisson", "rate": 100}, 0.03, 12, False),
        ({"kind": "closed", "clients": 4}, 0.2, 12, False),
    ],
)
def test_an_open_loop_with_which_the_system_does_not_keep_up_is_told(
    tmp_path: Path, arrivals: dict[str, Any], growth: float, blocks: int, is_told: bool
) -> None:
    tree = plan_of(workloads={"w": {"requests": 200, "arrivals": arrivals}}, blocks=12)
    record = growing(fabricate(tmp_path / "record", tree), "dds", growth, blocks)
    said = [each for each in analyse(record).cautions if "more than the system could do" in each]
    assert bool(said) == is_told
    assert not is_told or ("dds (by" in said[0] and "zeromq" not in said[0])


@given(
    st.floats(20, 500),
    st.floats(1.01, 300),
    st.floats(0.02, 1),
    st.floats(1, 400),
)
def test_how_many_steps_a_search_takes_is_known_beforehand(
    low: float, reach: float, precision: float, beyond: float
) -> None:
    search = Search(low=low, high=low * reach, seconds=1, precision=precision)
    capacity = low * beyond
    steps: list[Step] = []
    while (rate := next_rate(search, steps)) is not None:
        at = np.linspace(0, 1, 20)
        answered = np.full(20, rate <= capacity)
        steps.append(Step(rate, at, np.full(20, 0.01), answered, np.zeros(20)))
    known = list(lengths(search))
    assert min(each.steps for each in known) <= len(steps) <= max(each.steps for each in known)
    not_borne = sum(step.rate > capacity for step in steps)
    assert any(each.steps == len(steps) and not_borne <= each.not_borne for each in known), (
        "as many steps after one of the doublings"
    )
    took = sum(max(1.0, step.rate / capacity) for step in steps)
    assert took <= max(each.longest(search) for each in known) * (1 + 1e-9)
