"""What answers are worth against what they cost."""

from __future__ import annotations

from anywire_experiment.analysis.arm_figures import QualityFigures
from anywire_experiment.analysis.results import Results
from anywire_experiment.report.drawing import Picture, brief_names, drawn, looks, svg, value_axis
from anywire_experiment.report.numbers import number, valued


def against_cost(results: Results, workload: str, name: str) -> Picture | None:
    """The share right of each arm over its tokens, over its seconds where engines told no tokens; None with fewer than
    two arms that differ in it."""
    given = {
        each.arm: each.quality
        for each in results.figures
        if each.workload == workload and each.quality is not None and each.quality.asked
    }
    by_tokens = all(each.tokens > 0 for each in given.values())
    costs = {arm: each.tokens if by_tokens else each.seconds for arm, each in given.items()}
    if len(set(costs.values())) < 2 or min(costs.values()) <= 0:
        return None
    unit = "tokens" if by_tokens else "seconds"
    arm_looks, names = looks(results.arms), brief_names(results.arms)
    with drawn(3.2) as figure:
        axes = figure.subplots()
        for arm, found in given.items():
            look, limits, share = arm_looks[arm], found.share.interval, 100 * found.share.value
            around = [[share - 100 * limits.low], [100 * limits.high - share]] if limits else None
            axes.errorbar(
                [costs[arm]], [share], yerr=around, color=look.color, marker=look.marker, capsize=2.5, linewidth=1.0
            )
            axes.annotate(names[arm], (costs[arm], share), xytext=(7, -3), textcoords="offset points", fontsize=8)
        value_axis(axes, min(costs.values()), max(costs.values()), "x")
        axes.set_ylim(0, 104)
        axes.set_xlabel(f"{unit} per request")
        axes.set_ylabel("answered right, %")
        image = svg(figure, name, f"{workload}: quality against cost", _told(given, costs, unit))
    caption = (
        f"Quality against cost: share of exercises answered right, with its {100 * results.confidence:g} % interval "
        f"over blocks, by {unit} per request."
    )
    return Picture(image, caption)


def _told(given: dict[str, QualityFigures], costs: dict[str, float], unit: str) -> str:
    return "; ".join(
        f"{arm}: {valued(found.share, 100)} % right for {number(costs[arm])} {unit}" for arm, found in given.items()
    )
