"""Certificates that ends make for themselves at their start, so that TLS needs no files.

They come from an authority whose key everybody knows: so every library takes them, and they prove nothing of who shows
them. They are enough to encrypt a link, and for the listening end to see by which certificate the other has connected,
since the handshake proves that its key is there: `anywire.transport_tools.LinkProofs` names that one.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import ssl
import tempfile
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, Name

END_NAME = "anywire-end"
"""The name in these certificates, whatever the address of the end."""

_KNOWN = int.from_bytes(hashlib.sha256(b"anywire: the key of this authority is known to all").digest())
# A machine whose clock is not set yet takes part, too: how new a link is, the proofs say.
_FROM, _UNTIL = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)
_FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s", re.DOTALL)


class EndCertificate(NamedTuple):
    """In PEM, each; ``key`` is private, and ``authority`` is what the other end's certificate comes from, too."""

    certificate: bytes
    key: bytes
    authority: bytes

    def __repr__(self) -> str:
        return f"EndCertificate({self.digest.hex()})"

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the certificate: the key of the links that its end makes by connecting."""
        return certificate_digest(self.certificate)

    def server_context(self) -> ssl.SSLContext:
        """For an end that listens: every other end is let in, and has to show its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority.decode())
        return self._loaded(context)

    def client_context(self, only: bytes = b"") -> ssl.SSLContext:
        """For an end that connects, to any other end, or to that alone whose certificate (DER) is ``only``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        if only:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=only or self.authority.decode())
        return self._loaded(context)

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The library reads them from a file alone: one that only this user can read, for a moment.
        with tempfile.NamedTemporaryFile(prefix="anywire-") as file:
            file.write(self.certificate + self.key)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def certificate_digest(pem: bytes) -> bytes:
    """The SHA-256 of the first certificate in ``pem``; empty when there is none."""
    found = _FIRST.search(pem + b"\n")
    if found is None:
        return b""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii", "replace").strip())).digest()


def new_end_certificate() -> EndCertificate:
    """One that no other end has: ECDSA over P-256, which every library takes."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    own = ec.generate_private_key(ec.SECP256R1())
    return EndCertificate(
        _certificate(own, END_NAME).public_bytes(Encoding.PEM),
        own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        _authority_pem(),
    )


@cache
def _authority_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return _certificate(_authority_key(), "").public_bytes(Encoding.PEM)


def _authority_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.derive_private_key(_KNOWN, ec.SECP256R1())


def _certificate(key: EllipticCurvePrivateKey, name: str) -> Certificate:
    """The certificate of that public key: the authority's own where ``name`` is empty."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    authority = _authority_key()
    issuer = _name("anywire")
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name) if name else issuer)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=not name, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if name:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return made.sign(authority, hashes.SHA256())


def _name(text: str) -> Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
