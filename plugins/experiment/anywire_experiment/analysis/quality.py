"""Answers that were checked: how many were right, by which arm alone, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from anywire_experiment.analysis.arm_figures import KindFigures, QualityFigures, Valued
from anywire_experiment.analysis.measured import Measured
from anywire_experiment.analysis.results import PairedAnswers
from anywire_experiment.analysis.sample_rows import column
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL, share_over_blocks


def quality_of(blocks: Mapping[int, Measured], confidence: float) -> QualityFigures | None:
    """Of one arm under one workload; None where no answer was checked."""
    checked = [found for each in blocks.values() if (found := each.exercises()).num_rows]
    if not checked:
        return None
    asked, right = [each.num_rows for each in checked], [int(column(each, "right").sum()) for each in checked]
    interval = share_over_blocks(right, asked, confidence) if len(checked) >= FEWEST_FOR_INTERVAL else None
    spent, tasks = (sum(int(column(each, name).sum()) for each in checked) for name in ("spent_tokens", "tasks"))
    seconds = np.concatenate([column(each, "done_ns") - column(each, "intended_ns") for each in checked]) / 1e9
    of_kind: Counter[str] = Counter()
    right_of_kind: Counter[str] = Counter()
    for each in checked:
        for kind, is_right in zip(each["exercise_kind"].to_pylist(), each["right"].to_pylist(), strict=True):
            of_kind[kind] += 1
            right_of_kind[kind] += is_right
    return QualityFigures(
        asked=sum(asked),
        right=sum(right),
        share=Valued(sum(right) / sum(asked), interval),
        tokens=spent / sum(asked),
        tasks=tasks / sum(asked),
        seconds=float(seconds.mean()),
        tokens_per_right=spent / sum(right) if any(right) else None,
        kinds=[KindFigures(kind, count, right_of_kind[kind]) for kind, count in sorted(of_kind.items())],
    )


def paired(
    workload: str, arms: tuple[str, str], baseline: Mapping[int, Measured], candidate: Mapping[int, Measured]
) -> PairedAnswers | None:
    """What two arms have answered of the same exercises; None where there are none."""
    counts: Counter[tuple[bool, bool]] = Counter()
    for block in baseline.keys() & candidate.keys():
        before, after = (_right(blocks[block]) for blocks in (baseline, candidate))
        counts.update((before[at], after[at]) for at in before.keys() & after.keys())
    if not counts:
        return None
    return PairedAnswers(
        workload,
        *arms,
        both=counts[True, True],
        baseline_alone=counts[True, False],
        candidate_alone=counts[False, True],
        neither=counts[False, False],
    )


def _right(measured: Measured) -> dict[tuple[int, str], bool]:
    """By the number of the request and the exercise that it asked."""
    rows = measured.exercises()
    keys = zip(rows["index"].to_pylist(), rows["exercise"].to_pylist(), strict=True)
    return dict(zip(keys, rows["right"].to_pylist(), strict=True))
