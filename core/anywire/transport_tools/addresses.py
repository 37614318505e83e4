"""Which hosts are this machine itself, and by which address others reach it."""

from __future__ import annotations

import ipaddress
import socket
import struct

WILDCARD = "0.0.0.0"
"""As a host that is listened on: every address of this machine."""
_FAR = "192.0.2.1"
"""An address of no machine (RFC 5737), to which a machine with a default route knows a way."""
_SIOCGIFADDR = 0x8915


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach ``host``: ``localhost``, or an address of 127.0.0.0/8 or ::1.

    Other names are not looked up, and do not count.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(towards: str = _FAR) -> str:
    """The address of this machine that ``towards``, a host, sees; without a host, the one of its network. Nothing is
    sent. Returns an empty string when this machine is in no network."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(towards.strip("[]"), 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError:
        return _of_an_interface() if towards == _FAR else ""


def _of_an_interface() -> str:
    """For a machine without a default route: the first address of an interface that leaves it (Linux)."""
    try:
        import fcntl
    except ImportError:  # Windows
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has no address
            address = socket.inet_ntoa(answer[20:24])
            if not is_loopback(address):
                return address
    return ""
