"""What a failed connection to the server is told as.

Clients see these errors, so none tells the server's address, which may be an inner one; the log has it.
"""

from __future__ import annotations

import os
import socket
import ssl

from anywire.errors import EngineFailed
from anywire_engine_openai.http.faults import CannotConnect, Closed, NoHttp, Silence


class ConnectionFailed(EngineFailed):
    """The server could not be reached, or went away: the connection, and not just one answer, is at fault. ``tries``
    is how often the request was sent."""

    tries = 1


def not_reached(error: OSError, tries: int) -> ConnectionFailed:
    """For a request that got no answer and was sent ``tries`` times. Like all errors that a client sees it tells no
    address."""
    if isinstance(error, CannotConnect):
        failed = ConnectionFailed(f"the server cannot be reached: {_say_to_clients(error)}", phase="not_sent")
    elif isinstance(error, Silence):
        failed = _silent(error)
    else:
        why = _say_to_clients(error)
        failed = ConnectionFailed(f"the server closed the connection without an answer: {why}", phase="maybe_sent")
    failed.tries = tries
    return failed


def broken(error: OSError) -> ConnectionFailed:
    """For an answer that broke off."""
    if isinstance(error, Silence):
        return _silent(error)
    why = _say_to_clients(error)
    return ConnectionFailed(
        f"the connection to the server broke before the answer was complete: {why}", phase="streaming"
    )


def _silent(error: Silence) -> ConnectionFailed:
    where = "in the middle of its answer" if error.begun else "and had not begun to answer"
    return ConnectionFailed(
        f"the server said nothing for {error.seconds:g} s {where}", phase="streaming" if error.begun else "maybe_sent"
    )


def say(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _say_to_clients(error: OSError) -> str:
    """Without the address, which the errors of connecting and of heads tell."""
    if isinstance(error, NoHttp):
        return "its answer is no HTTP"
    if isinstance(error, Closed) or not isinstance(error, CannotConnect):
        return say(error)
    cause = error.__cause__
    if isinstance(cause, TimeoutError) and cause.errno is None:
        return "it did not answer in time"
    if isinstance(cause, socket.gaierror | UnicodeError):
        return "its name is not known"
    if isinstance(cause, ssl.SSLError):
        return "TLS failed"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return "no address of it answers"
