"""The HTTP and DDS interfaces of Anywire's predecessor: a gateway for its clients, and a transport to its agents."""

from anywire_gateway_predecessor.config import PredecessorGatewayConfig
from anywire_gateway_predecessor.gateway import PredecessorGateway
from anywire_gateway_predecessor.transport import PredecessorTransport, PredecessorTransportConfig

__all__ = [
    "PredecessorGateway",
    "PredecessorGatewayConfig",
    "PredecessorTransport",
    "PredecessorTransportConfig",
]
