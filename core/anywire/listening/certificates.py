"""Certificates of servers: those that servers of this process show, checked and read again when they change, and how a
client here knows the server that it asks.

Nothing of OpenSSL or ``cryptography`` is loaded before a certificate is used.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from anywire.access_settings import TlsConfig
from anywire.errors import ConfigError
from anywire.files.private_files import read_private
from anywire.files.watched_files import WatchedFiles

if TYPE_CHECKING:
    import ssl

    from cryptography import x509

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024
"""Bytes of a file with certificates that are read."""

_VERIFY = {
    9: "shows a certificate that is not valid yet: check the clocks of both machines",
    10: "shows a certificate that has expired",
    **dict.fromkeys(
        (18, 19, 20, 21),
        "shows a certificate of an authority that is not known here: name the file of that authority with --ca",
    ),
    **dict.fromkeys((62, 64), "shows a certificate for another name: use one of the names in it"),
}
"""By the number that OpenSSL gives to what it finds wrong with a certificate."""
_FAULTS = {
    **dict.fromkeys(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"), "speaks no TLS: ask it at http://"),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "asks for a certificate of the client: name its file with --cert",
}


def days_left(path: Path) -> float:
    """Days until the first certificate in a file expires. Raises `ConfigError`."""
    left = read_certificates(path)[0].not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left / datetime.timedelta(days=1)


def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """What a server needs to show this certificate, with TLS 1.2 or newer, and to ask clients for theirs where
    ``client_ca`` is set. Reads the files. Raises `ConfigError`, which names the file and what would do."""
    import ssl

    _check_dates(tls.certificate, read_certificates(tls.certificate)[0])
    _check_key(tls.key, tls.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, _no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"the certificate {tls.certificate} with the key {tls.key} does not serve: {error}"
        ) from error
    if tls.client_ca is not None:
        _trust(context, tls.client_ca, as_pem(read_certificates(tls.client_ca)))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class ServerCertificate:
    """The certificate that a server shows, of the files that ``tls`` names. ``context`` is what a new connection needs.
    From `start` to `close` it is replaced whenever the files have changed and serve; what is wrong with them is logged,
    and the one before stays. Raises `ConfigError` as `server_context` does."""

    def __init__(self, tls: TlsConfig) -> None:
        self._tls = tls
        files = [each for each in (tls.certificate, tls.key, tls.client_ca) if each is not None]
        self._watched = WatchedFiles(files, self._renew)
        self.context = server_context(tls)
        self.reloaded: Callable[..., object] = lambda error: None
        """Called when changed files were read: with why they do not serve, nothing when they do."""

    def start(self) -> None:
        self._watched.start()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._watched.close()

    def _renew(self) -> None:
        try:
            self.context = server_context(self._tls)
        except ConfigError as error:
            log.error("the certificate in use stays, since the new one does not serve: %s", error)
            self.reloaded(error=str(error))
        else:
            log.info("the certificate %s has changed: new connections get the new one", self._tls.certificate)
            self.reloaded(error="")


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one. Raises `ConfigError`."""
    from cryptography import x509

    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(MAX_BYTES))
    except OSError as error:
        raise ConfigError(f"the certificate {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from error


def names_in(certificate: x509.Certificate) -> list[str]:
    """The names for which a server's certificate counts, host names before addresses; any name that fits for a pattern
    such as ``*.example.org``."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [each.replace("*", "anywire", 1) for each in found.get_values_for_type(x509.DNSName)]
    return names + [str(each) for each in found.get_values_for_type(x509.IPAddress)]


def is_public(tls: TlsConfig, name: str) -> bool:
    """Whether clients with the usual authorities take the certificate of a server for ``name``. Raises `ConfigError` as
    `server_context` does."""
    import ssl

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = server_context(tls.model_copy(update={"client_ca": None}))
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context().wrap_bio(to_client, to_server, server_hostname=name)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


def client_context(authorities: str = "", own: Path | None = None) -> ssl.SSLContext:
    """What a client needs to ask a server whose certificate is one of ``authorities`` (PEM) or comes from one; default:
    from those known to all. ``own`` is the file with the client's certificate and key. Raises `ConfigError`."""
    import ssl

    import httpx

    if authorities:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A certificate that is named counts, be it that of an authority or not.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(context, "the file of authorities", authorities)
    else:
        context = httpx.create_ssl_context()
    if own is not None:
        _check_key(own, own)
        try:
            context.load_cert_chain(own, password=_no_passphrase)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"the certificate and the key in {own} do not serve: {error}") from error
    return context


def fault_of(error: BaseException) -> str:
    """What is wrong with the certificate or the TLS of a server, in words that go on "the server at … "; empty where
    ``error`` and what has caused it tell of nothing like that."""
    import ssl

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _VERIFY.get(cause.verify_code) or f"shows a certificate that does not count: {cause.verify_message}"
    return _FAULTS.get(cause.reason, f"and this client do not agree on TLS: {cause.reason or cause}")


def _check_dates(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        raise ConfigError(f"the certificate {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        begin = certificate.not_valid_before_utc
        raise ConfigError(f"the certificate {path} is not valid before {begin:%Y-%m-%d %H:%M} UTC: check the clock")


def _check_key(key_file: Path, certificate_file: Path) -> None:
    """Raises `ConfigError` unless the key is that of the first certificate, and nobody else may read it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = read_private(key_file)
    except FileNotFoundError as error:
        raise ConfigError(f"the key {key_file} cannot be read: {error.strerror}") from error
    certificate = read_certificates(certificate_file)[0]
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(
            f"the key {key_file} has a passphrase: remove it with openssl pkey -in FILE -out FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{key_file} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"the key {key_file} is not that of the first certificate in {certificate_file}")


def _no_passphrase() -> str:
    return ""  # without it OpenSSL would ask for one on the terminal


def as_pem(certificates: Iterable[x509.Certificate]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()


def _trust(context: ssl.SSLContext, source: object, authorities: str) -> None:
    import ssl

    try:
        context.load_verify_locations(cadata=authorities)
    except ssl.SSLError as error:
        raise ConfigError(f"the authorities in {source} do not serve: {error}") from error
