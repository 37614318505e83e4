"""Runs a program for as long as the other end of a socket is open: ``python guardian.py FD PROGRAM [ARGUMENT …]``.

It stands between an agent and a server on stdin and stdout, so that nothing is left of that server when the agent is
killed. The program has the streams of this process and a process group of its own. The socket ``FD`` is told its process
id, or after a ``!`` why there is none, on a line; when it closes, or the program ends, every process of that group is
killed. This process ends as the program did. It imports nothing beyond the standard library, and none of Anywire.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys

GRACE = 2.0  # seconds for the program to end by itself once the agent has gone: its input is closed then
PR_SET_PDEATHSIG = 1
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(lifeline, False)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # only the socket says when it is over
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    ended = _child_ends()
    told, tells = os.pipe2(os.O_CLOEXEC)
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            for number in (*STOPS, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            if prctl is not None:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == guardian:
                os.execvp(command[0], command)
        except OSError as error:
            os.write(tells, (error.strerror or str(error)).encode())
        finally:
            os._exit(127)
    os.close(tells)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)  # the streams close when the program's own are closed
    failure = os.read(told, 1024)
    with contextlib.suppress(OSError):
        os.write(lifeline, b"!" + failure + b"\n" if failure else b"%d\n" % child)
    _wait(child, ended, lifeline)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # before it is reaped: its number is nobody else's until then
    _end_like(os.waitpid(child, 0)[1])


def _child_ends() -> int:
    """A pipe that can be read when a child may have ended."""
    reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reads


def _wait(child: int, ended: int, lifeline: int) -> None:
    """Until the child has ended by itself, or had its grace after the agent had gone."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    grace = None
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        ready = [descriptor for descriptor, _ in poll.poll(grace)]
        if not ready:
            return
        if ended in ready:
            os.read(ended, 4096)
        if lifeline in ready and not _is_open(lifeline):
            poll.unregister(lifeline)
            grace = GRACE * 1000


def _is_open(lifeline: int) -> bool:
    try:
        return bool(os.read(lifeline, 64))
    except OSError:
        return False


def _end_like(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
