"""A process says that it is of use from now on."""

from __future__ import annotations

import gc

YOUNG = 10_000
"""How many more objects must be made than ended before the next look for cycles. Python's 700 are those of ten requests
under way together. What is in cycles until then takes some megabytes at most."""


def say_ready(what: str) -> None:
    """Tell whoever started this process, on its standard output (``ready: WHAT``), and let garbage collection leave
    alone what has been made until now: see `keep_what_is_there`."""
    keep_what_is_there()
    print(f"ready: {what}", flush=True)


def keep_what_is_there() -> None:
    """What a process has made until it is ready (modules, types, configuration) stays to its end: full runs of garbage
    collection need not look at it again, which shortens the pauses of the event loop. New objects are looked at after
    `YOUNG` of them: what a request makes ends with it, and nothing of it is in a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
