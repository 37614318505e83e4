"""A ring of agents for consistent hashing: most keys keep their agent when others come and go."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator

POINTS = 8
"""Places of each agent on the ring, from one digest of 64 bytes."""


class HashRing:
    """Method: D. Karger et al., "Consistent Hashing and Random Trees", STOC 1997. The order depends on nothing but the
    ids, so that two orchestrators with the same agents agree."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._places: list[int] = []
        self._agents: list[str] = []
        """Whose each place is."""

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._ids

    def add(self, agent_ids: Iterable[str]) -> None:
        """Add those that are not there. Many at once are added quicker than one after the other."""
        new = [agent_id for agent_id in agent_ids if agent_id not in self._ids]
        self._ids.update(new)
        points = [(point, agent_id) for agent_id in new for point in _points(agent_id)]
        if len(new) > POINTS:
            self._set(sorted([*zip(self._places, self._agents, strict=True), *points]))
            return
        for point, agent_id in points:
            at = bisect_left(self._places, point)
            self._places.insert(at, point)
            self._agents.insert(at, agent_id)

    def keep(self, agent_ids: Iterable[str]) -> None:
        """Remove all others."""
        kept = self._ids.intersection(agent_ids)
        if len(kept) < len(self._ids):
            self._ids = kept
            self._set([each for each in zip(self._places, self._agents, strict=True) if each[1] in kept])

    def walk(self, key: int) -> Iterator[str]:
        """The ids from the place of ``key`` (64 bits) on, each once."""
        agents, seen = self._agents, set[str]()
        start = bisect_left(self._places, key)
        for at in range(start - len(agents), start):
            agent_id = agents[at]
            if agent_id not in seen:
                seen.add(agent_id)
                yield agent_id

    def _set(self, points: list[tuple[int, str]]) -> None:
        self._places = [place for place, _ in points]
        self._agents = [agent_id for _, agent_id in points]


def _points(agent_id: str) -> Iterator[int]:
    digest = hashlib.blake2b(agent_id.encode(errors="surrogatepass"), digest_size=8 * POINTS).digest()
    return (int.from_bytes(digest[at : at + 8]) for at in range(0, len(digest), 8))
