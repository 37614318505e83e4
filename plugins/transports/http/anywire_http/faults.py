"""What aiohttp, sockets and msgspec raise, as errors of Anywire; the original is always the ``__cause__``."""

from __future__ import annotations

import errno
import ssl

import aiohttp
import msgspec
from aiohttp import http_exceptions, web

from anywire import errors
from anywire.transport_tools import ImplausibleHello, LinkRefused

_BY_ERRNO: dict[int, str] = {
    errno.EADDRINUSE: "the address is in use by another process",
    errno.EADDRNOTAVAIL: "the address does not belong to this machine",
    errno.EACCES: "not permitted: choose a port above 1023",
    errno.EMFILE: "too many open files: raise `ulimit -n`, every running task holds a connection",
    errno.ENFILE: "too many open files on this machine",
}

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What an error of TLS contains where the other end speaks something else; versions of OpenSSL differ."""

_BY_STATUS: dict[int, type[errors.AnywireError]] = {
    401: errors.TransportUnavailable,
    403: errors.TransportUnavailable,
    404: errors.TransportUnavailable,
    409: errors.TransportUnavailable,
    410: errors.AgentUnavailable,
    413: errors.PayloadTooLarge,
    503: errors.AgentUnavailable,
}


def mapped(error: BaseException, doing: str) -> errors.AnywireError:
    """The error of Anywire that ``error`` means, with ``doing`` as the beginning of its sentence."""
    kind, meaning = _meaning(error)
    fault = kind(f"{doing}: {meaning or type(error).__name__}")
    fault.__cause__ = error
    return fault


def for_status(status: int) -> type[errors.AnywireError]:
    return _BY_STATUS.get(status, errors.TransportError)


def status_of(error: LinkRefused) -> int:
    """The status of the answer to a hello that is refused."""
    return 400 if isinstance(error, ImplausibleHello) else 409


def _meaning(error: BaseException) -> tuple[type[errors.AnywireError], str]:
    # The text of aiohttp's own error names an object by its address: another one each time, and no use to anybody.
    text = _text(error.os_error if isinstance(error, aiohttp.ClientConnectorSSLError) else error)
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        without = any(each in text for each in _NO_TLS)
        more = "; it speaks no TLS: both ends need an identity, or neither" if without else ""
        return errors.TransportUnavailable, f"TLS failed ({text}){more}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return errors.AgentUnavailable, f"nobody can be reached there ({text})"
    if isinstance(error, (aiohttp.ClientResponseError, web.HTTPException)):
        return for_status(error.status), f"status {error.status} ({text})"
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return errors.TransportUnavailable, f"this is no HTTP address ({text})"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        return errors.AgentLost, "the connection ended in the middle"
    if isinstance(error, OSError):
        known = _BY_ERRNO.get(error.errno or 0)
        if known:
            return errors.TransportUnavailable, f"{known} ({text})"
        if isinstance(error, TimeoutError):
            return errors.AgentLost, f"no answer in time ({text})"
        return errors.AgentLost, f"the connection failed ({text})"
    if isinstance(error, aiohttp.ClientConnectionError):
        return errors.AgentLost, f"the connection failed ({text})"
    if isinstance(error, http_exceptions.HttpProcessingError):
        return errors.TransportError, f"something other than HTTP was spoken ({text})"
    if isinstance(error, (msgspec.MsgspecError, UnicodeError)):
        return errors.TransportError, f"not a message of this transport's protocol ({text})"
    return errors.TransportError, text


def _text(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except AttributeError:  # aiohttp's connector errors build their text from what raised them
        return type(error).__name__
