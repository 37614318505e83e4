"""The test transport over a broker, as a plugin: for processes that the kit starts."""

from __future__ import annotations

from tests.conformance.planted.broker_transport import BrokerTransport

from anywire.hookspecs import hookimpl


@hookimpl
def anywire_register(kind: str) -> dict[str, type] | None:
    return {"broker": BrokerTransport} if kind == "transports" else None
