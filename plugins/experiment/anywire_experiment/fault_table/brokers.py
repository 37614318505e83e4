"""The servers of transports that need one: a companion of each of their cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anywire_experiment.companions import Companion

SERVER = "server"

_NATS = Companion(
    command=("nats-server", "--addr", "{host}", "--port", "{port}"),
    ready="Server is ready",
)


def companions_of(transport: str) -> dict[str, Companion]:
    """By name, for the arm of that transport; empty where it needs none."""
    return {SERVER: _NATS} if transport == "nats" else {}


def options_of(transport: str, *, between_hosts: bool) -> Mapping[str, Any]:
    """What the transport is told of its server, whose address stands in braces as in a plan."""
    if transport != "nats":
        return {}
    address = {"servers": f"nats://{{{SERVER}.host}}:{{{SERVER}.port}}"}
    return address if between_hosts else address | {"local": True}
