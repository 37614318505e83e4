"""The settings of the gRPC transport, and what makes an address a good one."""

from __future__ import annotations

from typing import Annotated, Self

import pydantic

from anywire.transport_tools import BoundedOptions, is_loopback

UNIX = "unix:"
UNIX_PATH_LIMIT = 107
"""Bytes the kernel allows in the path of a Unix socket."""


def check_address(address: str) -> str:
    """``address`` when it can be listened on or connected to; ValueError saying what would do otherwise."""
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX)
        if not path.startswith("/") or len(path.encode()) > UNIX_PATH_LIMIT:
            raise ValueError(f"{address!r}: after {UNIX} comes an absolute path of up to {UNIX_PATH_LIMIT} bytes")
        return address
    host, _, port = address.rpartition(":")
    if "/" in host or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError(f"{address!r} is no address: use host:port, [IPv6 address]:port or {UNIX}/path/of/a/socket")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r}: after the host comes a port up to 65535; 0 listens on any free one")
    return address


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    return address.startswith(UNIX) or is_loopback(host_and_port(address)[0])


def is_wildcard(address: str) -> bool:
    return not address.startswith(UNIX) and host_and_port(address)[0] in ("0.0.0.0", "::")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _each_address(values: list[str]) -> list[str]:
    return [check_address(value) for value in values]


Addresses = Annotated[
    list[str],
    pydantic.BeforeValidator(_as_list),
    pydantic.AfterValidator(_each_address),
    pydantic.Field(min_length=1),
]

DEFAULT_ADDRESS = "127.0.0.1:50051"


class GrpcConfig(BoundedOptions):
    """Each list of addresses is a directory: whoever listens takes the first that is free on its machine, whoever
    connects connects to all. One file with both lists therefore serves every process of a deployment. The planes may
    share an address."""

    model_config = pydantic.ConfigDict(hide_input_in_errors=True)

    agent_addresses: Addresses = pydantic.Field(
        default=[DEFAULT_ADDRESS], description="Addresses where orchestrators listen for agents."
    )
    client_addresses: Addresses = pydantic.Field(
        default=[DEFAULT_ADDRESS], description="Addresses where orchestrators listen for clients. They may be the same."
    )
    token: pydantic.SecretStr | None = pydantic.Field(
        default=None, description="Shared secret that every link must be opened with."
    )
    tls_cert: str = pydantic.Field(default="", description="TLS: file of this end's certificate chain (PEM).")
    tls_key: str = pydantic.Field(default="", description="TLS: file of the private key that belongs to it (PEM).")
    tls_ca: str = pydantic.Field(
        default="", description="TLS: file of the authorities (PEM) that the other end's certificate must come from."
    )

    encrypted: bool = pydantic.Field(
        default=False,
        description="TLS with certificates that each end makes at its start. Both ends must. An end with an identity "
        "always does.",
    )

    @pydantic.field_validator("token")
    @classmethod
    def _fits_a_header(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value()
        if not text.strip():
            raise ValueError("an empty token protects nothing: leave it out, or choose one (`openssl rand -hex 32`)")
        if not text.isascii() or not text.isprintable():
            raise ValueError("a token is printable ASCII text: it travels in a header")
        return value

    @pydantic.model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together: name both or neither")
        return self

    @property
    def secured(self) -> bool:
        """Whether links are encrypted with certificates that are named."""
        return bool(self.tls_cert or self.tls_ca)
