"""What a deliberation is in the bucket: a head, and the parts that it names. Written and read by pure functions.

Keys of the bucket::

    index.owner                      whose the bucket is
    index.NUMBER                     the head of one deliberation
    index.council-DIGEST             one council
    part.NUMBER.GENERATION.SERIAL.N  the Nth piece of one part
    beat                             the owner's sign of life

A part is written once, before the head that names it: a head that is there has all of its parts. What a head does not
name is not read. Small parts stand in the head itself. The texts of answers are parts of their own, so that a list
reads none. Once a deliberation has ended, its parts are written anew as few ones, of generation 1, and those of
generation 0 are removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from anywire_service_deliberation.question import Question, Rubric
from anywire_service_deliberation.record import Answer, Deliberation, Failure
from anywire_service_deliberation.store import tenant_of

OWNER, BEAT, INDEX, PARTS, COUNCIL = "index.owner", "beat", "index", "part", "council-"
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError, ValueError)
"""What reading raises for what is damaged."""

_KINDS: dict[str, type[Answer | Failure]] = {"answers": Answer, "failures": Failure, "late": Answer}
"""Members of a `Deliberation` that only grow."""
_NO_QUESTION = Question("", "", (), {}, Rubric("", ()))
_encode = msgspec.json.Encoder().encode


class Limits(NamedTuple):
    """Bytes of one piece, and of a part that stands in the head."""

    piece: int
    inline: int


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """A part outside of the head, in that many pieces."""

    serial: int
    pieces: int


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Entries that were written together: without the texts of answers, and those texts."""

    entries: Ref
    texts: Ref | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of each deliberation without reading it."""

    tenant: str
    id: str
    status: str
    roles: tuple[str, ...]
    submitted: float
    ended: float = 0.0
    expires: float = 0.0
    begun: bool = False
    """Whether its first parts are still being written: it was not added then."""


class Head(Summary, frozen=True, kw_only=True, omit_defaults=True):
    """``counts`` says how many entries of each kind ``batches`` have; ``serial`` is that of the next part. ``question``
    and ``rest`` are JSON objects, or each a `Ref`, which is an array."""

    generation: int = 0
    serial: int = 0
    question: msgspec.Raw = msgspec.Raw(b"null")
    rest: msgspec.Raw = msgspec.Raw(b"null")
    batches: tuple[Batch, ...] = ()
    counts: dict[str, int] = {}


class Plan(NamedTuple):
    """What is to be written: ``parts`` by key (below that of the deliberation) first, then ``head``; ``gone`` are
    filters of what may be removed then."""

    parts: dict[str, bytes]
    head: Head
    gone: tuple[str, ...] = ()


def first(state: Deliberation, limits: Limits) -> Plan:
    """Write a new one. Raises what msgspec raises for what cannot be kept."""
    return _Writing(state, limits, generation=0, serial=0).plan()


def later(head: Head, state: Deliberation, limits: Limits, serial: int) -> Plan:
    """Write a newer state of the one that ``head`` is of. ``serial`` is the first that no part has had, also none that
    was never finished."""
    if state.ended and not head.generation:
        plan = _Writing(state, limits, generation=1, serial=0).plan()
        return plan._replace(gone=("0.>",))
    return _Writing(state, limits, generation=head.generation, serial=max(serial, head.serial)).plan(head)


def whole(head: Head, read: Callable[[str], bytes], *, texts: bool = True) -> Deliberation:
    """What ``head`` and its parts (by key) say. Raises one of `UNREADABLE` for what is damaged."""

    def part(of: msgspec.Raw | Ref) -> bytes:
        ref = of if isinstance(of, Ref) else _ref(of)
        if ref is not None:
            return b"".join(read(key) for key in _keys(head.generation, ref))
        assert not isinstance(of, Ref)
        return bytes(of)

    found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for batch in head.batches:
        told = iter(msgspec.json.decode(part(batch.texts), type=list[str]) if texts and batch.texts else ())
        for kind, work, data in msgspec.json.decode(part(batch.entries), type=list[tuple[str, str, msgspec.Raw]]):
            entry: Any = msgspec.json.decode(data, type=_KINDS[kind])
            if texts and isinstance(entry, Answer):
                entry = msgspec.structs.replace(entry, text=next(told, ""))
            found[kind][work] = entry
    rest = msgspec.json.decode(part(head.rest), type=Deliberation)
    question = msgspec.json.decode(part(head.question), type=Question)
    return msgspec.structs.replace(rest, question=question, **found)


def needed(head: Head, *, texts: bool = True) -> list[str]:
    """The keys of the pieces that `whole` reads."""
    refs = [_ref(head.question), _ref(head.rest)]
    for batch in head.batches:
        refs += [batch.entries, batch.texts if texts else None]
    return [key for ref in refs if ref is not None for key in _keys(head.generation, ref)]


def head_bytes(head: Head) -> bytes:
    return _encode(head)


def read_head(data: bytes) -> Head:
    return msgspec.json.decode(data, type=Head)


def read_summary(data: bytes) -> Summary:
    return msgspec.json.decode(data, type=Summary)


def council_key(tenant: str, name: str) -> str:
    """The name of a council's key: names may have any characters, keys may not."""
    return COUNCIL + hashlib.sha256(f"{tenant}\0{name}".encode()).hexdigest()[:40]


def _ref(of: msgspec.Raw) -> Ref | None:
    """None for what stands in the head itself."""
    return msgspec.json.decode(of, type=Ref) if bytes(of).startswith(b"[") else None


def _keys(generation: int, ref: Ref) -> list[str]:
    return [f"{generation}.{ref.serial}.{number}" for number in range(ref.pieces)]


class _Writing:
    def __init__(self, state: Deliberation, limits: Limits, *, generation: int, serial: int) -> None:
        self._state, self._limits, self._generation, self._serial = state, limits, generation, serial
        self._parts: dict[str, bytes] = {}

    def plan(self, head: Head | None = None) -> Plan:
        """What comes after ``head``; all of it where there is none."""
        state, question = self._state, self._state.question
        gone: tuple[str, ...] = ()
        if head is not None and (replaced := _ref(head.rest)):
            gone = (f"{self._generation}.{replaced.serial}.>",)
        asked = head.question if head is not None else self._placed(_encode(question))
        rest = self._placed(_encode(msgspec.structs.replace(state, question=_NO_QUESTION, **_nothing())))
        batch = self._batch(head.counts if head is not None else {})
        before = head.batches if head is not None else ()
        return Plan(
            self._parts,
            Head(
                tenant=tenant_of(question.caller),
                id=question.id,
                status=state.status,
                roles=tuple(dict.fromkeys(member.role for member in question.members)),
                submitted=state.submitted,
                ended=state.ended,
                expires=state.expires,
                generation=self._generation,
                question=asked,
                rest=rest,
                batches=(*before, batch) if batch else before,
                counts={kind: len(getattr(state, kind)) for kind in _KINDS},
                serial=self._serial,
            ),
            gone,
        )

    def _batch(self, counts: dict[str, int]) -> Batch | None:
        """The entries that are new since there were so many."""
        entries: list[tuple[str, str, Answer | Failure]] = []
        texts: list[str] = []
        for kind in _KINDS:
            for work, entry in islice(getattr(self._state, kind).items(), counts.get(kind, 0), None):
                if isinstance(entry, Answer):
                    texts.append(entry.text)
                    entry = msgspec.structs.replace(entry, text="")
                entries.append((kind, work, entry))
        if not entries:
            return None
        return Batch(self._part(_encode(entries)), self._part(_encode(texts)) if texts else None)

    def _placed(self, data: bytes) -> msgspec.Raw:
        return msgspec.Raw(data if len(data) <= self._limits.inline else _encode(self._part(data)))

    def _part(self, data: bytes) -> Ref:
        pieces = list(_pieces(data, self._limits.piece))
        ref = Ref(self._serial, len(pieces))
        self._serial += 1
        self._parts |= zip(_keys(self._generation, ref), pieces, strict=True)
        return ref


def _pieces(data: bytes, most: int) -> Iterator[bytes]:
    return (data[at : at + most] for at in range(0, len(data), most))


def _nothing() -> dict[str, Any]:
    return {kind: {} for kind in _KINDS}
