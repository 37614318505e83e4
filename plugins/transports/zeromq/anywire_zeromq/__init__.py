"""The ZeroMQ transport: ROUTER and DEALER, msgpack, no process in between."""

from anywire_zeromq.config import ZeromqConfig
from anywire_zeromq.transport import ZeromqTransport

__all__ = ["ZeromqConfig", "ZeromqTransport"]
