"""What a failed connection to the server is told as.

Clients see these errors, so none tells the server's address, which may be an inner one; the log has it.
"""

from __future__ import annotations

import os

import aiohttp

from anywire.errors import EngineFailed


class ConnectionFailed(EngineFailed):
    """The server could not be reached, or went away: the connection, and not just one answer, is at fault. ``tries``
    is how often the request was sent."""

    tries = 1


def not_reached(error: BaseException) -> ConnectionFailed:
    """For a request that got no answer. Like all errors that a client sees it does not tell the address."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ConnectionFailed(f"the server cannot be reached: {_say_to_clients(error)}", phase="not_sent")
    return ConnectionFailed(f"the server closed the connection without an answer: {_say_to_clients(error)}",
                            phase="maybe_sent")  # fmt: skip


def broken(error: BaseException) -> ConnectionFailed:
    """For an answer that broke off."""
    why = _say_to_clients(error)
    return ConnectionFailed(
        f"the connection to the server broke before the answer was complete: {why}", phase="streaming"
    )


def silent(seconds: float, *, begun: bool) -> ConnectionFailed:
    """The error for a server that has said nothing for so long, before or within its answer."""
    where = "in the middle of its answer" if begun else "and had not begun to answer"
    return ConnectionFailed(
        f"the server said nothing for {seconds:g} s {where}", phase="streaming" if begun else "maybe_sent"
    )


def say(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _say_to_clients(error: BaseException) -> str:
    """Without the address, which the errors of connecting and of headers tell."""
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is no HTTP"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno) if error.os_error.errno else "no address of it answers"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "it did not answer in time"
    return say(error)
