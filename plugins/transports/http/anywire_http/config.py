"""The settings of the HTTP transport, and what makes an address a good one."""

from __future__ import annotations

from typing import Annotated

import pydantic
from yarl import URL

from anywire.transport_tools import BoundedOptions, is_loopback


def check_address(address: str, *, any_port: bool = False) -> str:
    """``address`` without a final slash when it can be listened on or connected to; ValueError saying what would do."""
    try:
        url = URL(address)
        port = url.explicit_port if url.scheme == "http" else url.port
    except ValueError as error:
        raise ValueError(f"{address!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{address!r} is no address: use http://host:port")
    if url.query_string or url.fragment or url.user:
        raise ValueError(f"{address!r}: an address has a host, a port and perhaps a path, nothing else")
    if port is None or (port == 0 and not any_port):
        raise ValueError(f"{address!r}: name the port, as in {url.scheme}://{url.host}:8090")
    return str(url).rstrip("/")


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    return is_loopback(URL(address).host or "")


def is_wildcard(address: str) -> bool:
    return (URL(address).host or "") in ("0.0.0.0", "::")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _each_address(values: list[str]) -> list[str]:
    return [check_address(value, any_port=True) for value in values]


def _own_address(value: str) -> str:
    return check_address(value, any_port=True)


def _optional_address(value: str) -> str:
    return value and check_address(value)


Addresses = Annotated[
    list[str],
    pydantic.BeforeValidator(_as_list),
    pydantic.AfterValidator(_each_address),
    pydantic.Field(min_length=1),
]


class HttpConfig(BoundedOptions):
    """Each list of addresses is a directory: whoever listens takes the first that is free on its machine, whoever
    connects connects to all. One file with both lists therefore serves every process of a deployment."""

    model_config = pydantic.ConfigDict(hide_input_in_errors=True)

    agent_addresses: Addresses = pydantic.Field(
        default=["http://127.0.0.1:8090"], description="Addresses where orchestrators listen for agents that register."
    )
    client_addresses: Addresses = pydantic.Field(
        default=["http://127.0.0.1:8091"], description="Addresses where orchestrators listen for clients."
    )
    agent_listen: Annotated[str, pydantic.AfterValidator(_own_address)] = pydantic.Field(
        default="http://127.0.0.1:0",
        description="Address where an agent listens for its tasks. Port 0 is any free one. Default: a loopback one, or"
        " where orchestrators are on other machines the one that they see.",
    )
    agent_url: Annotated[str, pydantic.AfterValidator(_optional_address)] = pydantic.Field(
        default="", description="Address by which orchestrators reach this agent, when that is not agent_listen."
    )
    token: pydantic.SecretStr | None = pydantic.Field(
        default=None, description="Shared secret that every request must carry, in both directions."
    )

    encrypted: bool = pydantic.Field(
        default=False,
        description="TLS on links, with certificates that each end makes at its start. Both ends must. An end with an "
        "identity always does.",
    )

    @pydantic.field_validator("token")
    @classmethod
    def _not_empty(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value is not None and not value.get_secret_value().isascii():
            raise ValueError("a token is ASCII text: it travels in a header")
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("an empty token protects nothing: leave it out, or choose one (`openssl rand -hex 32`)")
        return value
