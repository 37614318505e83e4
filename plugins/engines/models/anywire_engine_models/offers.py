"""What an agent offers of its models, from what is known of each and from its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from anywire.offers import MAX_OFFERS, MAX_OFFERS_BYTES, Offer, OfferState, offers_text
from anywire_engine_models.host.status import ModelState, ModelStatus
from anywire_engine_models.hosted_models import KnownModel

MAX_DETAIL = 200
"""Characters of a model's reason in its offer; its status has all of it."""

_STATES: Mapping[ModelState, OfferState] = {
    "stopped": "stopped",
    "starting": "starting",
    "running": "ready",
    "stopping": "stopping",
    "crashed": "crashed",
}


class Learned(msgspec.Struct, frozen=True):
    """What a running server has said of its model."""

    features: dict[str, bool]
    context: int


def offer(known: KnownModel, status: ModelStatus, learned: Learned | None = None) -> Offer:
    """The offer of one model."""
    features = known.features if learned is None else known.features | learned.features
    if known.resume is not None:
        features = features | {"resume": known.can_go_on}
    return Offer(
        known.hosted.name,
        kinds=known.kinds,
        features=features,
        state=_state(known, status),
        detail=_detail(status),
        slots=known.hosted.slots,
        context=known.context if learned is None else learned.context,
        digest=known.digest,
        on_demand=known.hosted.on_demand,
    )


def offers_of(
    models: Mapping[str, KnownModel], statuses: Iterable[ModelStatus], learned: Mapping[str, Learned]
) -> tuple[Offer, ...]:
    """Those of all models, in the order of their statuses, as many as an agent may offer. A model that is no longer in
    the registry and still runs is no longer offered."""
    found = [
        offer(known, status, learned.get(status.model))
        for status in statuses
        if (known := models.get(status.model)) is not None
    ]
    return fitting(tuple(found[:MAX_OFFERS]))


def fitting(offered: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """``offered`` in the bytes that an agent's offers may have: without details, and without the last ones, if need
    be."""
    if _size(offered) > MAX_OFFERS_BYTES:
        offered = tuple([msgspec.structs.replace(each, detail="") for each in offered])
    while _size(offered) > MAX_OFFERS_BYTES:
        offered = offered[: len(offered) * 9 // 10]
    return offered


def _size(offered: tuple[Offer, ...]) -> int:
    return len(offers_text(offered).encode())


def told(status: ModelStatus, known: KnownModel | None) -> dict[str, Any]:
    """A model's status as commands tell it: with what names its weights, and its context."""
    plain: dict[str, Any] = {"model": status.model, "state": status.state} | msgspec.to_builtins(status)
    if known is not None:
        plain |= {"digest": known.digest, "context": known.context}
    return plain


def _state(known: KnownModel, status: ModelStatus) -> OfferState:
    """A crashed model that starts on demand is offered as a stopped one: the next request starts it."""
    return "stopped" if status.state == "crashed" and known.hosted.on_demand else _STATES[status.state]


def _detail(status: ModelStatus) -> str:
    match status.state:
        case "running":
            return ""
        case "crashed":
            text = f"crashed: {status.exit.reason if status.exit is not None else status.reason}"
        case _:
            text = status.reason
    return text.partition("\n")[0][:MAX_DETAIL]
