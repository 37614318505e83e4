"""Who may connect: CURVE keys on the sockets, and the check of the client's key where they listen."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from anywire.errors import TransportUnavailable
from anywire.transport_tools import OnceLog
from anywire_zeromq.config import ZeromqConfig, public_key, shared_key
from anywire_zeromq.loop_socket import NOBLOCK, LoopSocket

log = logging.getLogger(__name__)

ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"


class KeyCheck:
    """Answers ZeroMQ's questions whether a client's key is allowed, on the event loop. ``allowed`` are the public keys
    as Z85 text, None for every one.

    The questions and answers are those of ZAP, https://rfc.zeromq.org/spec/27/. They come over a REP socket, which
    must answer each before it reads the next: both happen in one call here.
    """

    def __init__(self, context: zmq.Context[Any], allowed: frozenset[str] | None) -> None:
        self._allowed = allowed
        self._once = OnceLog(log)
        self._zmq = context.socket(zmq.REP)
        self._zmq.bind(ZAP_ADDRESS)
        self._socket = LoopSocket(self._zmq, self._answer, lambda: False)
        self._socket.start()

    def close(self) -> None:
        self._socket.close(0)

    def _answer(self) -> None:
        question = self._zmq.recv_multipart(NOBLOCK)
        _, request_id, *_ = question
        key = _client_key(question)
        allowed = bool(key) and (self._allowed is None or key in self._allowed)
        status, text, user = (b"200", b"OK", key) if allowed else (b"400", b"key not allowed", "")
        self._zmq.send_multipart([ZAP_VERSION, request_id, status, text, user.encode(), b""], NOBLOCK)
        if status != b"200":
            self._once.warn(key, "a connection with the public key %s was not admitted: it is not in allowed_keys", key)
        self._socket.wake()


def _client_key(question: list[bytes]) -> str:
    """The client's public key as Z85 text; empty when the question is not about a CURVE key."""
    _, _, _, _, _, mechanism, *credentials = question
    if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
        return ""
    return z85.encode(credentials[0]).decode()


class Curve(NamedTuple):
    """The keys of one end, as Z85 text; see `curve_of`."""

    own: str
    """The secret key with which it connects."""
    listener: str
    """The secret key with which it listens."""
    server_key: str
    """The public key of those that it connects to."""
    allowed: frozenset[str] | None
    """The public keys that it admits where it listens; None for every one."""

    def __repr__(self) -> str:
        return f"Curve({self.server_key})"

    @property
    def link_key(self) -> bytes:
        """The key of the links that it makes by connecting (`anywire.transport_tools.LinkProofs`); empty when those
        that listen have it too."""
        return b"" if public_key(self.own) == self.server_key else key_bytes(public_key(self.own))

    def link_key_of(self, client_key: str) -> bytes:
        """The key of a link whose other end has connected with that public key; empty when this end has it too."""
        return b"" if client_key == public_key(self.listener) else key_bytes(client_key)


def curve_of(config: ZeromqConfig, *, needed: bool) -> Curve | None:
    """The keys that ``config`` names. Where it names none and some are ``needed``, or it asks for encryption, a new one
    to connect with, and for those that listen the key pair that all ends know. None for no keys.

    A key that everybody knows proves nothing of who listens. It is enough for a secret that only the two ends have, and
    for the listening end to see by which key the other has connected: proofs of identity name that one.
    """
    if config.secret_key is not None:
        secret = config.secret_key.get_secret_value()
        return Curve(secret, secret, config.server_key, frozenset(config.allowed_keys))
    if not (needed or config.encrypted):
        return None
    known = shared_key("known to all")
    return Curve(zmq.curve_keypair()[1].decode(), known, public_key(known), None)


def key_bytes(key: str) -> bytes:
    return bytes(z85.decode(key.encode()))


def secure_listener(socket: zmq.Socket[bytes], curve: Curve | None) -> None:
    if curve is None:
        return
    if curve.allowed is not None and not curve.allowed:
        raise TransportUnavailable(
            "secret_key is set but allowed_keys is empty: nobody could connect; name the public keys to admit"
        )
    secret = curve.listener.encode()
    socket.curve_server = True
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)


def secure_dialer(socket: zmq.Socket[bytes], curve: Curve | None) -> None:
    if curve is None:
        return
    if not curve.server_key:
        raise TransportUnavailable(
            "secret_key is set but server_key is empty: name the public key of the orchestrator to connect to"
        )
    secret = curve.own.encode()
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
    socket.curve_serverkey = curve.server_key.encode()
