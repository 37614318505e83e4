# ruff: noqa: A005 - imported by its full name only, it hides nothing
"""The statistics of an experiment: arms compared over blocks, in terms that a reviewer accepts.

An experiment runs every arm once in each of its blocks, in an order of their own. The block is the unit of
replication: however many samples a block has and however they depend on each other, they are one value (their median,
say) of one arm, and only the spread between blocks tells how sure a difference is.

- `summarise` tells what one (block, arm) measured: mean, percentiles, their intervals, failures apart;
  `effective_sample_size` how many independent samples a series is worth; `steady_from` where its warm-up ends,
  `step_in` whether its level changes.
- `compare` sets a candidate against a baseline: the median ratio and difference over blocks with their intervals, tests
  of difference and of equivalence within a margin given beforehand, and what the order of the blocks shows: dependence
  (`RunOrder`) and drift.
- `typical_value` is the median over blocks with its interval: what a metric of an arm typically is.
- `compare_shares` does the same for shares, such as that of right answers, by their difference.
- `share_over_blocks` tells the share of failures, with an interval that counts blocks and not requests.
- `as_family` corrects the tests of all comparisons of an experiment for their number (`holm`).
- `verdict` and `share_verdict` say it in words, or how many blocks a new run should have (`blocks_needed`); `power`
  tells what so many blocks can show.

    family = as_family({arm: compare(blocks["memory"], blocks[arm], margin=0.10) for arm in ("dds", "zeromq")})
    for arm, comparison in family.items():
        print(arm, verdict(comparison, unit="ms").text)

Everything here is a pure function of its arguments, seed included. Bad input (NaN, infinities, empty blocks, shapes
that do not fit) raises ValueError and says what is wrong. `calibration` simulates experiments whose truth is known and
prints how often the intervals hold it.
"""

from anywire_experiment.statistics.autocorrelation import effective_sample_size
from anywire_experiment.statistics.median import fewest_for_interval, typical_value
from anywire_experiment.statistics.paired import FEWEST_BLOCKS, FEWEST_FOR_INTERVAL, Comparison, compare
from anywire_experiment.statistics.planning import blocks_needed, fewest_blocks, power
from anywire_experiment.statistics.run_order import RunOrder
from anywire_experiment.statistics.samples import Estimate
from anywire_experiment.statistics.share_difference import ShareComparison, compare_shares
from anywire_experiment.statistics.shares import share_over_blocks
from anywire_experiment.statistics.steady import Step, steady_from, step_in
from anywire_experiment.statistics.summary import Percentile, Summary, summarise
from anywire_experiment.statistics.verdict import Outcome, Verdict, as_family, holm, share_verdict, verdict

__all__ = [
    "FEWEST_BLOCKS",
    "FEWEST_FOR_INTERVAL",
    "Comparison",
    "Estimate",
    "Outcome",
    "Percentile",
    "RunOrder",
    "ShareComparison",
    "Step",
    "Summary",
    "Verdict",
    "as_family",
    "blocks_needed",
    "compare",
    "compare_shares",
    "effective_sample_size",
    "fewest_blocks",
    "fewest_for_interval",
    "holm",
    "power",
    "share_over_blocks",
    "share_verdict",
    "steady_from",
    "step_in",
    "summarise",
    "typical_value",
    "verdict",
]
