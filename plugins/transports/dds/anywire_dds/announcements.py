"""Who of the other end is there: the registrations on one topic, as arrivals and departures of lives."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from anywire_dds.cdr import Codec, Malformed
from anywire_dds.endpoints import ALIVE, DISPOSED
from anywire_dds.hearing import Unheard
from anywire_dds.log_once import LogOnce
from anywire_dds.older_binding import read_key
from anywire_dds.signed import Unproven, public_of

log = logging.getLogger(__name__)

MAX_LIVES = 4096
"""Registrations kept at a time on one topic."""

MAX_LIVES_OF_PARTICIPANT = 1024
"""Of these, made by one DDS participant (one process, as a rule)."""

MAX_LIVES_OF_NAME = 8
"""Of these, under one id: two of them are a restart, more are a mistake."""

MAX_REGISTRATION_BYTES = 64 * 1024
"""Size of one registration as it travels."""


class _HasIncarnation(Protocol):
    @property
    def incarnation(self) -> int: ...

    @property
    def proof(self) -> str: ...


_Info = TypeVar("_Info", bound=_HasIncarnation)


class _Life(NamedTuple):
    info: Any
    generation: int
    """Of the DDS instance: another one means that it was gone in between."""
    participant: str | None


class Announcements(Generic[_Info]):
    """Turns samples of a registration topic into calls, for each life (id and incarnation) by itself:
    ``arrived(name, info, participant)`` and ``departed(name, incarnation, reason)``.

    ``participant_of`` gives the DDS participant of a writer by its handle, ``protocol_of`` the version of the messages
    that a participant's ends speak. No more lives are kept than the bounds
    above allow; a registration over them is ignored and logged once for its participant. A life is forgotten when DDS
    says that its registration has ended. ``unheard`` is told of the participants that fell silent, and that are there
    again. ``departing`` is called with all lives that have ended, when there are
    several, before the first of them has departed.

    For an end with an identity, ``registered(info, sample, writer)`` gives ``info`` with the proof that the writer with
    this handle shows, without one where it shows none, and raises `Unproven` for a proof that is none. A life with a
    proof takes the place of the same one without, and counts by itself in the bound of its id.
    """

    def __init__(
        self,
        codec: Codec,
        key_type: Any,
        name_of: Callable[[_Info], str],
        to_info: Callable[[tuple[Any, ...], str], _Info],
        participant_of: Callable[[int], str | None],
        protocol_of: Callable[[str | None], str],
        arrived: Callable[[str, _Info, str | None], None],
        departed: Callable[[str, int, str], None],
        unheard: Unheard,
        departing: Callable[[list[tuple[str, int]]], None] | None = None,
        registered: Callable[[_Info, bytes, int], _Info] | None = None,
    ) -> None:
        self._codec, self._key_type, self._name_of, self._to_info = codec, key_type, name_of, to_info
        self._participant_of, self._protocol_of = participant_of, protocol_of
        self._arrived, self._departed, self._departing = arrived, departed, departing
        self._unheard, self._registered = unheard, registered
        self._lives: dict[tuple[str, int], _Life] = {}
        self._names: Counter[tuple[str, str]] = Counter()
        self._participants: Counter[str | None] = Counter()
        self._faults = LogOnce(log)

    def __len__(self) -> int:
        """How many lives are known."""
        return len(self._lives)

    def process(self, samples: list[Any]) -> None:
        """Take in what was read; a sample that cannot be processed does not affect the others."""
        if self._departing is not None and sum(not sample.valid_data for _, sample in samples) > 1:
            keys = (self._key(data) for data, sample in samples if not sample.valid_data)
            self._departing([key for key in keys if key is not None])
        for data, sample in samples:
            try:
                self._process(data, sample)
            except Exception:
                self._faults.warning("failed", "a registration could not be processed", exc_info=True)

    def _process(self, data: bytes, sample: Any) -> None:
        if not sample.valid_data:
            if (key := self._key(data)) is not None:
                if sample.instance_state != DISPOSED and (silent := self._lives.get(key)) is not None:
                    self._unheard.lost(silent.participant)
                self._remove(*key, self._reason(*key, sample.instance_state))
            return
        participant = self._participant_of(sample.publication_handle)
        if len(data) > MAX_REGISTRATION_BYTES:
            self._faults.warning(participant, "a registration of %d bytes is ignored", len(data))
            return
        try:
            info = self._to_info(self._codec.unpack(data), self._protocol_of(participant))
        except Malformed as error:
            self._faults.warning(participant, "an unreadable registration is ignored: %s", error)
            return
        name, incarnation = self._name_of(info), info.incarnation
        generation = sample.disposed_generation_count + sample.no_writers_generation_count
        known = self._lives.get((name, incarnation))
        if known is not None and known.generation != generation:
            self._remove(name, incarnation, "it was away for a moment")
        if sample.instance_state != ALIVE:
            self._remove(name, incarnation, self._reason(name, incarnation, sample.instance_state))
        else:
            self._present(name, _Life(info, generation, participant), data, sample.publication_handle)

    def _present(self, name: str, life: _Life, data: bytes, writer: int) -> None:
        """This one is there: take it in, unless that was done."""
        known = self._lives.get((name, life.info.incarnation))
        if known is not None and (self._registered is None or known.info.proof):
            return
        if self._registered is not None:
            try:
                life = life._replace(info=self._registered(life.info, data, writer))
            except Unproven as reason:
                self._faults.warning(("proof", name, life.info.incarnation), "the registration of %r %s", name, reason)
                return
        if known is None:
            self._add(name, life)
        elif life.info.proof:
            self._remove(name, life.info.incarnation, "another one shows that the name is its own")
            self._add(name, life)

    def _key(self, data: bytes) -> tuple[str, int] | None:
        """Whose registration it was; None of one that was never readable, and so never taken in."""
        try:
            key = read_key(self._key_type, data)
        except Exception:  # whatever the library makes of bytes that are none
            return None
        return getattr(key, "agent_id", "") or getattr(key, "hub_id", ""), key.incarnation

    def _reason(self, name: str, incarnation: int, state: int) -> str:
        if state == DISPOSED:
            return "closed"
        known = self._lives.get((name, incarnation))
        return f"no sign of life within its lease of {getattr(known.info, 'lease_ms', 0)} ms" if known else "gone"

    def _add(self, name: str, life: _Life) -> None:
        named = (name, public_of(life.info.proof))
        full = (
            len(self._lives) >= MAX_LIVES
            or self._names[named] >= MAX_LIVES_OF_NAME
            or self._participants[life.participant] >= MAX_LIVES_OF_PARTICIPANT
        )
        if full or not name:
            self._faults.warning(
                ("full", life.participant), "the registration of %r is ignored: there are %d, %d of this id, "
                "%d of its participant %s",
                name, len(self._lives), self._names[named], self._participants[life.participant], life.participant,
            )  # fmt: skip
            return
        self._lives[name, life.info.incarnation] = life
        self._names[named] += 1
        self._participants[life.participant] += 1
        self._unheard.found(life.participant)
        self._arrived(name, life.info, life.participant)

    def _remove(self, name: str, incarnation: int, reason: str) -> None:
        life = self._lives.pop((name, incarnation), None)
        if life is None:
            return
        _take_one(self._names, (name, public_of(life.info.proof)))
        _take_one(self._participants, life.participant)
        self._departed(name, incarnation, reason)


_Key = TypeVar("_Key")


def _take_one(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
