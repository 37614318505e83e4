"""Who an end says that it is, and how it speaks TLS: as nats-py takes it, read anew for each connection."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from nats.aio.client import RawCredentials

from anywire.errors import ConfigError, TransportUnavailable
from anywire.files.private_files import read_private
from anywire_nats.config import ServerConfig
from anywire_nats.faults import mapped

CREDENTIALS_PARTS = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")
"""What a file of credentials has in it. nats-py looks for them without end in a file that lacks them."""


def login(config: ServerConfig) -> dict[str, Any]:
    """Arguments of nats-py's ``connect``. Raises `TransportUnavailable` for files that do not serve."""
    found: dict[str, Any] = {}
    if config.tls_ca or config.tls_cert:
        found["tls"] = _tls(config)
    if config.password is not None:
        found |= {"user": config.user, "password": config.password.get_secret_value()}
    if config.token is not None:
        found["token"] = config.token.get_secret_value()
    if config.credentials is not None:
        text = _text(config.credentials, f"{config.option}.credentials")
        if any(part not in text for part in CREDENTIALS_PARTS):
            raise TransportUnavailable(
                f"{config.option}.credentials: {config.credentials} is no file of credentials: `nsc` makes one"
            )
        found["user_credentials"] = RawCredentials(text)
    if config.nkey is not None:
        found["nkeys_seed_str"] = _text(config.nkey, f"{config.option}.nkey").strip()
    return found


def _tls(config: ServerConfig) -> ssl.SSLContext:
    """Used where the server speaks TLS. Without ``tls_ca`` its certificate must be one that this system trusts, as
    nats-py has it where no files are named."""
    try:
        if config.tls_key:
            read_private(Path(config.tls_key))
        context = ssl.create_default_context(cafile=config.tls_ca or None)
        if config.tls_cert:
            context.load_cert_chain(config.tls_cert, config.tls_key, lambda: "")  # without it, one is asked for here
    except (ConfigError, FileNotFoundError) as error:
        named = "tls_key" if isinstance(error, ConfigError) else "tls_ca, tls_cert and tls_key"
        raise TransportUnavailable(f"{config.option}.{named}: {error}") from error
    except OSError as error:
        files = ", ".join(name for name in (config.tls_cert, config.tls_key, config.tls_ca) if name)
        raise mapped(error, f"the TLS files ({files}) cannot be used", config.option) from error
    return context


def _text(path: Path, setting: str) -> str:
    try:
        return read_private(path).decode("ascii", "replace")
    except (ConfigError, FileNotFoundError) as error:
        told = error if isinstance(error, ConfigError) else f"there is no file {path}"
        raise TransportUnavailable(f"{setting}: {told}") from error
