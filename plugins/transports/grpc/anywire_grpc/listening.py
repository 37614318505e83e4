"""Servers of this process, one per address: both planes may be open there, each answered by the end it belongs to."""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pydantic

from anywire.errors import TransportUnavailable
from anywire.transport import Plane
from anywire.transport_tools import CLOSE_TIMEOUT, EndCertificate, OnceLog, listening_addresses, none_is_free
from anywire_grpc.config import UNIX, GrpcConfig, host_and_port, is_local
from anywire_grpc.faults import mapped
from anywire_grpc.library import METHODS, OLD_METHODS, check_tls, new_server, tls_of
from anywire_grpc.wire import NOBODY, Ending, Stream, Wire

log = logging.getLogger(__name__)

CALL_S = 6.0
"""Seconds after the begin of a TLS handshake until it has failed if no call has followed."""

MOST_HANDSHAKES = 1024
"""Handshakes that are followed at a time."""

Talk = Callable[[Wire, Stream], Awaitable[Ending]]
Context = grpc.aio.ServicerContext[bytes, bytes]

_listeners: dict[str, Listener] = {}
"""By address. The roles of a process each open a transport of their own, and may still share a port."""


async def listen(
    config: GrpcConfig, plane: Plane, unacknowledged_ms: int, made: EndCertificate | None, protected: bool
) -> Listener:
    """A listener for ``plane`` at the first free of its addresses. ``made`` is the certificate of this end where none
    is named, ``protected`` whether the hellos decide who is let in. Raises `TransportUnavailable`."""
    check_tls(config, listening=True)
    reasons = []
    for address in listening_addresses(config, plane):
        there = _listeners.get(address)
        if there is not None and there.shares(config, plane, made):
            there.reserve(plane)
            return there
        if there is not None and not there.is_like(made):
            reasons.append(
                f"{address}: one plane of this process is encrypted there and the other is not: set identity.key, "
                "which encrypts both, or name another address for one of them"
            )
            continue
        try:
            _check_free(address)
        except (OSError, UnicodeError) as error:
            reasons.append(f"{address}: {mapped(error, 'cannot listen')}")
            continue
        protected = protected or config.token is not None or (config.secured and bool(config.tls_ca))
        if not protected and not is_local(address):
            raise TransportUnavailable(
                f"{address} would be open to the network and anybody could join: set a token, or identity.key and "
                "identity.admitted, or tls_cert, tls_key and tls_ca so that both ends show a certificate"
            )
        try:
            listener = Listener(config, address, unacknowledged_ms, made)
        except TransportUnavailable as error:  # somebody else was quicker
            reasons.append(str(error))
            continue
        listener.reserve(plane)
        await listener.start()
        return listener
    raise none_is_free(reasons, "grpc", plane)


class Listener:
    """A server at one address. Raises `TransportUnavailable` when it cannot be bound."""

    def __init__(self, config: GrpcConfig, address: str, unacknowledged_ms: int, made: EndCertificate | None) -> None:
        self._config, self._made = config, made
        self._tls = tls_of(config, made)
        self._loop = asyncio.get_running_loop()
        self._reserved: set[Plane] = set()
        self._open: dict[Plane, Talk] = {}
        self._calls: dict[Plane, set[asyncio.Task[Any]]] = {"agent": set(), "client": set()}
        """The server's tasks, until they have ended."""
        self._tokens = TokenCheck(config.token)
        self._once = OnceLog(log)
        self._handshakes: deque[asyncio.TimerHandle] = deque(maxlen=MOST_HANDSHAKES)
        """Of each that has begun and no call has followed yet, what is done if none follows."""
        routes = _Routes(self._answer)
        self._server, self.address = new_server(
            config, address, unacknowledged_ms, routes, self._handshaking, self._tls
        )
        _listeners[self.address] = self

    def shares(self, config: GrpcConfig, plane: Plane, made: EndCertificate | None) -> bool:
        """Whether ``plane``, with such settings, can be opened here too."""
        same = ("token", "tls_cert", "tls_key", "tls_ca", "max_message_bytes", "buffer_bytes")
        return (
            plane not in self._reserved
            and self.is_like(made)
            and self._loop is asyncio.get_running_loop()
            and all(getattr(config, name) == getattr(self._config, name) for name in same)
        )

    def is_like(self, made: EndCertificate | None) -> bool:
        """Whether an end with such a certificate of its own uses TLS as this one does."""
        return (made is None) == (self._made is None)

    def reserve(self, plane: Plane) -> None:
        self._reserved.add(plane)

    async def start(self) -> None:
        await self._server.start()

    def admit(self, plane: Plane, talk: Talk) -> None:
        """From now on ``talk`` is called for every stream of ``plane``."""
        self._open[plane] = talk

    async def leave(self, plane: Plane) -> None:
        """Stop when it was the last plane. Waits for what is left of the plane's calls, after the last for that of all
        calls, for a bounded time; idempotent."""
        self._open.pop(plane, None)
        self._reserved.discard(plane)
        ending = [plane]
        if not self._reserved and _listeners.get(self.address) is self:
            del _listeners[self.address]
            for each in self._handshakes:
                each.cancel()
            await self._server.stop(None)
            ending = list(self._calls)
        # The server's stop ends its calls in the library, and does not wait for their tasks.
        if left := {call for each in ending for call in self._calls[each]} - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=CLOSE_TIMEOUT)

    def _handshaking(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: so is everything else
            self._loop.call_soon_threadsafe(self._handshake_begun)

    def _handshake_begun(self) -> None:
        if len(self._handshakes) == MOST_HANDSHAKES:
            self._handshakes[0].cancel()
        self._handshakes.append(self._loop.call_later(CALL_S, self._handshake_failed))

    def _handshake_failed(self) -> None:
        self._handshakes.popleft()
        why = (
            "the other end does not trust this certificate (its tls_ca, or the name it connects to), shows none that "
            "comes from tls_ca here, or does not use TLS"
        )
        if self._made is not None:
            why = "both ends need an identity, or neither, and no files of certificates besides"
        text = f"a connection to {self.address} did not get through TLS: {why}"
        self._once.warn(text, "%s", text)

    async def _answer(self, plane: Plane, context: Context) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls[plane].add(call)
        call.add_done_callback(self._calls[plane].discard)
        if self._handshakes:  # which of them it was does not matter: those that failed are counted
            self._handshakes.popleft().cancel()
        metadata = dict(context.invocation_metadata() or ())
        refusal = self._tokens.refusal(str(metadata.get("authorization", "")))
        talk = self._open.get(plane)
        if refusal:
            ending = Ending(grpc.StatusCode.UNAUTHENTICATED, refusal)
        elif talk is None:
            ending = NOBODY
        else:
            # By itself: gRPC cannot end a call while its first write, which would carry this too, is under way.
            await context.send_initial_metadata(())
            shown = _certificate(context)
            link_key = self._tls.link_key_of(shown) if self._tls is not None and shown else b""
            # One that was made at a start names nobody whose next life would have it, too.
            wire = Wire(context.peer(), self._config.buffer_bytes, "" if self._made else shown, link_key)
            ending = await talk(wire, context)
            if not wire.name and isinstance(ending.error, TransportUnavailable):
                refusal = ending.reason
        if refusal:
            self._tell(context.peer(), refusal)
        if ending.code is not grpc.StatusCode.OK:
            await context.abort(ending.code, ending.for_peer or ending.reason)

    def _tell(self, peer: str, refusal: str) -> None:
        text = f"{peer.rpartition(':')[0]} was not admitted to {self.address}: {refusal}"
        self._once.warn(text, "%s", text)


def _certificate(context: Context) -> str:
    """The one that the peer has shown; empty when it was not asked for one."""
    for shown in context.auth_context().get("x509_pem_cert", ()):
        return shown.decode()
    return ""


class TokenCheck:
    """Checks the token a link is opened with, in constant time."""

    def __init__(self, token: pydantic.SecretStr | None) -> None:
        self._expected = None if token is None else f"Bearer {token.get_secret_value()}".encode()

    def refusal(self, authorization: str) -> str:
        """Why a call with that ``authorization`` is not served; empty when it is."""
        if self._expected is None or hmac.compare_digest(authorization.encode(), self._expected):
            return ""
        what = "a wrong token" if authorization else "no token"
        return f"it came with {what}: set the same `token` at both ends"


class _Routes(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, answer: Callable[[Plane, Context], Awaitable[None]]) -> None:
        methods = [*METHODS.items(), *OLD_METHODS.items()]
        self._handlers = {method: _handler(answer, plane) for plane, method in methods}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(answer: Callable[[Plane, Context], Awaitable[None]], plane: Plane) -> Any:
    async def link(_: object, context: Context) -> None:
        await answer(plane, context)

    return grpc.stream_stream_rpc_method_handler(link)


def _check_free(address: str) -> None:
    """Raises OSError saying why ``address`` cannot be bound: gRPC would only say that it failed, and would take a Unix
    socket away from whoever listens there."""
    if address.startswith(UNIX):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address.removeprefix(UNIX))
            except OSError:
                return
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    host, port = host_and_port(address)
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
