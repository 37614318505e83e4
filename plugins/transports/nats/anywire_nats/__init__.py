"""The NATS transport: links between ends that meet at a NATS server."""

from anywire_nats.config import NatsConfig
from anywire_nats.transport import NatsTransport

__all__ = ["NatsConfig", "NatsTransport"]
