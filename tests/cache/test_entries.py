"""The book of what is kept: its bounds, whatever comes, and answers gathered from chunks of any form."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.caller import Caller
from anywire.canonical_body import NOT_OF_THE_ANSWER, canonical_members, canonical_text, question_of
from anywire.engine import Delta
from anywire.messages import Chunk
from anywire.submission import Submission
from anywire_service_cache.answers import Gathering, Room, decoded, encoded
from anywire_service_cache.asked import read_asked
from anywire_service_cache.config import CacheConfig
from anywire_service_cache.directives import Directives, read_directives
from anywire_service_cache.entries import ENTRY_BYTES, Entries, Entry

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "find", "remove", "wait", "clear"]),
        st.integers(0, 12),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 900),
    ),
    max_size=60,
)


@settings(max_examples=examples(40))
@given(STEPS)
def test_what_is_kept_stays_within_every_bound_and_is_what_was_added(steps: list[tuple[str, int, str, int]]) -> None:
    went: list[str] = []
    entries = Entries(5, 5 * ENTRY_BYTES, 50.0, lambda entry, why: went.append(f"{why} {entry.key!r}"))
    added: dict[bytes, Entry] = {}
    now = 1000.0
    for what, number, scope, size in steps:
        key = f"{scope}{number}".encode()
        if what == "add" and entries.fits(size + 8):
            entry = Entry(key, scope, "m", "", now, size, f"g{number % 3}".encode(), array("f", [1.0, 0.0]))
            entries.add(entry, now)
            added[key] = entry
            assert entries.find(key, now) is entry
        elif what == "find":
            found = entries.find(key, now)
            assert found is None or (found is added[key] and now - found.created < 50)
        elif what == "remove":
            entries.remove(key)
        elif what == "clear":
            for each in list(entries.matching(scope, "")):
                entries.remove(each.key)
            assert not list(entries.matching(scope, ""))
        else:
            now += number
        kept = list(entries.matching(None, ""))
        assert len(kept) == len(entries) <= 5
        assert entries.bytes == sum(each.total for each in kept) <= 5 * ENTRY_BYTES
        by_group = [each for group in range(3) for each in entries.of_group(f"g{group}".encode(), now, 100)]
        assert {each.key for each in by_group} == {each.key for each in entries.matching(None, "")}


def test_who_has_the_most_gives_way() -> None:
    went: list[bytes] = []
    entries = Entries(4, 10**6, 50.0, lambda entry, why: went.append(entry.key))
    for number in range(3):
        entries.add(Entry(b"a%d" % number, "a", "m", "", number, 1), 10)
    entries.find(b"a0", 10)
    entries.add(Entry(b"b0", "b", "m", "", 5, 1), 10)
    entries.add(Entry(b"b1", "b", "m", "", 6, 1), 10)
    assert went == [b"a1"]


TEXT = st.text(max_size=12)


@settings(max_examples=examples(60))
@given(st.lists(st.lists(TEXT, max_size=4), min_size=1, max_size=8), st.booleans())
def test_an_answer_gathered_from_any_chunks_is_the_text_that_was_given(
    pieces: list[list[str]], ends_apart: bool
) -> None:
    gathering, seq, found = Gathering(10_000, Room()), 0, None
    for at, deltas in enumerate(pieces):
        final = at == len(pieces) - 1 and not ends_apart
        found = gathering.add(
            Chunk("h", "t", 1, seq, tuple(deltas), final=final, finish_reason="stop" if final else "")
        )
        seq += len(deltas)
    if ends_apart:
        found = gathering.add(Chunk("h", "t", 1, seq, (), final=True, finish_reason="stop", usage="{}"))
    assert found is not None
    assert decoded(encoded(found)) == found
    assert "".join(each.text for each in found) == "".join("".join(each) for each in pieces)
    assert found[-1].finish_reason == "stop"
    assert gathering.is_plain


def test_an_answer_with_a_gap_of_two_attempts_or_without_an_end_is_not_kept() -> None:
    for chunks in (
        [Chunk("h", "t", 1, 0, ("a",)), Chunk("h", "t", 1, 2, ("c",), final=True)],
        [Chunk("h", "t", 1, 0, ("a",)), Chunk("h", "t", 2, 0, ("c",), final=True)],
        [Chunk("h", "t", 1, 0, ("a",))],
        [Chunk("h", "t", 1, 0, ("a" * 99,), final=True)],
        [Chunk("h", "t", 1, 0, ("a",), final=True, finish_reason="content_filter")],
        [Chunk("h", "t", 1, 0, ("a",), '{"choices":[],"anywire_fallback":{}}', final=True)],
    ):
        gathering = Gathering(50, Room())
        assert [gathering.add(each) for each in chunks] == [None] * len(chunks)


def test_more_than_text_is_kept_in_its_place() -> None:
    gathering = Gathering(1000, Room())
    assert gathering.add(Chunk("h", "t", 1, 0, ("a", "b"))) is None
    assert gathering.add(Chunk("h", "t", 1, 2, ("c",), '[{"x":1}]')) is None
    assert gathering.add(Chunk("h", "t", 1, 3, ("d",))) is None
    found = gathering.add(Chunk("h", "t", 1, 4, ("",), "[]", final=True, finish_reason="stop"))
    assert found == (Delta("ab"), Delta("c", '[{"x":1}]'), Delta("d"), Delta("", "[]", "stop"))
    assert not gathering.is_plain


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(60))
@given(st.dictionaries(TEXT | st.sampled_from(sorted(NOT_OF_THE_ANSWER)), JSON, max_size=5))
def test_the_canonical_form_is_the_same_for_the_same_and_keeps_what_counts(members: dict[str, object]) -> None:
    import json

    usual = canonical_members(json.dumps(members))
    other = canonical_members(json.dumps(dict(reversed(members.items())), indent=1, ensure_ascii=False))
    assert usual is not None
    assert other is not None
    text = canonical_text(usual)
    assert text is not None
    assert text == canonical_text(other)
    again = json.loads(text)
    assert again == {
        name: value for name, value in members.items() if value is not None and name not in NOT_OF_THE_ANSWER
    }


def test_no_text_is_too_strange_to_be_asked_about() -> None:
    for body in (
        "",
        "[]",
        "null",
        "3",
        "{",
        '{"a":1e999}',
        "[" * 5000,
        '{"n":' + "9" * 400 + "}",
        "\ud800",
        '{"a":"\\ud800"}',
    ):
        members = canonical_members(body)
        if members is not None:
            canonical_text(members)
            question_of(members)
        read_asked(Submission("chat", "m", body, caller=Caller("\ud800", "t\0")), CacheConfig(semantic={"model": "e"}))


def test_directives_are_those_of_the_header() -> None:
    assert read_directives("") == Directives()
    assert read_directives("No-Store") == Directives(no_store=True)
    assert read_directives('public, max-age=5, max-age="3"').max_age == 3
    assert read_directives("max-age=0").no_cache
    for nonsense in ("max-age=-1", "max-age=x", "max-age", "no_store", ",,,", "max-age=\u0663"):
        assert read_directives(nonsense) == Directives()


def test_names_of_agents_cannot_be_shifted_into_each_other() -> None:
    def key(prefer: tuple[str, ...], avoid: tuple[str, ...], tenant: str = "t") -> bytes:
        asked = read_asked(
            Submission("chat", "m", "{}", caller=Caller("", tenant), prefer=prefer, avoid=avoid), CacheConfig()
        )
        assert asked is not None
        return asked.key

    keys = {key(("a", "b"), ()), key(("a",), ("b",)), key((), ("a", "b")), key(("ab",), ()), key((), (), "ta")}
    assert len(keys) == 5


def test_answers_that_come_at_once_have_a_room_together_and_give_it_back() -> None:
    room = Room(most=1000)
    gatherings = [Gathering(10_000, room) for _ in range(3)]
    for at, each in enumerate(gatherings):
        assert each.add(Chunk("h", "t", 1, 0, ("x" * 400,))) is None
        assert each.unfit is (at == 2)
        assert room.taken <= room.most
    ended = gatherings[0].add(Chunk("h", "t", 1, 1, (), "", True, "stop"))
    assert ended is not None
    for each in [*gatherings, *gatherings]:
        each.close()
    assert room.taken == 0


def test_pieces_of_a_character_take_more_than_their_characters() -> None:
    room = Room(most=100_000)
    gathering = Gathering(1_000_000, room)
    seq = 0
    while not gathering.unfit:
        gathering.add(Chunk("h", "t", 1, seq, ("x",) * 10))
        seq += 10
    assert seq < 10_000
    assert room.taken == 0
