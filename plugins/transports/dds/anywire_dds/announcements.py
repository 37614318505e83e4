"""Who of the other end is there: the registrations on one topic, as arrivals and departures of lives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from anywire_dds.cdr import Codec, Malformed
from anywire_dds.endpoints import ALIVE, DISPOSED

log = logging.getLogger(__name__)


class _HasIncarnation(Protocol):
    @property
    def incarnation(self) -> int: ...


_Info = TypeVar("_Info", bound=_HasIncarnation)


class Announcements(Generic[_Info]):
    """Turns samples of a registration topic into ``arrived(info)`` and ``departed(name, incarnation, reason)``.

    Of several lives under one name the one that appeared last counts; one that another has replaced does not come
    back while that one is there (an old process may be paused and return).
    """

    def __init__(
        self,
        codec: Codec,
        key_type: Any,
        name_of: Callable[[_Info], str],
        to_info: Callable[[tuple[Any, ...]], _Info],
        arrived: Callable[[_Info], None],
        departed: Callable[[str, int, str], None],
    ) -> None:
        self._codec, self._key_type, self._name_of, self._to_info = codec, key_type, name_of, to_info
        self._arrived, self._departed = arrived, departed
        self._lives: dict[str, dict[int, tuple[_Info, int]]] = {}
        """By name and incarnation: who it is, and the generation of its DDS instance. The last one counts."""

    def process(self, samples: list[Any]) -> None:
        for data, sample in samples:
            generation = sample.disposed_generation_count + sample.no_writers_generation_count
            if sample.valid_data:
                try:
                    info = self._to_info(self._codec.unpack(data))
                except Malformed as error:
                    log.warning("unreadable registration ignored: %s", error)
                    continue
                name, life = self._name_of(info), info.incarnation
                known = self._lives.get(name, {}).get(life)
                if known is not None and known[1] != generation:
                    self._leave(name, life, "it was away for a moment")
                if sample.instance_state == ALIVE:
                    self._enter(name, life, info, generation)
                    continue
            else:
                key = self._key_type.deserialize_key(data)
                name, life = getattr(key, "agent_id", "") or getattr(key, "hub_id", ""), key.incarnation
            self._leave(name, life, self._reason(name, life, sample.instance_state))

    def _reason(self, name: str, life: int, state: int) -> str:
        if state == DISPOSED:
            return "closed"
        known = self._lives.get(name, {}).get(life)
        return f"no sign of life within its lease of {getattr(known[0], 'lease_ms', 0)} ms" if known else "gone"

    def _enter(self, name: str, life: int, info: _Info, generation: int) -> None:
        lives = self._lives.setdefault(name, {})
        if life in lives:
            return
        current = next(reversed(lives)) if lives else None
        if current is not None:
            log.warning("%s is there twice: incarnation %s replaces %s", name, life, current)
            self._departed(name, current, f"replaced by incarnation {life}")
        lives[life] = (info, generation)
        self._arrived(info)

    def _leave(self, name: str, life: int, reason: str) -> None:
        lives = self._lives.get(name, {})
        if life not in lives:
            return
        was_current = next(reversed(lives)) == life
        del lives[life]
        if not lives:
            del self._lives[name]
        if was_current:
            self._departed(name, life, reason)
            if lives:
                self._arrived(lives[next(reversed(lives))][0])
