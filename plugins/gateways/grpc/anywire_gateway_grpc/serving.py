"""The server of gRPC: its options, its port, its certificate."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable

import grpc
import grpc.aio

from anywire.access_settings import TlsConfig
from anywire.errors import ConfigError
from anywire.files.private_files import read_private
from anywire.files.watched_files import WatchedFiles
from anywire.listening.certificates import server_context
from anywire.listening.connection_limit import ConnectionLimit
from anywire_gateway_grpc.config import GrpcGatewayConfig

log = logging.getLogger(__name__)

DEFAULT_PORT = 50055

HANDSHAKE_MS = 5000
"""Milliseconds that a peer which connects may take until it speaks HTTP/2, through TLS where that is used."""
IDLE_MS = 300_000
"""Milliseconds after which a connection without a call is closed."""
PING_MS, PING_TIMEOUT_MS = 60_000, 20_000
"""A connection on which nothing was heard for so long is pinged, and closed when that is not answered in time."""
PINGED_MS = 5000
"""Clients may ping as often while a call waits for its winner; gRPC would end such a connection after some minutes."""
MOST_CALLS = 100
"""Calls at a time on one connection."""
METADATA_BYTES = 16 * 1024
CHECK_ERRORS = {
    errno.EADDRINUSE: "another process uses it; stop that one or set another gateways.grpc.port (0 takes a free one)",
    errno.EACCES: "permission denied; set a port of 1024 or above",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; set host to one, or to 127.0.0.1",
}


class Certificate:
    """The certificate that the port shows: that of the files, read again when they change. ``reloaded`` is called then,
    with what is wrong with the new ones or an empty text. Raises `ConfigError`."""

    def __init__(self, tls: TlsConfig, reloaded: Callable[[str], object]) -> None:
        self._tls, self._reloaded = tls, reloaded
        files = [each for each in (tls.certificate, tls.key, tls.client_ca) if each is not None]
        self._watched = WatchedFiles(files, self._renew)
        self._changed = deque[grpc.ServerCertificateConfiguration](maxlen=1)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._newest,  # type: ignore[arg-type]  # it may return None
            tls.client_ca is not None,
        )

    def start(self) -> None:
        self._watched.start()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._watched.close()

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """What has changed since the last handshake. Called from threads of gRPC's, at each handshake."""
        try:
            return self._changed.pop()
        except IndexError:
            return None

    def _read(self) -> grpc.ServerCertificateConfiguration:
        server_context(self._tls)  # gRPC itself would not say what is wrong with the files
        try:
            key = read_private(self._tls.key)
            chain = self._tls.certificate.read_bytes()
            authorities = self._tls.client_ca.read_bytes() if self._tls.client_ca is not None else None
        except OSError as error:
            raise ConfigError(f"the files of server.tls cannot be read: {error}") from error
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)

    def _renew(self) -> None:
        try:
            self._changed.append(self._read())
        except ConfigError as error:
            log.error("the certificate in use stays, since the new one does not serve: %s", error)
            self._reloaded(str(error))
        else:
            log.info("the certificate %s has changed: new connections get the new one", self._tls.certificate)
            self._reloaded("")


def new_server(config: GrpcGatewayConfig, certificate: Certificate | None) -> tuple[grpc.aio.Server, str, int]:
    """A server that is bound and has not started, with its host and port. Raises `ConfigError`."""
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", PING_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PINGED_MS),
        ("grpc.max_concurrent_streams", MOST_CALLS),
        ("grpc.max_allowed_incoming_connections", ConnectionLimit("the gateway grpc").most),
    ]
    server = grpc.aio.server(options=options)
    host, port = _free(config)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if certificate is None:
            return server, host, server.add_insecure_port(address)
        return server, host, server.add_secure_port(address, certificate.credentials)
    except RuntimeError as error:
        raise ConfigError(f"the gateway grpc cannot listen on {address}: {error}") from error


def _free(config: GrpcGatewayConfig) -> tuple[str, int]:
    """An address that can be bound now: gRPC would only say that it failed. Raises `ConfigError`."""
    port = DEFAULT_PORT if config.port is None else config.port
    try:
        return _bound(config.host, port)
    except OSError as error:
        where = f"the gateway grpc cannot listen on {config.host} port {port}"
        if isinstance(error, socket.gaierror):
            raise ConfigError(f"{where}: the host name is not known; set host to an address of this machine") from error
        if config.port is not None or error.errno != errno.EADDRINUSE:
            raise ConfigError(f"{where}: {CHECK_ERRORS.get(error.errno or 0, str(error))}") from error
    log.info("port %d of %s is taken: another one is used", port, config.host)
    return config.host, 0


def _bound(host: str, port: int) -> tuple[str, int]:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
    return str(where[0]), port
