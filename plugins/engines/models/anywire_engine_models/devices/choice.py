"""Which card a model is started on: pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anywire.sizes import shown_size
from anywire_engine_models.devices.cards import SIMULATED, Card
from anywire_engine_models.host.server import Device

CPU = "cpu"
AUTO = "auto"


def choose(
    cards: Sequence[Card],
    need: int,
    *,
    wish: str = AUTO,
    reserve: int = 0,
    promised: Mapping[str, int] | None = None,
    without: Sequence[str] = (),
    fault: str = "",
) -> Device:
    """The device for a model that needs ``need`` bytes (0: nobody knows).

    ``wish`` is ``cpu``, ``gpu:N`` or ``auto``. Of the cards that keep ``reserve`` bytes free with the model, ``auto``
    takes the one with most room, else the CPU. A card that was wished for is taken whether it fits or not: an estimate
    is no reason to overrule a person. ``promised`` are bytes of each card for models on their way there. ``without``
    are devices where a start has failed. ``fault`` says why cards are missing.
    """
    if wish == CPU:
        return Device(CPU, "asked for")
    room = {card.device: max(0, card.vram_free_bytes - (promised or {}).get(card.device, 0)) for card in cards}
    left = [card for card in cards if card.device not in without]
    needs = f"needs {shown_size(need)}" if need else "its need is not known"
    if wish != AUTO:
        for card in left:
            if card.device.removesuffix(SIMULATED) == wish:
                return Device(card.device, f"asked for; {needs}, {_shown(card, room)}")
        if {wish, wish + SIMULATED} & set(without):
            return Device(CPU, f"{wish} was asked for")
        found = f"; there is {', '.join(room)}" if room else ""
        return Device(CPU, _joined(f"{wish} was asked for and is not there{found}", fault))
    if not left:
        return Device(CPU, _joined("no other graphics card" if cards else "no graphics card", fault))
    best = max(left, key=lambda card: room[card.device])  # the first of equals
    fits = room[best.device] >= need + reserve
    others = f", the most of {len(left)} cards" if len(left) > 1 and not fits else ""
    keeps = f", {shown_size(reserve)} stay free" if reserve else ""
    return Device(best.device if fits else CPU, f"{needs}, {_shown(best, room)}{keeps}{others}")


def _shown(card: Card, room: Mapping[str, int]) -> str:
    promised = card.vram_free_bytes - room[card.device]
    name = card.device if card.simulated else f"{card.device} ({card.name})"
    but = f" but {shown_size(promised)} for models on their way" if promised else ""
    return f"{name} has {shown_size(card.vram_free_bytes)} of {shown_size(card.vram_total_bytes)} free{but}"


def _joined(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))
