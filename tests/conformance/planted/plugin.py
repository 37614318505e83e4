"""The test transport over a broker and the faulty transports, as a plugin: also for processes that the kit starts."""

from __future__ import annotations

from tests.conformance.planted.transports import TRANSPORTS

from anywire.hookspecs import hookimpl


@hookimpl
def anywire_register(kind: str) -> dict[str, type] | None:
    return dict(TRANSPORTS) if kind == "transports" else None
