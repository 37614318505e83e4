"""What gRPC, protobuf and sockets raise, as errors of Anywire; the original is always the ``__cause__``."""

from __future__ import annotations

import asyncio
import errno

import grpc
import grpc.aio
from google.protobuf import message as protobuf

from anywire import errors
from anywire.printable import printable

ENDED: tuple[type[Exception], ...] = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What reading from and writing to a call raise when it has ended."""

_BY_ERRNO: dict[int, str] = {
    errno.EADDRINUSE: "the address is in use by another process",
    errno.EADDRNOTAVAIL: "the address does not belong to this machine",
    errno.EACCES: "not permitted: choose a port above 1023, or a directory you may write",
    errno.ENOENT: "the file or directory does not exist",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine",
}

_BY_STATUS: dict[grpc.StatusCode, tuple[type[errors.TransportError], str]] = {
    grpc.StatusCode.OK: (errors.AgentLost, "it closed"),
    grpc.StatusCode.UNAVAILABLE: (errors.AgentLost, "the connection ended"),
    grpc.StatusCode.CANCELLED: (errors.AgentLost, "the call was cancelled"),
    grpc.StatusCode.ABORTED: (errors.AgentLost, "the link was given up"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (errors.AgentLost, "no answer in time"),
    grpc.StatusCode.UNAUTHENTICATED: (errors.TransportUnavailable, "not admitted"),
    grpc.StatusCode.PERMISSION_DENIED: (errors.TransportUnavailable, "not admitted"),
    grpc.StatusCode.FAILED_PRECONDITION: (errors.TransportUnavailable, "not linked"),
    grpc.StatusCode.ALREADY_EXISTS: (errors.TransportUnavailable, "not linked"),
    grpc.StatusCode.UNIMPLEMENTED: (
        errors.TransportUnavailable,
        "something else serves gRPC there, or a version of anywire before 2.0: use one version of anywire on both",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        errors.PayloadTooLarge,
        "a message is over the receiver's limit: set the same max_message_bytes at both ends",
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (errors.TransportError, "a message was not understood"),
    grpc.StatusCode.NOT_FOUND: (errors.TransportError, "there is no such thing"),
    grpc.StatusCode.OUT_OF_RANGE: (errors.TransportError, "a value is out of range"),
    grpc.StatusCode.INTERNAL: (errors.TransportError, "gRPC failed there"),
    grpc.StatusCode.UNKNOWN: (errors.TransportError, "the other end failed"),
    grpc.StatusCode.DATA_LOSS: (errors.TransportError, "data was lost"),
}

NOT_OPEN = "nobody is open here on this plane"
"""The details of UNAVAILABLE where somebody listens, perhaps on the other plane, perhaps about to close."""

_NOT_CONNECTED = "failed to connect"
"""How the details of UNAVAILABLE begin when there never was a connection: no status of its own tells that."""

_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "the certificate there does not come from an authority in tls_ca",
    "Hostname Verification": "the certificate there is for another name or address than the one connected to",
    "handshake failed": "something without TLS listens there, or the two have no version of TLS in common",
}
"""What they contain when TLS failed at this end, and what that means."""

_HUNG_UP = ("Socket closed", "Connection reset")
"""What they contain when somebody did accept it: which of them is chance, so neither is part of the sentence, and it
is one sentence however often it is met."""

_HUNG_UP_MEANING = (
    "it hung up at once: one of the two uses TLS and the other does not, or it wants a certificate and got none that "
    "it trusts, or something else listens there; its log may say which"
)


def mapped(error: BaseException, doing: str) -> errors.AnywireError:
    """The error of Anywire that ``error`` means, with ``doing`` as the beginning of its sentence."""
    kind, meaning = _meaning(error)
    fault = kind(f"{doing}: {meaning}")
    fault.__cause__ = error
    return fault


def for_status(code: grpc.StatusCode, details: str) -> tuple[type[errors.TransportError], str]:
    """The class and the sentence for how a call ended."""
    if code is grpc.StatusCode.UNAVAILABLE and details == NOT_OPEN:
        return errors.AgentUnavailable, details
    if code is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_CONNECTED):
        for sign, cause in _TLS.items():
            if sign in details:
                return errors.TransportUnavailable, f"TLS failed: {cause} ({details})"
        if any(sign in details for sign in _HUNG_UP):
            return errors.TransportUnavailable, _HUNG_UP_MEANING
        return errors.AgentUnavailable, f"nobody can be reached there ({details})"
    kind, meaning = _BY_STATUS[code]
    return kind, f"{meaning} ({details})" if details else meaning


def _meaning(error: BaseException) -> tuple[type[errors.AnywireError], str]:
    text = str(error) or type(error).__name__
    if isinstance(error, grpc.aio.AioRpcError):
        return for_status(error.code(), printable(error.details() or ""))
    if isinstance(error, (grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError)):
        return errors.AgentLost, f"the connection ended ({text})"
    if isinstance(error, grpc.aio.BaseError):
        return errors.TransportError, f"gRPC was not used as it must be ({text})"
    if isinstance(error, (protobuf.Error, UnicodeError, ValueError, TypeError)):
        return errors.TransportError, f"not a message of this transport's protocol ({text})"
    if isinstance(error, OSError):
        known = _BY_ERRNO.get(error.errno or 0)
        return errors.TransportUnavailable, f"{known} ({text})" if known else text
    if isinstance(error, RuntimeError):  # all that grpc.aio says when a port cannot be bound
        return errors.TransportUnavailable, text
    return errors.TransportError, text
