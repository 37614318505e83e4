"""The settings of the ZeroMQ transport, and what makes an address or a key a good one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import pydantic
import zmq
import zmq.auth

from anywire.errors import ConfigError
from anywire.files.private_files import read_private
from anywire.transport_tools import BoundedOptions, is_loopback

IPC_PATH_LIMIT = 107
"""Characters the kernel allows in the path of a Unix socket."""

WILDCARDS = ("*", "0.0.0.0", "[::]")


def check_address(address: str) -> str:
    """``address`` when ZeroMQ can use it between processes; ValueError saying what would do otherwise."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        hint = "; inside one process use the transport 'memory'" if scheme == "inproc" else ""
        raise ValueError(f"{address!r} is no address: use tcp://host:port or ipc:///path/of/a/socket{hint}")
    if scheme == "ipc":
        if not rest or len(rest.encode()) > IPC_PATH_LIMIT:
            raise ValueError(f"{address!r}: the path must have 1 to {IPC_PATH_LIMIT} bytes")
        return address
    host, _, port = rest.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r}: after tcp:// comes host:port, a port up to 65535; 0 listens on any free one")
    return address


def is_wildcard(address: str) -> bool:
    return address.startswith("tcp://") and address.removeprefix("tcp://").rpartition(":")[0] in WILDCARDS


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    return address.startswith("ipc://") or is_loopback(address.removeprefix("tcp://").rpartition(":")[0])


def read_key(value: str, *, secret: bool) -> str:
    """A Z85 key of 40 characters, given as such or as the path of a certificate file that holds it. Raises ValueError,
    and `ConfigError` for a ``secret`` one in a file that others can read."""
    if len(value) == 40 and not Path(value).is_file():
        try:
            zmq.utils.z85.decode(value.encode())
        except (KeyError, ValueError) as error:
            raise ValueError("a key of 40 characters must be Z85 text, as `zmq.curve_keypair()` gives it") from error
        return value
    try:
        # What is no file may be a secret with a typo, and is not repeated.
        public, secret_key = zmq.auth.load_certificate(value)
        if secret and secret_key is not None:
            read_private(Path(value))
    except ConfigError as error:
        raise ConfigError(f"transports.zeromq.secret_key: {error}") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"neither 40 characters of Z85 nor a readable certificate file ({type(error).__name__})"
        ) from error
    found = secret_key if secret else public
    if found is None:
        raise ValueError("this certificate file holds no secret key: name the one that ends in .key_secret")
    return found.decode()


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


def shared_key(secret: str) -> str:
    """The secret CURVE key, in Z85, of a fleet with that ``secret``: see `anywire.transport.Lan`."""
    return zmq.utils.z85.encode(hashlib.sha256(f"anywire zeromq {secret}".encode()).digest()).decode()


def public_key(secret_key: str) -> str:
    """The public key that belongs to a secret one, both in Z85."""
    return zmq.curve_public(secret_key.encode()).decode()


class ZeromqConfig(BoundedOptions):
    """Each list of addresses is a directory: whoever listens takes the first that is free on its machine, whoever
    connects connects to all. One file with both lists therefore serves every process of a deployment."""

    model_config = pydantic.ConfigDict(hide_input_in_errors=True)

    agent_addresses: Addresses = pydantic.Field(
        default=["tcp://127.0.0.1:5560"], description="Addresses where orchestrators listen for agents."
    )
    client_addresses: Addresses = pydantic.Field(
        default=["tcp://127.0.0.1:5561"], description="Addresses where orchestrators listen for clients."
    )
    secret_key: pydantic.SecretStr | None = pydantic.Field(
        default=None,
        description="CURVE: secret key of this end (Z85, or a .key_secret file). Without it nothing is secured.",
    )
    server_key: str = pydantic.Field(
        default="",
        description="CURVE: public key of the orchestrators that this end connects to (Z85, or a .key file).",
    )
    allowed_keys: Annotated[list[str], pydantic.BeforeValidator(_as_list)] = pydantic.Field(
        default=[], description="CURVE: public keys that this end admits where it listens (Z85, or .key files)."
    )

    encrypted: bool = pydantic.Field(
        default=False,
        description="Encrypt links with CURVE keys that each end makes at its start. Both ends must. An end with an "
        "identity always does.",
    )

    @pydantic.field_validator("secret_key")
    @classmethod
    def _read_secret(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        return value and pydantic.SecretStr(read_key(value.get_secret_value(), secret=True))

    @pydantic.field_validator("server_key")
    @classmethod
    def _read_server(cls, value: str) -> str:
        return value and read_key(value, secret=False)

    @pydantic.field_validator("allowed_keys")
    @classmethod
    def _read_allowed(cls, values: Sequence[str]) -> list[str]:
        return [read_key(value, secret=False) for value in values]

    @pydantic.model_validator(mode="after")
    def _keys_belong_together(self) -> Self:
        if self.secret_key is None and (self.server_key or self.allowed_keys):
            raise ValueError("server_key and allowed_keys need a secret_key: this end's own")
        if self.secret_key is not None and not (self.server_key or self.allowed_keys):
            raise ValueError("secret_key alone secures nothing: add server_key to connect, allowed_keys to listen")
        return self
