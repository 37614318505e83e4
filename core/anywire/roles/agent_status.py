"""What an agent reports of its engine: the status, checked."""

from __future__ import annotations

import math
from typing import get_args

import msgspec

from anywire.boundary import Boundary
from anywire.engine import Engine, EngineStatus
from anywire.messages import State
from anywire.offers import MAX_OFFERS, Offer, offers_text
from anywire.pipeline.fleet.claims import MAX_COUNT, MAX_DETAIL, MAX_SLOTS, check_offers
from anywire.secrecy import without_secrets

_STATES = frozenset(get_args(State))


class StatusSource:
    """Reads an engine's status. One that cannot be had, or is none, is state ``failed``."""

    def __init__(self, engine: Engine, boundary: Boundary) -> None:
        self._engine, self._boundary = engine, boundary
        self._checked: EngineStatus | None = None
        """The newest that was checked, and nothing is wrong with it."""
        self._shown = EngineStatus()
        """That one without secrets."""
        self._offered: tuple[Offer, ...] = ()
        self._text = ""

    def read(self) -> EngineStatus:
        try:
            status = self._engine.status()
            if status is self._checked or (type(status) is EngineStatus and status == self._checked):
                return self._shown
            fault = _fault(status)
        except Exception as error:
            self._boundary.failed(f"engine {self._engine.name}", "status", error)
            what = without_secrets(f"its status raised {type(error).__name__}: {error}")
            return EngineStatus("failed", detail=what[:MAX_DETAIL])
        if fault:
            name = f"engine {self._engine.name}"
            self._boundary.failed(name, "status", fault)
            return EngineStatus("failed", detail=f"{name}: {fault}")
        self._checked, self._shown = status, status
        if status.detail:
            self._shown = msgspec.structs.replace(status, detail=without_secrets(status.detail))
        return self._shown

    def text(self, offered: tuple[Offer, ...]) -> str:
        """Offers as they are reported; written anew only when they are others."""
        if offered is not self._offered:
            self._offered, self._text = offered, offers_text(offered)
        return self._text


def _fault(status: object) -> str:
    """What is wrong with what an engine gave as its status; empty when nothing is."""
    if not isinstance(status, EngineStatus):
        return f"is no EngineStatus: {str(status)[:80]!r}"
    if status.state not in _STATES or not isinstance(status.offers, tuple):
        return f"state {status.state!r} or offers {str(status.offers)[:80]} are not as they must be"
    slots = 0 if status.slots is None else status.slots
    if type(slots) is not int or not 0 <= slots <= MAX_SLOTS or len(status.offers) > MAX_OFFERS:
        return f"slots {str(slots)[:20]} or {len(status.offers)} offers are out of bounds"
    if type(status.queued) is not int or not isinstance(status.resources, dict) or not isinstance(status.detail, str):
        return "queued, resources or detail are not of their types"
    if not all(type(each) is Offer for each in status.offers):
        return "offers are no Offers"
    try:
        fault = check_offers(offers_text(status.offers))
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"offers cannot be written: {error}"
    if fault:
        return fault
    if not 0 <= status.queued <= MAX_COUNT or not all(
        isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value)
        for name, value in status.resources.items()
    ):
        return "queued is out of bounds, or resources are no finite numbers"
    return ""
