"""When a bucket may be taken, and what its owner knows of it."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_service_nats.kv_form import Head
from anywire_service_nats.kv_index import Entry, Index
from anywire_service_nats.kv_ownership import BEATS, Watch

LEASE = 8.0

# Whose a bucket is


@given(st.lists(st.floats(0.05, LEASE / BEATS + 0.5), min_size=1, max_size=200), st.floats(0.1, LEASE / 2))
@settings(max_examples=examples(60), deadline=None)
def test_an_owner_that_gives_signs_of_life_is_never_dead(pauses: list[float], each: float) -> None:
    """Whenever it gives them, within its lease, and whenever one looks."""
    beats, now = [0.0], 0.0
    for pause in pauses:
        now += pause
        beats.append(now)
    watch, at = Watch(), 0.0
    while at < beats[-1]:
        beat = sum(moment <= at for moment in beats)
        assert not watch.is_dead(1, beat, LEASE, at)
        at += each


@given(st.floats(0.05, LEASE / 2), st.floats(0, 1000))
@settings(max_examples=examples(60), deadline=None)
def test_one_that_gives_none_is_dead_after_its_lease_and_one_look_more(each: float, began: float) -> None:
    watch, now = Watch(), began
    while not watch.is_dead(1, 7, LEASE, now):
        now += each
    assert LEASE <= now - began + 1e-6 < LEASE + each + 1e-3


def test_time_in_which_nothing_could_be_seen_does_not_count() -> None:
    watch = Watch()
    assert not watch.is_dead(1, 7, LEASE, 0)
    assert not watch.is_dead(1, 7, LEASE, LEASE / 2)
    assert not watch.is_dead(1, 7, LEASE, 100), "it stood still itself"
    assert not watch.is_dead(1, 7, LEASE, 100 + LEASE / 2)
    watch.forget()
    for at in (100, 103, 106, 109):
        assert not watch.is_dead(1, 7, LEASE, at + LEASE), "the servers were away, and the owner finds them later"
    assert watch.is_dead(1, 7, LEASE, 111 + LEASE)
    for at in (112, 116):
        assert not watch.is_dead(2, 7, LEASE, at + LEASE), "there is another owner"
    assert watch.is_dead(2, 7, LEASE, 120 + LEASE)


# What its owner knows

heads = st.builds(
    Head,
    tenant=st.sampled_from("ab"),
    id=st.sampled_from("xyz"),
    status=st.sampled_from(["completed", "generating"]),
    roles=st.sampled_from([("DEV",), ("QA", "DEV")]),
    submitted=st.integers(0, 5).map(float),
    ended=st.sampled_from([0.0, 1.0, 2.0, 3.0]),
    expires=st.sampled_from([5.0, 9.0]),
)


@given(st.lists(heads, max_size=12), st.integers(0, 4), st.sampled_from([4.0, 5.0, 9.0]))
@settings(max_examples=examples(100), deadline=None)
def test_it_finds_what_was_put(found: list[Head], most: int, now: float) -> None:
    index = Index()
    entries: dict[tuple[str, str], Entry] = {}
    for number, head in enumerate(found):
        if (before := entries.get((head.tenant, head.id))) is not None:
            index.drop(before)
        entry = Entry(f"{number:04}", head, number, head, kept=True)
        index.put(entry)
        entries[entry.key] = entry
    assert len(index) == len(entries)
    for key, entry in entries.items():
        assert index.at(key) is index.find(*key) is entry
        newest = max((each for each in entries.values() if each.summary.id == key[1]), key=lambda each: each.number)
        assert index.find(None, key[1]) is newest
    listed = index.listed("a", "", "QA", 2)
    wanted = [each for each in entries.values() if each.summary.tenant == "a" and "QA" in each.summary.roles]
    wanted.sort(key=lambda each: (each.summary.submitted, each.number), reverse=True)
    assert listed == wanted[:2]
    gone = index.expired(now, most)
    over = [each for each in entries.values() if each.summary.ended]
    assert {each.number for each in over if each.summary.expires <= now} <= {each.number for each in gone}
    assert len(over) - len(gone) <= most
    assert all(each in over for each in gone)
    assert len({each.number for each in gone}) == len(gone)
    for each in list(entries.values()):
        index.drop(each)
    assert (len(index), index.listed(None, "", "", 9), index.find(None, "x")) == (0, [], None)


def test_what_is_in_doubt_is_not_shown() -> None:
    index = Index()
    head = Head(tenant="a", id="x", status="submitted", roles=(), submitted=1.0)
    index.put(entry := Entry("1", head, 0, None, kept=False))
    assert (index.find("a", "x"), index.listed(None, "", "", 9), index.unfinished()) == (None, [], [])
    assert index.doubtful() == [entry]
    entry.written(msgspec.structs.replace(head, serial=4), 9)
    assert (index.find("a", "x"), index.doubtful(), entry.revision) == (entry, [], 9)
