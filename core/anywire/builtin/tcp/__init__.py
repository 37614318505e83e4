"""The transport ``tcp``: messages on plain TCP connections or Unix sockets, and nothing else between them.

It needs no library, so it is also the floor of every comparison: what a message costs over `asyncio` alone.
"""

from anywire.builtin.tcp.config import TcpConfig
from anywire.builtin.tcp.transport import TcpTransport

__all__ = ["TcpConfig", "TcpTransport"]
