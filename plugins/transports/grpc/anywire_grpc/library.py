"""gRPC as both ends use it: its options, its credentials, the names of the two services."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio

from anywire.errors import ConfigError, TransportUnavailable
from anywire.files.private_files import read_private
from anywire.listening.connection_limit import ConnectionLimit
from anywire.transport import Plane
from anywire.transport_tools import END_NAME, EndCertificate, certificate_digest, takes_any_port
from anywire_grpc.codec import encoded_limit
from anywire_grpc.config import GrpcConfig
from anywire_grpc.faults import mapped
from anywire_grpc.link_pb2 import DESCRIPTOR
from anywire_grpc.wire import BATCH_BYTES

METHODS: dict[Plane, str] = {
    "agent": f"/{DESCRIPTOR.services_by_name['AgentPlane'].full_name}/Link",
    "client": f"/{DESCRIPTOR.services_by_name['ClientPlane'].full_name}/Link",
}
OLD_METHODS: dict[Plane, str] = {"agent": "/anywire.v1.AgentPlane/Link", "client": "/anywire.v1.ClientPlane/Link"}
"""Of before hellos named a version: answered so that who calls them is refused by name."""

NEVER_MS, FOREVER_MS = 2**31 - 2, 2**31 - 1
"""Milliseconds until the first ping, and until one that is not answered ends the connection. A ping is answered by the
peer's process, so a pause of it would end the link. gRPC sets TCP_USER_TIMEOUT only where pings are on: where the first
is not `FOREVER_MS`."""

MOST_BYTES = 2**31 - 1
"""Largest message length that gRPC can be given."""

CONNECT_MS = 5000

HANDSHAKE_MS = 5000
"""Milliseconds that a peer which connects may take until it speaks HTTP/2, through TLS where that is used."""

IDLE_MS = 60_000
"""Milliseconds after which a connection without a call is closed. Ends of this transport call at once."""

MOST_CALLS = 8
"""Calls at a time on one connection. Ends of this transport have one."""

Options = list[tuple[str, int]]


class Tls(NamedTuple):
    """What an end uses for TLS, in PEM."""

    key: bytes | None
    chain: bytes | None
    authorities: bytes | None
    name: str = ""
    """In the certificate of the listening end, where that is not the host of its address."""

    @property
    def link_key(self) -> bytes:
        """The key of the links that this end makes by connecting (`anywire.transport_tools.LinkProofs`); empty without
        a certificate."""
        return certificate_digest(self.chain) if self.chain else b""

    def link_key_of(self, certificate: str) -> bytes:
        """The key of a link whose other end has connected with that certificate; empty when this end has it too."""
        digest = certificate_digest(certificate.encode())
        return digest if digest != self.link_key else b""


def tls_of(config: GrpcConfig, made: EndCertificate | None) -> Tls | None:
    """What ``config`` names, else with the certificate that was ``made``; None for no TLS. Raises
    `TransportUnavailable` when the files do not serve."""
    if config.secured:
        return Tls(*_tls_files(config))
    return Tls(made.key, made.certificate, made.authority, END_NAME) if made is not None else None


def open_channel(config: GrpcConfig, address: str, unacknowledged_ms: int, tls: Tls | None) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    options: Options = [
        *_options(config, unacknowledged_ms),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
        ("grpc.enable_retries", 0),
        # Proxies of the environment are meant for the web, not for what runs in the next rack.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    named = [("grpc.ssl_target_name_override", tls.name)] if tls.name else []
    credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.chain)
    return grpc.aio.secure_channel(address, credentials, [*options, *named])


def new_server(
    config: GrpcConfig,
    address: str,
    unacknowledged_ms: int,
    handler: grpc.GenericRpcHandler,  # type: ignore[type-arg]
    handshaking: Callable[[], grpc.ServerCertificateConfiguration | None],
    tls: Tls | None,
) -> tuple[grpc.aio.Server, str]:
    """A server bound to ``address`` that has not started, and where it is: port 0 is any free one. ``handshaking`` is
    called, from another thread, when a TLS handshake begins; the certificate that it returns is shown from then on.
    Raises `TransportUnavailable`."""
    options: Options = [
        *_options(config, unacknowledged_ms),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.max_concurrent_streams", MOST_CALLS),
        ("grpc.max_allowed_incoming_connections", ConnectionLimit(address).most),
    ]
    server = grpc.aio.server(handlers=(handler,), options=options)
    try:
        if tls is None:
            return server, _with_port(address, server.add_insecure_port(address))
        assert tls.key is not None
        assert tls.chain is not None
        shown = grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], tls.authorities)
        # The only word of gRPC that somebody tries TLS: of handshakes that fail it tells nobody.
        credentials = grpc.dynamic_ssl_server_credentials(
            shown,
            handshaking,  # type: ignore[arg-type]  # it may return None
            tls.authorities is not None,
        )
        return server, _with_port(address, server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise mapped(error, f"listening on {address}") from error


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}" if takes_any_port(address) else address


def check_tls(config: GrpcConfig, *, listening: bool = False) -> None:
    """Raises `TransportUnavailable` when the TLS files do not serve."""
    if listening and config.tls_ca and not config.tls_cert:
        raise TransportUnavailable("tls_ca alone is enough to connect; to listen, add tls_cert and tls_key")
    _tls_files(config)


def _options(config: GrpcConfig, unacknowledged_ms: int) -> Options:
    return [
        ("grpc.max_receive_message_length", min(encoded_limit(config.max_message_bytes) + BATCH_BYTES, MOST_BYTES)),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", NEVER_MS),
        ("grpc.keepalive_timeout_ms", max(1, unacknowledged_ms)),  # which becomes TCP_USER_TIMEOUT
        ("grpc.http2.ping_timeout_ms", FOREVER_MS),
    ]


def _tls_files(config: GrpcConfig) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Key, certificate chain and authorities, as far as named. gRPC itself would not say what is wrong with them."""
    check = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        key = read_private(Path(config.tls_key)) if config.tls_key else None
        if config.tls_cert:
            check.load_cert_chain(config.tls_cert, config.tls_key, lambda: "")  # without it, one is asked for here
        if config.tls_ca:
            check.load_verify_locations(config.tls_ca)
        chain, authorities = (Path(name).read_bytes() if name else None for name in (config.tls_cert, config.tls_ca))
    except ConfigError as error:
        raise TransportUnavailable(f"transports.grpc.tls_key: {error}") from error
    except OSError as error:
        files = ", ".join(name for name in (config.tls_cert, config.tls_key, config.tls_ca) if name)
        raise mapped(error, f"the TLS files ({files}) cannot be used") from error
    return key, chain, authorities
