"""Stands between this process and a program that it has started, so that the program ends with it.

Run as a script; it imports nothing of Anywire and is up in milliseconds:

    python -I -S guardian.py --parent PID [--control FD] -- PROGRAM ARGUMENT …

It starts the program in a session and a process group of its own, and waits. These end the program, and everything that
the program has started, with SIGKILL:

- the process PID ends, however (not only the thread of it that has started the guardian);
- the other end of the descriptor FD is closed, or ``K`` is read from it;
- the program itself ends: nothing that it has started outlives it;
- the guardian is killed: the kernel kills the program then. What the program has started is left to PID.

``T`` read from FD, and SIGTERM to the guardian, are passed on to the program's process group as SIGTERM.

The guardian writes to FD, a line each: ``pid 123``, then ``failed 2 No such file or directory`` when the program cannot
be run, else ``exit 3`` or ``signal 9`` when it has ended. It ends with the same status (128 and the number for a
signal), with 0 when it was told to kill the program, and with 1 when PID was gone before the start.

A resource tracker of Python's multiprocessing has a second to remove the shared memory of those that were killed.
"""

from __future__ import annotations

# ruff: noqa: PTH115, PTH123 - pathlib takes longer to import than all the rest
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
TRACKER = b"multiprocessing.resource_tracker"
TRACKER_GRACE = 1.0
PARENT_CHECK = 1.0
"""Seconds between two looks whether the parent is there, where no event tells it."""
ON_LINUX: bool = sys.platform == "linux"
_FOR_THE_PROGRAM = ("SIGCHLD", "SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGXFSZ")
"""Signals that the guardian, or its Python, treats otherwise than a program expects."""


class Guardian:
    """One program. ``control`` is a descriptor, -1 for none."""

    def __init__(self, parent: int, control: int) -> None:
        self._parent, self._control = parent, control
        self._parent_ended = -1  # a descriptor
        self._child = 0
        self._poll = select.poll()
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll.register(self._woken, select.POLLIN)

    def run(self, program: list[str]) -> int:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # they wake the loop
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if ON_LINUX and _children() is not None:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
        _prctl(PR_SET_PDEATHSIG, signal.SIGCONT)  # wakes a guardian that somebody has stopped; else it does nothing
        self._watch_parent()
        if os.getppid() != self._parent:
            return 1
        if self._control >= 0:
            self._poll.register(self._control, select.POLLIN)
        self._start(program)
        while True:
            ready = {number for number, _ in self._poll.poll(None if self._parent_ended >= 0 else 1000 * PARENT_CHECK)}
            if self._woken in ready and signal.SIGTERM in os.read(self._woken, 512):
                self._terminate()
            status = self._reap()
            if status is not None:
                self._tell_end(status)
                self._kill_all()
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if self._is_over(ready):
                self._kill_all()
                return 0

    def _watch_parent(self) -> None:
        if hasattr(os, "pidfd_open"):
            try:
                self._parent_ended = os.pidfd_open(self._parent)
            except OSError:
                return
            self._poll.register(self._parent_ended, select.POLLIN)

    def _start(self, program: list[str]) -> None:
        guardian = os.getpid()
        # SIGTERM waits until the program has its own way to take it.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        self._child = os.fork()
        if self._child:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            self._tell(f"pid {self._child}")
            return
        try:
            os.setsid()
            for name in _FOR_THE_PROGRAM:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guardian:
                signal.pthread_sigmask(signal.SIG_SETMASK, set())
                os.execvp(program[0], program)
        except OSError as error:
            self._tell(f"failed {error.errno} {error.strerror}")
        finally:
            os._exit(127)

    def _is_over(self, ready: set[int]) -> bool:
        """Whether the parent has ended, or wants the program killed."""
        if self._control in ready:
            try:
                said = os.read(self._control, 64)
            except OSError:
                said = b""
            if not said or b"K" in said:
                return True
            if b"T" in said:
                self._terminate()
        return self._parent_ended in ready or os.getppid() != self._parent

    def _terminate(self) -> None:
        try:
            os.killpg(self._child, signal.SIGTERM)
        except ProcessLookupError:
            _kill(self._child, signal.SIGTERM)  # it is no group of its own yet

    def _reap(self) -> int | None:
        """Take in those that have ended; the status of the program when it is among them."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._child:
                    return status
                if not pid:
                    return None
        except ChildProcessError:
            return None

    def _kill_all(self) -> None:
        """Kill and take in whatever is left. The children of one that is killed become children of this process, so
        that in the end none is left, unless they cannot be found: then the process group must do."""
        until = time.monotonic() + TRACKER_GRACE
        while True:
            left = _children()
            if left is None:
                _kill(-self._child, signal.SIGKILL)
                left = set()
            spared = {pid for pid in left if time.monotonic() < until and _is_tracker(pid)}
            for pid in left - spared:
                _kill(pid, signal.SIGKILL)
            try:
                ended, status = os.waitpid(-1, os.WNOHANG if spared and spared == left else 0)
            except ChildProcessError:
                return
            if ended == self._child:
                self._tell_end(status)
            if not ended:
                self._wait_for_child(until - time.monotonic())

    def _wait_for_child(self, seconds: float) -> None:
        select.select([self._woken], [], [], max(seconds, 0.0))
        try:
            os.read(self._woken, 512)
        except BlockingIOError:
            return

    def _tell_end(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._tell(f"exit {code}" if code >= 0 else f"signal {-code}")

    def _tell(self, line: str) -> None:
        if self._control >= 0:
            try:
                os.write(self._control, f"{line}\n".encode())
            except OSError:
                return  # nobody listens, or this end is for reading alone


def _prctl(option: int, value: int) -> None:
    if ON_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it is gone, or another user's by now


def _children() -> set[int] | None:
    """The process ids of this process's children, orphans of theirs among them; None where no file tells them."""
    me = str(os.getpid())
    try:
        if os.readlink("/proc/self") != me:
            return None  # it counts the processes of another namespace
        with open(f"/proc/{me}/task/{me}/children") as file:
            return {int(each) for each in file.read().split()}
    except (OSError, ValueError):
        return None


def _is_tracker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return TRACKER in file.read(4096)
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    if arguments[:1] != ["--parent"] or "--" not in arguments:
        sys.exit("usage: guardian.py --parent PID [--control FD] -- PROGRAM ARGUMENT …")
    control = -1
    if arguments[2] == "--control":
        given = int(arguments[3])
        control = os.dup(given)  # a copy that the program does not get
        if given:
            os.close(given)
        else:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return Guardian(int(arguments[1]), control).run(arguments[arguments.index("--") + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
