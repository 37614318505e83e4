"""Who is behind a proxy: read from what trusted proxies say, and from nobody else."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy, istr

from anywire.once_log import OnceLog

log = logging.getLogger(__name__)

UNIX = "unix"
"""As an address: whoever is at the other end of the Unix socket."""
UNKNOWN = "unknown"
"""As an address: a proxy's word on its client cannot be read."""
MAX_HOPS = 32
MAX_ADDRESS_CHARS = 64
_FORWARDED, _FORWARDED_FOR = istr("Forwarded"), istr("X-Forwarded-For")
_PROTO, _HOST = istr("X-Forwarded-Proto"), istr("X-Forwarded-Host")
_REAL_IP, _VIA = istr("X-Real-IP"), istr("Via")
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;]*)', re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}$")

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


class Client(NamedTuple):
    """``address`` is the client's, ``is_local`` whether it and every proxy on the way are on this machine. ``by_proxy``
    tells whether a proxy has spoken for it."""

    address: str
    is_local: bool
    by_proxy: bool


def checked_proxy(text: str) -> str:
    """``text``, an address or a network of proxies, or ``unix``. Raises `ValueError` when it is none."""
    if text != UNIX:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"{text!r} is no address or network such as 10.0.0.5 or 10.0.0.0/8, and not {UNIX!r}"
            ) from None
    return text


class Proxies:
    """The ``trusted`` ones: addresses, networks, and ``unix`` for whoever is at the Unix socket.

    Of `X-Forwarded-For` and `Forwarded` the last address is what the nearest proxy has seen. From there it is read to
    the left, as long as addresses are those of trusted proxies; the first other one is the client. What stands before
    it may be forged.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        names = list(trusted)
        self.any = bool(names)
        self._unix = UNIX in names
        self._networks = [ipaddress.ip_network(each, strict=False) for each in names if each != UNIX]
        self._once = OnceLog(log)

    def client(self, peer: object, headers: Headers) -> Client:
        """The client of a connection whose socket's peer name is ``peer``."""
        address = address_of(peer)
        here = is_local_address(address)
        if not self.any or not self._trusts(address):
            return Client(address, here, False)
        hops = self._hops(headers)
        if hops is None:
            self._once.warn(
                address,
                "the proxy %s sends Forwarded and X-Forwarded-For, which name different clients: none is believed; "
                "let it remove the one that it does not set",
                address,
            )
            return Client(address, False, True)
        if not hops:
            return Client(address, here, False)
        for hop in reversed(hops[-MAX_HOPS:]):
            address, here = hop, here and is_local_address(hop)
            if not self._trusts(hop):
                break
        return Client(address, here, True)

    def base_url(self, peer: object, headers: Headers, scheme: str) -> str:
        """The address of the server as its client knows it: by a trusted proxy's `X-Forwarded-Proto` and
        `X-Forwarded-Host`, or else ``scheme`` and `Host`. Empty where there is none."""
        host = headers.get("Host", "")
        if self.any and self._trusts(address_of(peer)):
            host = headers.get(_HOST, host).rpartition(",")[2].strip()
            told = headers.get(_PROTO, scheme).rpartition(",")[2].strip().lower()
            scheme = told if told in ("http", "https") else scheme
        return f"{scheme}://{host}" if re.fullmatch(r"[\w.:\[\]-]{1,253}", host, re.ASCII) else ""

    def trusts(self, peer: object) -> bool:
        """Whether the word of a connection's other end, by its socket's peer name, counts on whom it passes on."""
        return self.any and self._trusts(address_of(peer))

    def _trusts(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        found = _parsed(address)
        return found is not None and any(found in network for network in self._networks)

    @staticmethod
    def _hops(headers: Headers) -> list[str] | None:
        """The addresses on the way, the nearest last; None where two headers say different things."""
        told = ",".join(headers.getall(_FORWARDED_FOR, ()))  # a proxy may add a header of its own
        elements = ",".join(headers.getall(_FORWARDED, ()))
        by_for = [_hop(each) for each in told.split(",")] if told else []
        found = [_FOR.search(each) for each in elements.split(",")] if elements else []
        by_forwarded = [_hop(each.group(1)) if each is not None else UNKNOWN for each in found]
        if by_for and by_forwarded and by_for != by_forwarded:
            return None
        return by_for or by_forwarded


def has_proxy_header(headers: Headers) -> bool:
    """Whether a proxy has passed a request on: whoever is behind it need not be on this machine."""
    return _FORWARDED_FOR in headers or _FORWARDED in headers or _REAL_IP in headers or _VIA in headers


def address_of(peer: object) -> str:
    """The address in a socket's peer name."""
    if isinstance(peer, tuple | list):
        return peer[0] if peer and isinstance(peer[0], str) else UNKNOWN
    return UNIX if isinstance(peer, str | bytes) else UNKNOWN


@lru_cache(maxsize=256)
def is_local_address(address: str) -> bool:
    """Whether an address is of this machine's loopback, or the Unix socket."""
    found = _parsed(address)
    return address == UNIX or (found is not None and found.is_loopback)


def is_address(text: str) -> bool:
    """Whether a host is an IP address, and no name."""
    return _parsed(text) is not None


@lru_cache(maxsize=256)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _hop(text: str) -> str:
    """The address of one hop: with a port or not, in quotes and brackets or not. `unknown` for what is none."""
    text = text.strip().strip('"').strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    return text if len(text) <= MAX_ADDRESS_CHARS and _parsed(text) is not None else UNKNOWN
