"""What this process's own TCP connections are set to."""

from __future__ import annotations

import os
import socket

import psutil


def option_of_connections(port: int, level: int, option: int) -> list[int]:
    """The value of a socket option on each established connection of this process from or to ``port``."""
    values = []
    for each in psutil.Process().net_connections("tcp"):
        ports = {address.port for address in (each.laddr, each.raddr) if address}
        if each.status == psutil.CONN_ESTABLISHED and port in ports:
            with socket.socket(fileno=os.dup(each.fd)) as connection:
                values.append(connection.getsockopt(level, option))
    return values
