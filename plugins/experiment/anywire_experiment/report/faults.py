"""What faults did, as a table and as a figure: how long requests waited for their answers."""

from __future__ import annotations

from collections.abc import Sequence

from anywire_experiment.analysis.arm_figures import ArmFigures, FaultFigures, Valued
from anywire_experiment.analysis.results import Results
from anywire_experiment.analysis.survival import TOLD_S, WaitingCurve
from anywire_experiment.report.drawing import Picture, brief_names, drawn, legend, looks, svg
from anywire_experiment.report.numbers import NONE, number, valued
from anywire_experiment.report.tables import Table
from anywire_experiment.statistics import Estimate

FIRST_SIGNS = {
    "agent_lost": "agent lost",
    "attempt_failed": "attempt failed",
    "health_changed": "breaker",
    "link_lost": "link lost",
    "task_requeued": "task sent again",
}
_LEAST_S = 0.01
"""Where the axis of time begins, which is logarithmic."""


def faults(arms: list[ArmFigures]) -> Table:
    return Table(
        "Faults",
        [
            *("Arm", "Fault", "Noticed", "First sign", "After", "Recovery", "Failed", "Streams cut", "Tokens cut"),
            *("Tokens in vain", "Retried", "Resumed", "Hedged"),
            *(f"Not answered after {number(at)} s" for at in TOLD_S),
        ],
        [
            [
                each.arm,
                found.kind,
                f"{sum(found.noticed_by.values()) or len(found.notice_ms)} of {found.blocks}",
                ", ".join(f"{FIRST_SIGNS[what]} {count}" for what, count in found.noticed_by.items()) or NONE,
                _milliseconds(found.notice),
                _milliseconds(found.recovery),
                *(str(count) for count in _counted(found)),
                *(_waiting(found.waiting, at) for at in TOLD_S),
            ]
            for each in arms
            if (found := each.fault) is not None
        ],
        "Noticed: blocks in which the orchestrator told anything of it, first so. After and recovery are typical "
        "values. Recovery: until the last request was over that failed or took more than twice as long as the slowest "
        "before the fault. Streams cut: failed after their first token; tokens cut: what clients had of them. Tokens "
        "in vain: brought by attempts that failed without a stream, or by hedges that were overtaken. Retried: "
        "answered by a further attempt; resumed: of these, streams that went on elsewhere. Not answered: the share, "
        "with an interval that counts blocks, of requests that were under way or came while the fault lasted, so long "
        "after it struck, or after they were meant to be sent.",
        frozenset({1, 3}),
    )


def _counted(found: FaultFigures) -> list[int]:
    return [
        *(found.failed, found.streams_lost, found.tokens_cut),
        *(found.tokens_again, found.retried, found.resumed, found.hedged),
    ]


def _milliseconds(found: Valued | None) -> str:
    return f"{valued(found)} ms" if found is not None else NONE


def _waiting(curve: WaitingCurve | None, seconds: float) -> str:
    if curve is None:
        return NONE
    at = curve.at(seconds)
    limits = Estimate(curve.waiting[at], curve.low[at], curve.high[at], curve.level) if curve.low else None
    return f"{valued(Valued(curve.waiting[at], limits), 100)} %"


def waiting(results: Results, workload: str, name: str, arms: Sequence[str]) -> Picture | None:
    """Of each arm with a fault, the share of requests that is not answered, over time."""
    given = {
        each.arm: curve
        for each in results.figures
        if each.workload == workload and each.arm in arms and each.fault and (curve := each.fault.waiting) is not None
    }
    if not given:
        return None
    arm_looks, names = looks(arms), brief_names(arms)
    with drawn(3.0) as figure:
        axes = figure.subplots()
        for arm, curve in given.items():
            look = arm_looks[arm]
            at = [max(each, _LEAST_S) for each in curve.seconds]
            if curve.low:
                axes.fill_between(at, curve.low, curve.high, step="post", facecolor=look.color, alpha=0.15, linewidth=0)
            (line,) = axes.step(at, curve.waiting, where="post", color=look.color, linestyle=look.line, linewidth=1.6)
            line.set_label(names[arm])
        axes.set_xscale("log")
        axes.set_xlim(_LEAST_S, max(curve.seconds[-1] for curve in given.values()))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("seconds after the fault, or after the request was meant to be sent if that was later")
        axes.set_ylabel("share not answered")
        legend(figure, axes)
        told = "; ".join(
            f"{arm} {_waiting(curve, TOLD_S[1])} after {number(TOLD_S[1])} s" for arm, curve in given.items()
        )
        image = svg(figure, name, f"{workload}: requests not answered after a fault", told)
    caption = (
        "Requests that were under way when the fault struck, or came while it lasted: the share that is not answered, "
        "by time (Kaplan and Meier), with its interval over the blocks. What failed stays at the end."
    )
    return Picture(image, caption)
