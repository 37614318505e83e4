"""The servers of transports that need one: a companion of each of their cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anywire_experiment.plan.companions import Companion
from anywire_experiment.plan.programs import found_program

SERVER = "server"

_NATS = Companion(
    command=("nats-server", "--addr", "{host}", "--port", "{port}"),
    ready="Server is ready",
)


def companions_of(transport: str) -> dict[str, Companion]:
    """By name, for the arm of that transport; empty where it needs none."""
    return {SERVER: _NATS} if transport == "nats" else {}


def missing_server(transport: str) -> str:
    """Which program of its servers is not here, and what brings it; empty when all are."""
    programs = [each.command[0] for each in companions_of(transport).values()]
    return "".join(f"{each} is not here (pip install {each}-bin)" for each in programs if found_program(each) is None)


def options_of(transport: str, *, between_hosts: bool) -> Mapping[str, Any]:
    """What the transport is told of its server, whose address stands in braces as in a plan."""
    if transport != "nats":
        return {}
    address = {"servers": f"nats://{{{SERVER}.host}}:{{{SERVER}.port}}"}
    return address if between_hosts else address | {"local": True}
