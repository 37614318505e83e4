"""Whether the hosts that are to be looked for have addresses: Cyclone ends the process where one has none."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from anywire.errors import TransportUnavailable

_NAME = re.compile(r"(?P<name>[A-Za-z0-9_-][A-Za-z0-9_.-]*)(?::\d+)?")


def check_peers(peers: Sequence[str]) -> None:
    """Raise `TransportUnavailable` for the first name that cannot be resolved. What is no name is left to Cyclone."""
    for peer in peers:
        if (found := _NAME.fullmatch(peer)) is None:
            continue
        try:
            socket.getaddrinfo(found["name"].encode(), None, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise TransportUnavailable(
                f"DDS: {peer!r} of `peers` has no address ({error.strerror}): correct it, or start when it has one"
            ) from error
