"""What ZeroMQ and msgpack raise, as errors of Anywire; the original is always the ``__cause__``."""

from __future__ import annotations

import errno

import msgspec
import zmq

from anywire import errors

_BY_ERRNO: dict[int, tuple[type[errors.TransportError], str]] = {
    errno.EADDRINUSE: (errors.TransportUnavailable, "the address is in use by another process"),
    errno.EADDRNOTAVAIL: (errors.TransportUnavailable, "the address does not belong to this machine"),
    errno.ENODEV: (errors.TransportUnavailable, "there is no such network interface or host on this machine"),
    errno.EACCES: (errors.TransportUnavailable, "not permitted: choose a port above 1023 or a directory you may write"),
    errno.ENOENT: (errors.TransportUnavailable, "the directory of the socket does not exist"),
    errno.EMFILE: (errors.TransportUnavailable, "too many open files or sockets: raise `ulimit -n`"),
    errno.EINVAL: (errors.TransportUnavailable, "ZeroMQ does not accept the address or option"),
    errno.EPROTONOSUPPORT: (errors.TransportUnavailable, "this libzmq is built without that protocol"),
    errno.EAGAIN: (errors.Congested, "the peer's queue is full"),
    errno.EHOSTUNREACH: (errors.AgentUnavailable, "the peer is not connected any more"),
    errno.EMSGSIZE: (errors.PayloadTooLarge, "the message is too large"),
    int(zmq.ETERM): (errors.AgentUnavailable, "the transport is closed"),
    errno.ENOTSOCK: (errors.AgentUnavailable, "the transport is closed"),
}


def mapped(error: Exception, doing: str) -> errors.AnywireError:
    """The error of Anywire that ``error`` means, with ``doing`` as the beginning of its sentence."""
    kind: type[errors.AnywireError] = errors.TransportError
    meaning = str(error) or type(error).__name__
    if isinstance(error, zmq.ZMQError):
        kind, known = _BY_ERRNO.get(error.errno or 0, (errors.TransportError, ""))
        meaning = f"{known} ({error})" if known else meaning
    elif isinstance(error, (zmq.ZMQVersionError, zmq.ZMQBindError)):
        kind = errors.TransportUnavailable
    elif isinstance(error, msgspec.MsgspecError):
        meaning = f"not a message of this transport's protocol ({error})"
    fault = kind(f"{doing}: {meaning}")
    fault.__cause__ = error
    return fault
