"""The server that a command asks over HTTP, and how the command knows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl

    import httpx

    from anywire.access_settings import TlsConfig

UNIX = "unix:"
"""Begins the URL of a server on a Unix socket: ``unix:/run/anywire.sock``."""


class Server(NamedTuple):
    """Where a server is, without a slash at the end."""

    url: str
    authorities: str = ""
    """Certificates (PEM) of which that of the server must come, or be one; empty for the authorities known to all."""
    name: str = ""
    """The name or address that the server's certificate must have; empty for that in the URL."""
    own_certificate: Path | None = None
    """File with the certificate and the key that this client shows."""
    key: str = ""
    """The API key that this client shows, empty for none."""

    def __repr__(self) -> str:
        return f"Server({self.url})"

    def client(self, timeout: float) -> httpx.AsyncClient:
        """A client that asks it; ``timeout`` is in seconds. Raises `ConfigError` when a file does not serve."""
        import httpx

        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        if self.url.startswith(UNIX):
            transport = httpx.AsyncHTTPTransport(uds=self.url.removeprefix(UNIX))
            return httpx.AsyncClient(base_url="http://localhost", headers=headers, timeout=timeout, transport=transport)
        url = httpx.URL(self.url)
        local = url.host in ("localhost", "::1") or url.host.startswith("127.")
        verify = self._context() if url.scheme == "https" else True
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=not local, verify=verify)
        if self.name:
            client.event_hooks = {"request": [self._expect_name]}
        return client

    def _context(self) -> ssl.SSLContext | bool:
        if not self.authorities and self.own_certificate is None:
            return True
        from anywire.listening.certificates import client_context

        return client_context(self.authorities, self.own_certificate)

    async def _expect_name(self, request: httpx.Request) -> None:
        extensions: dict[str, Any] = request.extensions
        extensions["sni_hostname"] = self.name


def known_by(url: str, certificate: Path | None) -> Server:
    """The server at ``url``, which shows the first certificate in that file and no other one; without a file, one that
    anybody knows. Raises `ConfigError` when the file does not serve."""
    if certificate is None:
        return Server(url)
    from anywire.listening.certificates import as_pem, names_in, read_certificates

    shown = read_certificates(certificate)[0]
    return Server(url, as_pem([shown]), next(iter(names_in(shown)), ""))


def seen_from_outside(url: str, tls: TlsConfig | None) -> Server:
    """The same server as another machine has to know it: by its authority, where that is not one known to all, and by a
    name in its certificate, where the URL has another. Raises `ConfigError` when a file does not serve."""
    if tls is None:
        return Server(url)
    import httpx

    from anywire.listening.certificates import as_pem, is_public, names_in, read_certificates

    chain = read_certificates(tls.certificate)
    names = names_in(chain[0])
    host = httpx.URL(url).host
    name = "" if host in names or not names else names[0]
    return Server(url, "" if is_public(tls, name or host) else as_pem(chain[-1:]), name)
