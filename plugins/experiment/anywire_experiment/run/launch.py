"""``python -m anywire_experiment.run.launch CPUS MODULE [ARGUMENTS]``: run a module bound to some cores (``0,1``;
empty: any), before it imports or starts anything, so that every thread it will have is bound too; and end it with its
parent. With ``--`` in the place of the module the arguments are any program and its own; on Linux what that starts and
leaves behind, as a daemon does, stays below it, where it is found. Such a program does not end with the parent by
itself: the guard ends it (`anywire_experiment.run.guard`), as long as what it has started can be found below it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PROGRAM = "--"
"""In the place of a module: what follows is a program."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    cpus, module, *arguments = sys.argv[1:]
    parent = os.getppid()
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if module == PROGRAM:
            prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if parent != os.getppid():
            sys.exit("the parent process ended")
        if cpus:
            os.sched_setaffinity(0, {int(each) for each in cpus.split(",")})
        if module == PROGRAM:
            prctl(_PR_SET_PDEATHSIG, 0)
    if module == PROGRAM:
        try:
            os.execvp(arguments[0], arguments)
        except OSError as error:
            sys.exit(f"{arguments[0]} cannot be started: {error.strerror}")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
