"""Who may connect: CURVE keys on the sockets, and the check of the client's key where they listen."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import zmq
from zmq.auth.base import Authenticator

from anywire.errors import TransportUnavailable
from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.loop_socket import NOBLOCK, LoopSocket

log = logging.getLogger(__name__)


class _AllowedKeys:
    def __init__(self, keys: list[str]) -> None:
        self._keys = frozenset(keys)

    def callback(self, domain: str, key: bytes) -> bool:
        if key.decode() in self._keys:
            return True
        log.warning("a connection with the public key %s was not admitted: it is not in allowed_keys", key.decode())
        return False


class KeyCheck:
    """Answers ZeroMQ's questions whether a client's key is allowed, on the event loop."""

    def __init__(self, context: zmq.Context[Any], allowed: list[str]) -> None:
        self._authenticator = Authenticator(context)
        self._authenticator.configure_curve_callback("*", _AllowedKeys(allowed))
        self._authenticator.start()
        self._answers: set[asyncio.Task[None]] = set()
        self._socket = LoopSocket(self._authenticator.zap_socket, self._receive, lambda: False)

    def close(self) -> None:
        for answer in self._answers:
            answer.cancel()
        self._socket.close(0)
        self._authenticator.stop()

    def _receive(self) -> None:
        question = self._authenticator.zap_socket.recv_multipart(NOBLOCK)
        answer = asyncio.get_running_loop().create_task(self._answer(question))
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

    async def _answer(self, question: list[bytes]) -> None:
        await self._authenticator.handle_zap_message(question)
        self._socket.wake()


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
