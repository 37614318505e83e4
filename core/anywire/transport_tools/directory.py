"""The addresses of a transport whose orchestrators are found by them, as its options list them.

Such a transport has the options ``agent_addresses`` and ``client_addresses``: lists of ``HOST:PORT``, perhaps with a
scheme before and a path after. Whoever listens takes the first that is free, whoever connects connects to all. Port 0
is any free one; `meeting_addresses` tells which it is. Addresses without a port, as of Unix sockets, stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from anywire.errors import TransportUnavailable
from anywire.transport import Plane
from anywire.transport_tools.addresses import WILDCARD

_ADDRESS = re.compile(r"(?P<scheme>\w+://)?(?P<host>\[[^\]]*\]|[^:/\[\]]+):(?P<port>\d+)(?P<path>/.*)?")
_WILDCARDS = (WILDCARD, "*", "[::]")
_PLANES: tuple[Plane, ...] = ("agent", "client")


def option_of(plane: Plane) -> str:
    """The option that lists the addresses of ``plane``."""
    return f"{plane}_addresses"


def takes_any_port(address: str) -> bool:
    """Whether it can be listened on alone, since its port is 0."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and int(found["port"]) == 0


def listening_addresses(config: pydantic.BaseModel, plane: Plane) -> list[str]:
    """Where to listen, in order of preference: the addresses that the user has named, or the default ones, and any free
    port of the same host."""
    addresses: list[str] = getattr(config, option_of(plane))
    if option_of(plane) in config.model_fields_set:
        return addresses
    return [*addresses, *(_changed(each, port=0) for each in addresses[:1])]


def none_is_free(reasons: Sequence[str], transport: str, plane: Plane) -> TransportUnavailable:
    """The error to raise when all addresses that were named are taken; ``reasons`` has a sentence for each."""
    return TransportUnavailable(
        f"no address to listen on is free: {'; '.join(reasons)}. Change transports.{transport}.{option_of(plane)}, "
        "or end what uses it"
    )


def free_addresses(model: type[pydantic.BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which nobody else meets whoever listens, as far as ``options`` name no addresses."""
    return {
        option: [_changed(each, port=0) for each in model.model_fields[option].default[:1]]
        for option in map(option_of, _PLANES)
        if option not in options
    }


def lan_addresses(model: type[pydantic.BaseModel], options: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Options with which other machines reach whoever listens, at ``host``, as far as ``options`` name no addresses."""
    found = {}
    for option in map(option_of, _PLANES):
        if option not in options:
            usual = _changed(model.model_fields[option].default[0], host=host)
            found[option] = [usual, _changed(usual, port=0)]
    return found


def meeting_addresses(bound: Mapping[Plane, str], host: str) -> dict[str, Any]:
    """Options by which others, that reach this machine by ``host``, connect to the addresses ``bound``."""
    return {option_of(plane): [_reached(address, host)] for plane, address in bound.items()}


def encryption_told(configured: bool, has_identity: bool, bound: Mapping[Plane, str]) -> dict[str, Any]:
    """The option ``encrypted`` for others that connect to the addresses ``bound``, where it has to be set. An identity
    on the client plane alone does not count: whoever shows a key there encrypts anyway, and agents get the same
    options."""
    return {"encrypted": True} if configured or (has_identity and "agent" in bound) else {}


def _reached(address: str, host: str) -> str:
    found = _ADDRESS.fullmatch(address)
    return _changed(address, host=host) if found is not None and found["host"] in _WILDCARDS else address


def _changed(address: str, *, host: str = "", port: int | None = None) -> str:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return address
    there = f"[{host}]" if ":" in host and not host.startswith("[") else host or found["host"]
    return f"{found['scheme'] or ''}{there}:{found['port'] if port is None else port}{found['path'] or ''}"
