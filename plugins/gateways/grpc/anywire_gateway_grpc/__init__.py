"""The gateway ``grpc``: deliberations for clients of existing gRPC services."""

import os

# Read when gRPC's library is loaded: its notes on handshakes and connections, one for each attempt of a stranger.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from anywire_gateway_grpc.config import GrpcGatewayConfig
from anywire_gateway_grpc.gateway import GrpcGateway

__all__ = ["GrpcGateway", "GrpcGatewayConfig"]
