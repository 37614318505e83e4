"""A fit finds the distribution that was drawn from, and says how far off it is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experiment.fabricated import fabricate, plan_of

from anywire.builtin.distribution import Distribution
from anywire.errors import ConfigError
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.synthetic_fit import fit_engine, fitted


@pytest.mark.parametrize(
    "truth",
    [
        Distribution(kind="lognormal", mean=40, spread=25),
        Distribution(kind="normal", mean=8, spread=1),
        Distribution(kind="exponential", mean=12),
        Distribution(kind="constant", mean=5),
    ],
    ids=lambda each: each.kind,
)
def test_the_distribution_that_was_drawn_from_is_found(truth: Distribution) -> None:
    rng = random.Random(7)
    fit = fitted(np.array([truth.draw(rng) for _ in range(3000)]))
    assert fit.distribution.mean == pytest.approx(truth.mean, rel=0.05)
    assert fit.distance < 0.03
    assert all(abs(error) < 0.1 for name, error in fit.errors.items() if name in ("p25", "p50", "p75", "p90"))


def test_stragglers_do_not_spoil_the_fit() -> None:
    rng = random.Random(7)
    measured = np.array([rng.gauss(8, 0.5) for _ in range(1000)] + [800.0] * 5)
    fit = fitted(measured)
    assert fit.distribution.mean == pytest.approx(8, rel=0.05)
    assert abs(fit.errors["p50"]) < 0.02


def test_a_burst_is_not_fitted(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, plan_of(workloads={"one-client": {"requests": 60, "stream": True}}))
    for cell in folder.glob("cells/*/dds/samples.parquet"):
        table = pq.read_table(cell)
        at = table.schema.get_field_index("piece_ns")
        pieces = pa.array(
            [[each[-1]] * len(each) for each in table["piece_ns"].to_pylist()], table.schema.field(at).type
        )
        pq.write_table(table.set_column(at, table.schema.field(at), pieces), cell)
    with pytest.raises(ConfigError, match="the streams of dds in 'one-client' came as bursts"):
        fit_engine(RawData(folder), "dds", "one-client")
    assert fit_engine(RawData(folder), "zeromq", "one-client").itl.samples > 0


def test_what_fits_nothing_says_so() -> None:
    measured = np.array([1.0, 100.0] * 500)
    assert fitted(measured).distance > 0.3
