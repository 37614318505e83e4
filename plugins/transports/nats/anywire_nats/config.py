"""The settings of the NATS transport, those of any connection to NATS servers, and what makes a server's address a good
one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

import pydantic

from anywire.transport_tools import BoundedOptions, is_loopback

PORT = 4222
"""Where NATS servers listen unless told otherwise."""


def check_server(address: str) -> str:
    """``address`` with its port, when it names a server; ValueError saying what would do otherwise."""
    if "@" in address:
        raise ValueError("an address has no name or password in it: use user and password, token, credentials or nkey")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme not in ("nats", "tls") or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is no address of a NATS server: use nats://host:port or tls://host:port")
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def is_local(address: str) -> bool:
    """Whether this machine alone is reached by it."""
    return is_loopback(urlsplit(address).hostname or "")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _each_server(values: list[str]) -> list[str]:
    return [check_server(value) for value in values]


Servers = Annotated[
    list[str],
    pydantic.BeforeValidator(_as_list),
    pydantic.AfterValidator(_each_server),
    pydantic.Field(min_length=1),
]


class ServerConfig(pydantic.BaseModel):
    """Where the servers are, and who this end says that it is. Whatever connects to NATS servers has these settings."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True, hide_input_in_errors=True)

    option: ClassVar[str] = "transports.nats"
    """Where these settings stand in a configuration, for sentences."""

    servers: Servers = pydantic.Field(
        default=[f"nats://127.0.0.1:{PORT}"],
        description="Addresses of the servers of one cluster; the first that takes this end is used.",
    )
    user: str = pydantic.Field(default="", description="Name of this end's user at the servers.")
    password: pydantic.SecretStr | None = pydantic.Field(default=None, description="Password of that user.")
    token: pydantic.SecretStr | None = pydantic.Field(
        default=None, description="Token that the servers ask for, in place of a user."
    )
    credentials: Path | None = pydantic.Field(
        default=None, description="File of credentials (`.creds`), as `nsc` makes it, in place of a user."
    )
    nkey: Path | None = pydantic.Field(default=None, description="File with the seed of an nkey, in place of a user.")
    tls_ca: str = pydantic.Field(
        default="",
        description="TLS: file of the authorities (PEM) that the servers' certificates must come from. Default: those "
        "of this system.",
    )
    tls_cert: str = pydantic.Field(default="", description="TLS: file of this end's certificate chain (PEM).")
    tls_key: str = pydantic.Field(default="", description="TLS: file of the private key that belongs to it (PEM).")

    @pydantic.model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password belong together: name both or neither")
        ways = {"user": self.user, "token": self.token, "credentials": self.credentials, "nkey": self.nkey}
        named = [name for name, value in ways.items() if value]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are different ways to say who this end is: name one of them")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together: name both or neither")
        return self

    @property
    def asks_who(self) -> bool:
        """Whether this end says who it is, because the servers ask."""
        return bool(self.user or self.token or self.credentials or self.nkey)

    @property
    def encrypted(self) -> bool:
        """Whether this end says nothing to a server that does not use TLS."""
        return bool(self.tls_ca or self.tls_cert) or any(each.startswith("tls:") for each in self.servers)


class NatsConfig(ServerConfig, BoundedOptions):
    """One file serves every process of a deployment: all ends connect to the same servers."""

    fleet: str = pydantic.Field(
        default="",
        pattern=r"^[A-Za-z0-9_.-]*$",
        max_length=100,
        description="Name of the fleet, with which all subjects begin; others on the same servers are not seen. "
        "Default: `default`.",
    )
    local: bool = pydantic.Field(
        default=False,
        description="Say that the servers listen on loopback alone, so that their clients are this machine's own.",
    )

    @pydantic.model_validator(mode="after")
    def _is_local(self) -> Self:
        if self.local and not all(map(is_local, self.servers)):
            raise ValueError("local says that the servers listen on loopback alone, and servers names others")
        return self

    @property
    def fleet_name(self) -> str:
        return self.fleet or "default"
