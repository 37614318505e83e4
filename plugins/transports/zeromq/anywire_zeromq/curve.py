"""Who may connect: CURVE keys on the sockets, and the check of the client's key where they listen."""

from __future__ import annotations

import logging
from typing import Any

import zmq
from zmq.utils import z85

from anywire.errors import TransportUnavailable
from anywire.transport_tools import OnceLog
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.loop_socket import NOBLOCK, LoopSocket

log = logging.getLogger(__name__)

ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"


class KeyCheck:
    """Answers ZeroMQ's questions whether a client's key is allowed, on the event loop.

    The questions and answers are those of ZAP, https://rfc.zeromq.org/spec/27/. They come over a REP socket, which
    must answer each before it reads the next: both happen in one call here.
    """

    def __init__(self, context: zmq.Context[Any], allowed: list[str]) -> None:
        self._allowed = frozenset(allowed)
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
        status, text, user = (b"200", b"OK", key) if key in self._allowed else (b"400", b"key not allowed", "")
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


def secure_listener(socket: zmq.Socket[bytes], config: ZeromqConfig) -> None:
    if config.secret_key is None:
        return
    if not config.allowed_keys:
        raise TransportUnavailable(
            "secret_key is set but allowed_keys is empty: nobody could connect; name the public keys to admit"
        )
    secret = config.secret_key.get_secret_value().encode()
    socket.curve_server = True
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)


def secure_dialer(socket: zmq.Socket[bytes], config: ZeromqConfig) -> None:
    if config.secret_key is None:
        return
    if not config.server_key:
        raise TransportUnavailable(
            "secret_key is set but server_key is empty: name the public key of the orchestrator to connect to"
        )
    secret = config.secret_key.get_secret_value().encode()
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
    socket.curve_serverkey = config.server_key.encode()
