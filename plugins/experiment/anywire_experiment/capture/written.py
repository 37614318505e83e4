"""What was taken in, written: a trace, and a plan that replays it."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from anywire.demand import BLOCK_BYTES, CHARS_PER_TOKEN
from anywire.errors import ConfigError
from anywire_experiment.capture.taken import Request, Taken
from anywire_experiment.plan.traffic import LONGEST_ANSWER, LONGEST_PAUSE, LONGEST_PROMPT, MOST_BLOCK_TOKENS

COLUMNS = (
    *("arrival_s", "input_tokens", "output_tokens", "model", "stream", "session", "think_s", "blocks"),
    *("tenant", "priority", "deadline_s", "cancel_s", "cancel_tokens"),
)
FEWEST_FITTED = 20
"""Answers without which the engine gets the median time, and no distribution."""
_WARM_UP = 20
_HEAD = """\
# Taken in by `anywire capture` from a running fleet: {requests} requests in {seconds:.0f} s. The trace beside it has
# times, sizes, models and sessions. Prompts are made up, as long as the real ones and beginning alike where those did;
# names of tenants and sessions are replaced. The engine is the synthetic one, about as quick as the real ones were. Say
# what differs with `factors`, and run it with: anywire experiment run {name}
"""


def check(out: Path) -> None:
    """Raises `ConfigError` where the plan cannot be written."""
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out}: a plan is YAML: name a file that ends with .yaml")
    for path in (out, out.with_suffix(".csv")):
        if path.exists():
            raise ConfigError(f"{path} is there already: name another file with --out")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")


def write(taken: Taken, out: Path) -> list[Path]:
    """Returns the files. Raises `ConfigError` where nothing was taken in, OSError where they cannot be written."""
    requests = taken.requests
    if not requests:
        raise ConfigError(
            "no request was taken in, and nothing was written: is the fleet asked anything? With keys, a key with the "
            "role observe sees the requests of all tenants"
        )
    trace = out.with_suffix(".csv")
    trace.write_text(_trace(requests), encoding="utf-8")
    seconds = requests[-1].at - requests[0].at
    head = _HEAD.format(requests=len(requests), seconds=seconds, name=out.name)
    plan = yaml.safe_dump(_plan(taken, requests, trace.name), sort_keys=False, allow_unicode=True)
    out.write_text(head + plan, encoding="utf-8")
    return [out, trace]


def _plan(taken: Taken, requests: Sequence[Request], trace: str) -> dict[str, Any]:
    longest = max(max(each.output_tokens, 2 * each.cancel_tokens) for each in requests)
    longest = min(max(1, longest), LONGEST_ANSWER)
    models = [name for name, _ in Counter(each.model for each in requests if each.model).most_common()] or ["synthetic"]
    warm_up = min(_WARM_UP, len(requests))
    workload = {
        "stream": any(each.stream for each in requests),
        "max_tokens": longest,
        "arrivals": {"kind": "trace", "file": trace, "block_tokens": _block_tokens(requests)},
        "warm_up": {"requests": warm_up, "limit": warm_up},
    }
    system: dict[str, Any] = {
        "agent": {"slots": taken.slots},
        "engine": {"name": "synthetic", "models": models, "length": longest} | _pace(requests),
    }
    if taken.transport and taken.transport != "memory":
        system = {"transports": taken.transport, **system}
    return {
        "name": "captured",
        "agents": taken.agents,
        "system": system,
        "workloads": {"fleet": workload},
    }


def _pace(requests: Sequence[Request]) -> dict[str, Any]:
    """How quick the engines were, in milliseconds."""
    found: dict[str, Any] = {}
    for name, values in (
        ("ttft", [each.first_s * 1000 for each in requests if each.first_s]),
        ("itl", [each.per_token_s * 1000 for each in requests if each.per_token_s]),
    ):
        if len(values) >= FEWEST_FITTED:
            mean, spread = statistics.fmean(values), statistics.stdev(values)
            found[name] = {"kind": "lognormal", "mean": round(mean, 3), "spread": round(spread, 3)}
        elif values:
            found[name] = round(statistics.median(values), 3)
    return found


def _block_tokens(requests: Sequence[Request]) -> int:
    """How many tokens a block of the prompts had."""
    counted = [(each.prompt_chars, each.input_tokens) for each in requests if each.input_tokens and each.blocks]
    if not counted:
        return BLOCK_BYTES // CHARS_PER_TOKEN
    chars, tokens = map(sum, zip(*counted, strict=True))
    return min(max(1, round(BLOCK_BYTES * tokens / chars)), MOST_BLOCK_TOKENS)


def _trace(requests: Sequence[Request]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    begin = requests[0].at
    # One that all have is the server's, which no client has told.
    has_deadlines = len({each.deadline_s for each in requests}) > 1
    ended: dict[str, float] = {}
    for each in requests:
        before = ended.get(each.session) if each.session else None
        # One that was sent before the answer was there does not depend on it.
        think = min(each.at - before, LONGEST_PAUSE) if before is not None and before <= each.at else None
        if each.session:
            ended[each.session] = max(each.ended_at, ended.get(each.session, 0.0))
        rows.writerow(
            [
                f"{each.at - begin:.6f}",
                min(each.input_tokens or max(1, each.prompt_chars // CHARS_PER_TOKEN), LONGEST_PROMPT),
                min(each.output_tokens, LONGEST_ANSWER),
                each.model,
                str(each.stream).lower(),
                each.session,
                "" if think is None else f"{think:.6f}",
                " ".join(map(str, each.blocks)),
                each.tenant,
                each.priority or "",
                (has_deadlines and each.deadline_s) or "",
                f"{min(each.cancel_s, LONGEST_PAUSE):.6f}" if each.cancel_s else "",
                min(each.cancel_tokens, LONGEST_ANSWER) or "",
            ]
        )
    return text.getvalue()
