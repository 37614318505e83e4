"""The results as tables of text, which HTML, Markdown and LaTeX show alike."""

from __future__ import annotations

import msgspec

from anywire_experiment.analysis.arm_figures import ArmFigures, Valued
from anywire_experiment.analysis.metrics import SHARES
from anywire_experiment.analysis.resources import SYSTEM
from anywire_experiment.analysis.results import ComparisonFigures, Results
from anywire_experiment.analysis.wording import meaning_of, metric_of, percent
from anywire_experiment.plan.metric import Metric
from anywire_experiment.report.numbers import NO_INTERVAL, NONE, interval, number, p_value, percent_change, size, valued
from anywire_experiment.statistics import FEWEST_FOR_INTERVAL, Estimate


class Table(msgspec.Struct, frozen=True):
    """The first column says what a row is about. ``words`` are the other columns that hold text and no figures."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    words: frozenset[int] = frozenset()


def compared(results: Results, comparisons: list[ComparisonFigures]) -> Table:
    head = ["Arm", "Metric", "Verdict", "Blocks", "Change", "Difference", "p", "p adjusted", "p equivalence"]
    return Table(
        f"Compared with {results.baseline}" if results.baseline else "Comparisons",
        head,
        [_compared(each, results) for each in comparisons],
        f"Change: median over the blocks of their ratio, less 1, with its {100 * results.confidence:g} % interval. "
        "Difference: that of their difference, in the metric's unit. p: two-sided; adjusted for all "
        f"comparisons of this experiment (Holm). p equivalence: that the arms differ by {100 * results.margin:g} % or "
        f"more (two one-sided tests, adjusted).{_of_shares(comparisons)}",
        frozenset({1, 2}),
    )


def _of_shares(comparisons: list[ComparisonFigures]) -> str:
    margins = sorted({each.shares.margin for each in comparisons if each.shares is not None})
    if not margins:
        return ""
    points = f"{100 * margins[0]:g} percentage points"
    return f" Shares have no ratio: they are compared by their difference, and p equivalence is that of {points}."


def _compared(each: ComparisonFigures, results: Results) -> list[str]:
    metric = metric_of(each.metric)
    row = [each.candidate, meaning_of(metric).title]
    used = str(results.blocks - len(each.excluded))
    said = each.verdict.words if each.verdict is not None else "not judged"
    if each.comparison is not None:
        found = each.comparison
        changes = [percent_change(found.ratio), _valued(found.difference, metric)]
        tests = [p_value(found.p_different), p_value(found.adjusted_different), p_value(found.adjusted_equivalent)]
        return [*row, said, used, *changes, *tests]
    if each.shares is not None:
        shared = each.shares
        tests = [p_value(shared.p_different), p_value(shared.adjusted_different), p_value(shared.adjusted_equivalent)]
        return [*row, said, used, NONE, _points(shared.difference), *tests]
    if each.difference is not None:
        apart = _points(each.difference) if metric in SHARES else _valued(each.difference, metric)
        return [*row, said, used, NONE, apart, NONE, NONE, NONE]
    return [*row, each.reason, used, *[NONE] * 5]


def figures(results: Results, arms: list[ArmFigures]) -> Table:
    return Table(
        "Figures",
        ["Arm", "Metric", f"Typical ({100 * results.confidence:g} % interval)", "Blocks", "Samples", "Worth"],
        [
            [
                each.arm,
                meaning_of(name).title,
                _typical(found.typical, metric_of(name)),
                str(len(found.values)),
                str(found.samples),
                f"{found.effective:.0f}",
            ]
            for each in arms
            for name, found in each.metrics.items()
        ],
        f"Typical: median over the blocks of each block's {results.statistic}, or of its one number; of shares "
        "of requests that of all requests. Change is the median of the blocks' ratios, which need not be the ratio of "
        f"two typical values. {NO_INTERVAL}: it cannot be estimated with fewer than {FEWEST_FOR_INTERVAL} blocks. "
        "Worth: how many independent samples they are worth, given that neighbours depend on each other.",
        frozenset({1}),
    )


def _typical(found: Valued | None, metric: Metric) -> str:
    scale, unit = _scale(metric)
    return f"{valued(found, scale)} {unit}".rstrip() if found else NONE


def _valued(estimate: Estimate, metric: Metric) -> str:
    scale, unit = _scale(metric)
    return f"{interval(estimate, scale)} {unit}".rstrip()


def _points(apart: Estimate) -> str:
    """Of shares. Where it is the same in all blocks, nothing tells how far it may be off."""
    told = interval(apart, 100.0) if apart.low < apart.high else number(100.0 * apart.value)
    return f"{told} points"


def _scale(metric: Metric) -> tuple[float, str]:
    return (100.0, "%") if metric in SHARES else (1.0, meaning_of(metric).unit)


def percentiles(arms: list[ArmFigures]) -> Table:
    return Table(
        "Percentiles",
        ["Arm", "Metric", "p50", "p90", "p95", "p99", "Unit"],
        [
            [each.arm, meaning_of(name).title]
            + [valued(estimate) for estimate in (found.p50, found.p90, found.p95, found.p99)]
            + [metric.unit]
            for each in arms
            for name, metric in each.metrics.items()
            if (found := metric.percentiles) is not None
        ],
        f"Median over the blocks, with its interval. {NONE}: too few answers in a block for it, or so many failures "
        "that it is one.",
        frozenset({1, 6}),
    )


def _by_code(arm: ArmFigures) -> str:
    """How many failed with which code, and who failed, where that was told."""
    codes = ", ".join(f"{code} {count}" for code, count in arm.failures.items()) or NONE
    origins = ", ".join(f"{origin} {count}" for origin, count in arm.origins.items())
    return f"{codes} (who failed: {origins})" if origins else codes


def failures(arms: list[ArmFigures]) -> Table:
    return Table(
        "Requests",
        ["Arm", "Requests", "Failed", "Share (interval)", "By code", "Unsteady warm-ups"],
        [
            [
                each.arm,
                str(each.requests),
                str(each.failed),
                f"{valued(each.failed_share, 100)} %" if each.failed_share else NONE,
                _by_code(each),
                f"{each.unsteady} of {each.blocks}",
            ]
            for each in arms
        ],
        "In all other figures of latency a failed request counts as slower than every answer. "
        "The interval of their share counts blocks and not requests, for "
        "the requests of a block fail together: where none failed, its limit is the share of blocks that may fail "
        "without one of these having shown it.",
        frozenset({4}),
    )


def served(arms: list[ArmFigures]) -> Table:
    return Table(
        "Tenants and priorities",
        ["Arm", "Tenant", "Priority", "Requests", "In time", "Mean wait", "Longest wait", "Tokens", "Jain's index"],
        [
            [
                each.arm,
                band.tenant or NONE,
                str(band.priority),
                str(band.requests),
                f"{band.in_time} ({percent(band.in_time / band.requests)})",
                _seconds(band.mean_wait_s),
                _seconds(band.longest_wait_s),
                str(band.tokens),
                NONE if found.fairness is None else f"{found.fairness:.3f}",
            ]
            for each in arms
            if (found := each.served) is not None
            for band in found.bands
        ],
        "In time: the whole answer came within the deadline, or came at all where none was told. Waits: of tasks in "
        "all blocks, from receipt to sending, or to the deadline of a task that was not sent before. Jain's index: of "
        "the tokens, while requests came, of the tenants of which tasks waited half of the time or more, mean over the "
        f"blocks; 1 when all got the same, 1/n when one of n got everything, {NONE} where fewer than two waited.",
        frozenset({1}),
    )


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{number(value)} s"


def counters(arms: list[ArmFigures]) -> Table:
    names = sorted({name for each in arms for name in each.counters})
    return Table(
        "Counters of the orchestrator",
        ["Counter", *(each.arm for each in arms)],
        [[name, *(_counted(each.counters.get(name, 0)) for each in arms)] for name in names],
        "By how much it grew while the workload was measured, in all blocks together. `hedges` are second attempts of "
        "late streams; `hedges_wasted_s` and `hedges_wasted_tokens` are what agents spent on attempts that another one "
        "of the task overtook, and on hedges in vain.",
    )


def _counted(value: float) -> str:
    return str(int(value)) if value == int(value) else number(value)


def stages(arms: list[ArmFigures]) -> Table:
    names = list(dict.fromkeys(name for each in arms for name in each.stages_us))

    def of(name: str) -> list[str]:
        return [number(each.stages_us[name]) if name in each.stages_us else NONE for each in arms]

    return Table(
        "Where the time goes",
        ["Part of the way", *(f"{each.arm}, µs" for each in arms)],
        [
            [name, *(number(each.stages_us[name]) if name in each.stages_us else NONE for each in arms)]
            for name in names
        ],
        "Median over blocks of each block's median; medians of parts need not add up to the median of the whole.",
    )


def resources(arms: list[ArmFigures]) -> Table:
    return Table(
        "Processes",
        ["Arm", "Process", "CPU per answer", "Memory, most"],
        [
            [
                each.arm,
                process,
                f"{number(each.cpu_us[process])} µs" if process in each.cpu_us else NONE,
                size(each.max_rss_bytes[process]),
            ]
            for each in arms
            for process in sorted(each.max_rss_bytes, key=lambda name: name == SYSTEM)
        ],
        "Median over blocks. Memory is of the whole cell, all its workloads. The system: all processes but the load "
        "generator and companions that serve all arms alike (`shared`).",
        frozenset({1}),
    )


def wires(arms: list[ArmFigures]) -> Table:
    shared = any(each.wire == "loopback" for each in arms)
    caution = (
        " The loopback interface carries everything that this machine sends itself: the requests and answers of the "
        "load generator too, and other programs. Compare arms of the same run, and run nothing beside it."
    )
    return Table(
        "On the wire",
        ["Arm", "Interface", "Wire bytes per task"],
        [[each.arm, each.wire, number(each.wire_bytes)] for each in arms if each.wire_bytes is not None],
        "Median over blocks of the bytes that the interface carried while the workload was measured, headers included, "
        "by whole answers; what goes through shared memory or stays in a process is on no interface. `link` is the "
        f"network between orchestrator and agents.{caution if shared else ''}",
        frozenset({1}),
    )


def cells(results: Results) -> Table:
    return Table(
        "Cells",
        ["Block", "Arm", "Place", "State", "Requests", "Failed", "Load before", "Remarks"],
        [
            [
                str(each.block),
                each.arm,
                str(each.order + 1),
                each.state,
                str(each.requests),
                str(each.failed),
                NONE if each.load_average is None else f"{each.load_average:.2f}",
                each.reason or (f"unsteady: {', '.join(each.unsteady)}" if each.unsteady else ""),
            ]
            for each in results.cells
        ],
        "In the order in which they ran. Place: within the block. Load: average of the minute before, which has the "
        "cell before in it.",
        frozenset({1, 3, 7}),
    )


def same_answers(results: Results) -> Table:
    return Table(
        "Same answers",
        ["Workload", "Requests compared", "Same text from every arm"],
        [
            [each.workload, str(each.compared), f"{each.equal} ({percent(each.equal / each.compared)})"]
            for each in results.same_answers
            if each.compared
        ],
        "The same request of a block goes to every arm. With a deterministic engine all texts are the same; where they "
        "are not, the arms did not do the same work.",
    )
