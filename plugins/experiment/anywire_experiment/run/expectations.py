"""What a plan cannot show, told before it runs: a person can still change it then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anywire.builtin.synthetic import SyntheticEngine
from anywire_experiment.plan.arms import Arm, config_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.run.outside import outside
from anywire_experiment.statistics import FEWEST_BLOCKS, FEWEST_FOR_INTERVAL


def expectations(plan: Plan, arms: Sequence[Arm]) -> list[str]:
    """A sentence for each verdict or figure that cannot come of it."""
    of_plan = [*_blocks(plan, len(arms)), *plan.too_few_requests(), *plan.repeated_traces()]
    return [*of_plan, *_bursts(plan, arms), *outside(arms)]


def _blocks(plan: Plan, arms: int) -> Iterator[str]:
    count = f"{plan.blocks} block{'' if plan.blocks == 1 else 's'}"
    if plan.blocks < FEWEST_FOR_INTERVAL:
        no_verdict = f", and fewer than {FEWEST_BLOCKS} for a verdict" if arms > 1 else ""
        yield f"{count}: fewer than {FEWEST_FOR_INTERVAL} are too few for an interval{no_verdict}: raise `blocks`"
    elif plan.blocks < FEWEST_BLOCKS and arms > 1:
        yield f"{count}: fewer than {FEWEST_BLOCKS} are too few for a verdict: raise `blocks`"


def _bursts(plan: Plan, arms: Sequence[Arm]) -> Iterator[str]:
    streams = [name for name, each in plan.workloads.items() if each.stream]
    at_once = [arm.name for arm in arms if _gives_all_at_once(arm)]
    if streams and at_once:
        yield (
            f"the synthetic engine of {', '.join(at_once)} gives all tokens of an answer at once, so the streams of "
            f"{', '.join(streams)} are bursts, whose time per token and tokens per second are not judged: give the "
            "engine a time between tokens, `itl: 10` for 100 tokens per second"
        )


def _gives_all_at_once(arm: Arm) -> bool:
    if arm.foreign is not None:
        return False
    engine = config_of(arm).engine
    if engine.name != SyntheticEngine.name:
        return False
    options = SyntheticEngine.Config.model_validate(engine.options)
    return options.itl.mean == 0.0 and options.itl.spread == 0.0
