"""The gRPC transport: one bidirectional stream per link, protobuf, no process in between."""

import os

# Read when gRPC's library is loaded. Its notes on handshakes and connections, one for each attempt, tell what our own
# log tells once. Its handlers for fork() are for children that go on using gRPC; ours become another program at once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from anywire_grpc.config import GrpcConfig
from anywire_grpc.transport import GrpcTransport

__all__ = ["GrpcConfig", "GrpcTransport"]
