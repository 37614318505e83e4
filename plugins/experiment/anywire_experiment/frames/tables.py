"""The tables of a record, made of its raw data and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from anywire.errors import ConfigError
from anywire_experiment.analysis.arm_figures import Valued
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.sample_rows import read_samples
from anywire_experiment.analysis.wording import meaning_of
from anywire_experiment.frames.schema import LEVEL, SCHEMAS, schema_of
from anywire_experiment.outcome.checked_record import checked
from anywire_experiment.record.cells import LOAD, Cell
from anywire_experiment.record.folder import cell_folder
from anywire_experiment.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

NAMES = tuple(SCHEMAS)

Row = dict[str, Any]


class PandasFrames(NamedTuple):
    """The tables of a record as frames of pandas; columns that may be null have types that may."""

    requests: pd.DataFrame
    cells: pd.DataFrame
    blocks: pd.DataFrame
    figures: pd.DataFrame
    comparisons: pd.DataFrame


class PolarsFrames(NamedTuple):
    """The tables of a record as frames of polars."""

    requests: pl.DataFrame
    cells: pl.DataFrame
    blocks: pl.DataFrame
    figures: pl.DataFrame
    comparisons: pl.DataFrame


class Tables(NamedTuple):
    """A record as Arrow tables (`anywire_experiment.frames.schema`)."""

    requests: pa.Table
    cells: pa.Table
    blocks: pa.Table
    figures: pa.Table
    comparisons: pa.Table

    def pandas(self) -> PandasFrames:
        """As frames of pandas; numbers that may be missing have types that can say so (`pandas.ArrowDtype`). Raises
        `ConfigError` where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError("pandas is not installed: pip install anywire-experiment[pandas]") from None
        return PandasFrames(*(each.to_pandas(types_mapper=pd.ArrowDtype) for each in self))

    def polars(self) -> PolarsFrames:
        """As frames of polars. Raises `ConfigError` where polars is not installed."""
        try:
            import polars as pl
        except ImportError:
            raise ConfigError("polars is not installed: pip install anywire-experiment[polars]") from None
        return PolarsFrames(*(pl.DataFrame(each) for each in self))


def load(record: str | Path) -> Tables:
    """The tables of a record, a folder or a published file. It is verified first; one that was never sealed, or has
    another format, is taken as it is. Raises `RecordError` for a record that is not what was sealed, and for none."""
    with checked(Path(record)) as (raw, results):
        return tables_of(raw, results)


def tables_of(raw: RawData, results: Results) -> Tables:
    """The tables of a record that is read already, with its figures."""
    rows = {
        "cells": _cells(raw),
        "blocks": _blocks(results),
        "figures": _figures(results),
        "comparisons": _comparisons(results),
    }
    made = {name: _table(raw, name, each) for name, each in rows.items()}
    return Tables(requests=_requests(raw), **made)


def _table(raw: RawData, name: str, rows: Iterable[Row]) -> pa.Table:
    schema = schema_of(name, list(raw.plan.factors))
    return pa.Table.from_pylist([row | _levels(raw, row) for row in rows], schema=schema)


def _levels(raw: RawData, row: Mapping[str, Any]) -> Row:
    arm = row["candidate"] if "candidate" in row else row["arm"]
    return {f"{LEVEL}{factor}": label for factor, label in raw.levels[arm].items()}


def _requests(raw: RawData) -> pa.Table:
    schema = schema_of("requests", list(raw.plan.factors))
    parts = [_of_cell(raw, cell, schema) for cell in raw.cells if cell.state == "completed"]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _of_cell(raw: RawData, cell: Cell, schema: pa.Schema) -> pa.Table:
    samples = read_samples(cell_folder(raw.folder, cell.block, cell.arm))
    count = samples.num_rows
    whole = samples["outcome"].to_numpy(zero_copy_only=False) == "ok"
    intended = samples["intended_ns"].to_numpy()

    def since(name: str, known: Any) -> pa.Array:
        return pa.array((samples[name].to_numpy() - intended) / 1e6, mask=~known)

    sent = samples["sent_ns"].to_numpy() > 0
    columns: dict[str, Any] = {name: samples[name] for name in samples.column_names}
    columns |= {"block": np.full(count, cell.block), "arm": pa.array([cell.arm] * count, pa.string())}
    columns |= {"late_ms": since("sent_ns", sent)}
    columns |= {"latency_ms": since("done_ns", whole), "ttft_ms": since("first_ns", whole)}
    columns |= {f"{LEVEL}{factor}": [label] * count for factor, label in raw.levels[cell.arm].items()}
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _cells(raw: RawData) -> Iterator[Row]:
    for cell in raw.cells:
        own: Row = {"block": cell.block, "arm": cell.arm, "place": cell.order + 1, "state": cell.state}
        own |= {"reason": cell.reason, "started": cell.started, "cell_s": (cell.ended_ns - cell.started_ns) / 1e9}
        own |= {"boot_id": cell.boot_id, "seed": cell.seed}
        for name, averages in (("load_before", cell.load_average_before), ("load_after", cell.load_average_after)):
            own[name] = averages[0] if averages else None
        if not cell.workloads:
            yield own
        for place, name in enumerate(cell.workload_order, start=1):
            if (run := cell.workloads.get(name)) is None:
                continue
            of_load = run.cpu_seconds.get(LOAD)
            yield own | {
                "workload": name,
                "workload_place": place,
                "measured_s": (run.ended_ns - run.began_ns) / 1e9 if run.ended_ns and run.began_ns else None,
                "warm_up_requests": run.warm_up_requests,
                "steady": run.steady,
                "requests": run.requests,
                "failed": run.failed,
                "system_cpu_s": sum(used for process, used in run.cpu_seconds.items() if process != LOAD)
                if run.cpu_seconds
                else None,
                "load_cpu_s": of_load,
                "wire_bytes": run.wire_bytes,
                "joules": sum(run.joules.values()) if run.joules else None,
            }


def _blocks(results: Results) -> Iterator[Row]:
    for each in results.figures:
        for metric, found in each.metrics.items():
            for block, value in found.values.items():
                yield {
                    "block": block,
                    "arm": each.arm,
                    "workload": each.workload,
                    "metric": metric,
                    "unit": found.unit,
                    "value": value,
                }


def _figures(results: Results) -> Iterator[Row]:
    for each in results.figures:
        for metric, found in each.metrics.items():
            row: Row = {"workload": each.workload, "metric": metric, "unit": found.unit, "arm": each.arm}
            row |= {"blocks": len(found.values), "samples": found.samples, "effective": found.effective}
            row |= {"requests": each.requests, "failed": each.failed} | _valued("typical", found.typical)
            if found.percentiles is not None:
                for name in found.percentiles.__struct_fields__:
                    row |= _valued(name, getattr(found.percentiles, name))
            yield row


def _valued(name: str, found: Valued | None) -> Row:
    if found is None:
        return {}
    limits = {f"{name}_low": found.interval.low, f"{name}_high": found.interval.high} if found.interval else {}
    return {name: found.value} | limits


def _comparisons(results: Results) -> Iterator[Row]:
    for each in results.comparisons:
        row: Row = {"workload": each.workload, "metric": each.metric, "unit": meaning_of(each.metric).unit}
        row |= {"baseline": each.baseline, "candidate": each.candidate, "confidence": results.confidence}
        row |= {"blocks": results.blocks - len(each.excluded), "sentence": each.sentence, "reason": each.reason}
        row["outcome"] = each.verdict.outcome.value if each.verdict else None
        yield row | _judged(each)


def _judged(each: ComparisonFigures) -> Row:
    found = each.comparison or each.shares
    difference = found.difference if found is not None else each.difference
    row = _limits("difference", difference)
    if each.comparison is not None:
        row |= _limits("ratio", each.comparison.ratio)
    if found is not None:
        row |= {"p_different": found.adjusted_different, "p_equivalent": found.adjusted_equivalent}
    return row


def _limits(name: str, estimate: Estimate | None) -> Row:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
