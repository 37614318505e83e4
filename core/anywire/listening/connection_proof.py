"""What a connection itself proves of its client, before anything is said on it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct

import msgspec

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group at the other end of a Unix socket, as Linux tells them."""


class ConnectionProof(msgspec.Struct, frozen=True):
    """``certificate`` is the SHA-256 fingerprint (hexadecimal) of the client certificate that TLS has verified, ``uid``
    the user at the other end of a Unix socket. Both go into `anywire.access.Presented`."""

    certificate: str = ""
    uid: int | None = None


NO_PROOF = ConnectionProof()


def proof_of(transport: asyncio.BaseTransport) -> ConnectionProof:
    """What an open connection proves; called once for each, when it is made."""
    encrypted = transport.get_extra_info("ssl_object")
    if encrypted is not None:
        shown = encrypted.getpeercert(binary_form=True)
        return NO_PROOF if shown is None else ConnectionProof(certificate=hashlib.sha256(shown).hexdigest())
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "SO_PEERCRED") or connection.family != socket.AF_UNIX:
        return NO_PROOF
    # uvloop's socket has no getsockopt.
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        told = own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return ConnectionProof(uid=_CREDENTIALS.unpack(told)[1])
