"""A process says that it is of use from now on."""

from __future__ import annotations

import gc


def say_ready(what: str) -> None:
    """Tell whoever started this process, on its standard output (``ready: WHAT``), and let garbage collection leave
    alone what has been made until now: see `keep_what_is_there`."""
    keep_what_is_there()
    print(f"ready: {what}", flush=True)


def keep_what_is_there() -> None:
    """What a process has made until it is ready (modules, types, configuration) stays to its end: full runs of garbage
    collection need not look at it again, which shortens the pauses of the event loop."""
    gc.collect()
    gc.freeze()
