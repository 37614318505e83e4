"""Cards that are not there."""

from __future__ import annotations

from collections.abc import Sequence

from anywire_engine_models.devices.cards import SIMULATED, Card
from anywire_engine_models.devices.settings import SimulatedCard


class SimulatedCards:
    """Cards by their settings. Their free memory is that without any model."""

    def __init__(self, settings: Sequence[SimulatedCard]) -> None:
        self._cards = [
            Card(
                device=f"gpu:{number}{SIMULATED}",
                name="simulated card",
                simulated=True,
                vram_total_bytes=card.vram_total,
                vram_free_bytes=card.vram_free,
            )
            for number, card in enumerate(settings)
        ]

    def read(self, first: int) -> tuple[list[Card], str]:
        """See `CardSource`."""
        return list(self._cards), ""

    def close(self) -> None:
        pass
