"""What agents offer: one `Offer` for each model, as JSON text on every wire."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Literal

import msgspec

OfferState = Literal["stopped", "starting", "ready", "stopping", "crashed"]

RESUME = "resume"
"""The capability of an agent, or feature of an offer, to go on from a text."""
NAMED_NEED = "mcp:"
"""Begins a need that only an offer has that says so: of other needs it may say nothing."""
API_NEED = "api:"
"""Begins the need of a server that speaks an API itself (`anywire.native_api`): the same holds for it."""
MAX_OFFERS = 1000
"""Offers of one agent."""
MAX_OFFERS_BYTES = 512 * 1024
"""Bytes of their text."""


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model at an agent.

    ``kinds`` are the kinds of tasks it answers (`anywire.messages.Kind`); none stands for all kinds among the agent's
    capabilities, of a service's offer for `anywire.messages.COMMON_KINDS`. ``features`` says of a need (``tools``,
    ``vision``, ``audio``, ``json``, ``logprobs`` …) whether the model has it; what is not named is unknown.
    ``mcp:LABEL`` says that a server of tools can be called in its chats; where it is not named there is none.
    ``api:NAME`` says that its server speaks an API itself (`anywire.native_api`), and likewise. ``resume`` among them
    says whether it goes on from a text, in place of the agent's capability of that name. ``state``: a ``ready`` offer
    takes tasks. One that is ``on_demand`` takes them too while it is ``stopped``, where the first one starts it, and
    while it is ``starting``, where they wait at the agent. ``detail`` says why it is ``crashed``, or what a
    ``starting`` one does. ``slots`` is how many of its tasks run at once, 0 when only the agent's slots bound it.
    ``context`` is the longest prompt and answer in tokens, 0 when unknown. ``digest`` names the weights exactly, empty
    when unknown: a stream is resumed only where it is the same. ``owner`` is who made it or serves it, empty when
    nobody says.
    """

    model: str
    kinds: tuple[str, ...] = ()
    features: dict[str, bool] = {}
    state: OfferState = "ready"
    detail: str = ""
    slots: int = 0
    context: int = 0
    digest: str = ""
    on_demand: bool = False
    owner: str = ""

    @property
    def takes_tasks(self) -> bool:
        return self.state == "ready" or (self.on_demand and self.state in ("stopped", "starting"))

    def lacks(self, need: str) -> bool:
        """Whether it has not what a task needs."""
        has = self.features.get(need)
        return has is False or (has is None and need.startswith((NAMED_NEED, API_NEED)))

    def resumes(self, capabilities: Collection[str]) -> bool:
        """Whether the model goes on from a text, at an agent of these capabilities."""
        return self.features.get(RESUME, RESUME in capabilities)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Offer, ...]).decode


def offers(*models: str) -> tuple[Offer, ...]:
    """Ready offers of these models, each with its agent's kinds and nothing known beside."""
    return tuple(Offer(model) for model in models)


def offers_text(offered: tuple[Offer, ...]) -> str:
    """The text that stands for them in `anywire.messages.AgentStatus`."""
    return _encode(offered).decode() if offered else ""


def read_offers(text: str) -> tuple[Offer, ...]:
    """The offers in a status, each model once. Raises `ValueError` for what is no such text or out of bounds."""
    if not text:
        return ()
    if len(text) > MAX_OFFERS_BYTES:
        raise ValueError(f"its offers have {len(text)} characters, the limit is {MAX_OFFERS_BYTES}")
    return _read(text)


@lru_cache(maxsize=64)
def _read(text: str) -> tuple[Offer, ...]:
    try:
        found = _decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"its offers cannot be read: {error}") from error
    if len(found) > MAX_OFFERS:
        raise ValueError(f"it has {len(found)} offers, the limit is {MAX_OFFERS}")
    return tuple({offer.model: offer for offer in found}.values())
