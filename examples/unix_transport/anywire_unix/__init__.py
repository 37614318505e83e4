"""A transport over Unix domain sockets: for the processes of one user on one machine."""

from anywire_unix.transport import UnixConfig, UnixTransport

__all__ = ["UnixConfig", "UnixTransport"]
