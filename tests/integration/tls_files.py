"""Certificates of a test authority, in files as users have them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

from anywire.access_settings import TlsConfig


class TlsFiles:
    """The files of one server in ``folder``, and the authority that they come from."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.renew()

    @property
    def tls(self) -> TlsConfig:
        return TlsConfig(certificate=self.certificate, key=self.key)

    @property
    def mutual(self) -> TlsConfig:
        return TlsConfig(certificate=self.certificate, key=self.key, client_ca=self.ca)

    def renew(self, *names: str, expires: datetime.datetime | None = None) -> None:
        """Replace certificate and key by new ones for ``names``, default this machine's."""
        issued = self.authority.issue_cert(
            *(names or ("localhost", "127.0.0.1", "::1")),
            not_before=None if expires is None else expires - datetime.timedelta(days=1),
            not_after=expires,
        )
        replace(self.key, issued.private_key_pem.bytes())
        replace(self.certificate, b"".join(each.bytes() for each in issued.cert_chain_pems))

    def client_files(self, name: str = "robot@example.org") -> tuple[Path, Path]:
        """The certificate and the key of a client."""
        issued = self.authority.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def client(self, *own: Path) -> ssl.SSLContext:
        """What a client that trusts the authority needs; ``own`` are its certificate and key."""
        context = ssl.create_default_context(cafile=self.ca)
        if own:
            context.load_cert_chain(own[0], own[1])
        return context


def replace(path: Path, data: bytes) -> None:
    """Write ``path`` as programs do that renew certificates: by a new file of mode 0600 that takes its place."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.chmod(0o600)
    new.replace(path)
