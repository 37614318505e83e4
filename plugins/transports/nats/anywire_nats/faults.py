"""What nats-py, TLS and sockets raise, as errors of Anywire; the original is always the ``__cause__``."""

from __future__ import annotations

import socket
import ssl

import nats.errors

from anywire import errors
from anywire.printable import printable

NOT_LET_IN = "it does not let this end in: check user and password, token, credentials or nkey, and TLS certificates"

_BY_WORDS = {
    "authorization": NOT_LET_IN,
    "authentication": NOT_LET_IN,
    "maximum connections exceeded": "it has as many connections as it may: raise its max_connections",
    "info message": "something else than a NATS server listens there",
    "user jwt": "the file of credentials is none that `nsc` makes",
}
"""What the sentences of nats-py and of servers contain, and what that means."""


def mapped(error: BaseException, doing: str, option: str = "transports.nats") -> errors.TransportError:
    """The error of Anywire that ``error`` means, with ``doing`` as the beginning of its sentence. ``option`` is where
    the settings of the connection stand."""
    fault = errors.TransportUnavailable(f"{doing}: {meaning(error, option)}")
    fault.__cause__ = error
    return fault


def meaning(error: BaseException, option: str = "transports.nats") -> str:
    """Why it failed and what to do, as part of a sentence."""
    text = printable(str(error), 300).removeprefix("nats: ") or type(error).__name__
    for words, known in _BY_WORDS.items():
        if words in text.lower():
            return known
    if isinstance(error, ModuleNotFoundError):
        return "credentials and nkeys need a library: pip install 'anywire-nats[nkeys]'"
    if isinstance(error, nats.errors.SecureConnWantedError):
        return "it does not use TLS, and tls:// or tls_ca or tls_cert ask for it"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not come from an authority in tls_ca, or is for another name ({text})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed, perhaps it asks for a certificate (tls_cert and tls_key) that it trusts ({text})"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens there: start it (`nats-server`), or name another in {option}.servers"
    if isinstance(error, socket.gaierror):
        return f"its name is not known here: name another in {option}.servers ({text})"
    if isinstance(error, TimeoutError):
        return f"it does not answer: start it anew, or name another in {option}.servers"
    if isinstance(error, (nats.errors.UnexpectedEOF, ConnectionError)):
        return f"it has ended the connection ({text})"
    if isinstance(error, OSError):
        return f"it cannot be reached: start it (`nats-server`), or name another in {option}.servers ({text})"
    return text
