"""What one direction of a link does to frames: loss, bandwidth, delay and jitter, in that order."""

from __future__ import annotations

import random

from anywire_experiment.plan.network import Network

QUEUE_NS = 200_000_000
"""How much traffic waits before a narrow link: as much as it carries in 0.2 s; what comes on top is lost."""


class Direction:
    """When frames that enter one end leave the other. Frames never overtake each other."""

    def __init__(self, network: Network, seed: int) -> None:
        self._delay = network.delay_ms * 1e6
        self._jitter = network.jitter_ms * 1e6
        self.loss = network.loss
        """Share of the frames that are lost."""
        self._ns_per_byte = 8e3 / network.bandwidth_mbit if network.bandwidth_mbit else 0.0
        self._random = random.Random(seed)
        self._line_free = self._last = 0.0

    def leaves(self, now_ns: int, size: int) -> int | None:
        """When a frame of ``size`` bytes that enters now leaves, None when it is lost. Jitter is uniform within plus
        and minus its value, as netem's is."""
        if self.loss and self._random.random() < self.loss:
            return None
        at = float(now_ns)
        if self._ns_per_byte:
            starts = max(at, self._line_free)
            if starts - at > QUEUE_NS:
                return None
            at = self._line_free = starts + size * self._ns_per_byte
        at += max(0.0, self._delay + self._random.uniform(-self._jitter, self._jitter))
        self._last = max(at, self._last)
        return int(self._last)
