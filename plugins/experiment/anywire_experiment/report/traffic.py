"""Sessions and requests that are given up, in a report."""

from __future__ import annotations

from collections.abc import Iterator

from anywire.builtin.distribution import Distribution
from anywire_experiment.analysis.arm_figures import ArmFigures
from anywire_experiment.analysis.wording import percent
from anywire_experiment.plan.traffic import Conversation, GivingUp, Sizes
from anywire_experiment.plan.workload import Workload
from anywire_experiment.report.numbers import valued
from anywire_experiment.report.tables import Table


def table(arms: list[ArmFigures]) -> Table:
    return Table(
        "Sessions of requests",
        ["Arm", "Sessions", "Whole", "Requests of one", "Time of one (ms)", "Given up", "Not asked"],
        [
            [
                each.arm,
                str(found.sessions),
                str(found.whole),
                f"{found.requests:g}",
                valued(found.took_ms),
                str(found.cancelled),
                str(found.not_asked),
            ]
            for each in arms
            if (found := each.traffic) is not None
        ],
        "Of all blocks together. Whole: all requests were answered. Requests: the median. Time: from when the first "
        "request was meant to be sent to the last answer, pauses included; the typical value of the blocks' medians, "
        "of whole sessions. Given up: requests that clients were meant to give up, which are in no other figure. Not "
        "asked: requests that depend on one that failed; they count as failed.",
    )


def about(workload: Workload) -> Iterator[str]:
    """What a workload has of it, a sentence each without its end."""
    if workload.conversation is not None:
        yield from _conversation(workload.conversation)
    if workload.sizes is not None:
        yield f"Sizes: {_sizes(workload.sizes)}"
    if workload.cancel is not None:
        yield f"Given up: {_given_up(workload.cancel)}"
    if tokens := workload.prompts.shared_prefix_tokens:
        yield f"Beginnings that prompts share: {workload.prompts.prefixes} of {tokens} tokens"


def _conversation(talk: Conversation) -> Iterator[str]:
    kept = "" if talk.history else ", without their history"
    yield f"Sessions of dependent requests{kept}: {_drawn(talk.turns)} turns, {_drawn(talk.think)} s of thought"
    if talk.tools is not None:
        yield (
            f"Tools: after {percent(talk.tools.share)} of the turns, for {_drawn(talk.tools.time)} s, with a result of "
            f"{_drawn(talk.tools.tokens)} tokens"
        )
    if talk.fan_out is not None:
        yield f"Several requests at once: {talk.fan_out.branches} in {percent(talk.fan_out.share)} of the later turns"


def _sizes(sizes: Sizes) -> str:
    if sizes.file is not None:
        return f"pairs from {sizes.file.name}"
    parts = (("prompts", sizes.prompt), ("answers", sizes.answer))
    return "; ".join(f"{name} of {_drawn(each)} tokens" for name, each in parts if each is not None)


def _given_up(cancel: GivingUp) -> str:
    if cancel.after is not None:
        return f"{percent(cancel.share)} of the requests after {_drawn(cancel.after)} s"
    return f"{percent(cancel.share)} of the streams after {_drawn(cancel.after_tokens or Distribution(mean=0))} pieces"


def _drawn(of: Distribution) -> str:
    match of.kind:
        case "constant":
            return f"{of.mean:g}"
        case "uniform":
            return f"{max(0.0, of.mean - of.spread):g} to {of.mean + of.spread:g} (uniform)"
        case "exponential":
            return f"{of.mean:g} (exponential)"
        case kind:
            return f"{of.mean:g} ± {of.spread:g} ({kind})"
