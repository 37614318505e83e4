"""Deliberations as heads and parts: what is read is what was written, whatever its size and whatever was cut off."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_service_deliberation.record import Answer, Deliberation, Failure
from anywire_service_deliberation.testing.store_kit import ended, full, new, with_answers
from anywire_service_nats import kv_form
from anywire_service_nats.kv_bucket import is_too_old
from anywire_service_nats.kv_form import Head, Limits, Plan

texts = st.text(max_size=60)
works = st.sampled_from([f"proposal/0/member-{number}" for number in range(1, 6)])
limits = st.builds(Limits, piece=st.integers(1, 80), inline=st.sampled_from([0, 50, 1000, 100_000]))


@st.composite
def growing(draw: st.DrawFn) -> list[Deliberation]:
    """States as they follow each other: what is there is never changed."""
    state, found = new(task=draw(texts)), []
    for number in range(draw(st.integers(1, 6))):
        for part in ("answers", "late", "failures"):
            for work in draw(st.lists(works, max_size=2)):
                entry = Failure("late", draw(texts)) if part == "failures" else Answer(draw(texts))
                had = getattr(state, part)
                state = msgspec.structs.replace(state, **{part: {**had, work: had.get(work, entry)}})
        state = msgspec.structs.replace(state, dropped=number, reason=draw(texts))
        if state.ended == 0 and draw(st.integers(0, 3)) == 0:
            state = ended(state)
        found.append(state)
    return found


class Keys(dict[str, bytes]):
    """A bucket's keys of one deliberation."""

    def write(self, plan: Plan, parts: int | None = None) -> Head:
        """All of it; or that many parts alone."""
        some = list(plan.parts.items())[:parts]
        for key, data in some:
            assert self.get(key) in (None, data) or parts is not None, "a part that is named is written once"
        self.update(some)
        return kv_form.read_head(kv_form.head_bytes(plan.head))

    def remove(self, filters: tuple[str, ...]) -> None:
        for key in list(self):
            if any(fnmatchcase(key, each.replace(">", "*")) for each in filters):
                del self[key]

    def same(self, head: Head, state: Deliberation) -> None:
        assert kv_form.whole(head, self.__getitem__) == state
        assert set(kv_form.needed(head)) <= set(self)
        for part in ("answers", "late", "failures"):
            assert list(getattr(kv_form.whole(head, self.__getitem__), part)) == list(getattr(state, part))


@given(growing(), limits, st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_state_is_read_as_it_was_written_also_after_writes_that_were_cut_off(
    states: list[Deliberation], bounds: Limits, data: st.DataObject
) -> None:
    keys = Keys()
    head = keys.write(kv_form.first(states[0], bounds))
    keys.same(head, states[0])
    serial = head.serial
    for before, state in pairwise(states):
        cut = kv_form.later(head, state, bounds, serial)
        if data.draw(st.booleans()):  # a write that was not finished, or whose head did not arrive
            keys.write(cut, data.draw(st.integers(0, len(cut.parts))))
            keys.same(head, before)
            in_one_life = data.draw(st.booleans())
            serial = cut.head.serial if in_one_life and cut.head.generation == head.generation else serial
        plan = kv_form.later(head, state, bounds, serial)
        for key, piece in plan.parts.items():
            keys[key] = piece
        keys.same(head, before)
        head = keys.write(plan)
        keys.same(head, state)
        keys.remove(plan.gone)
        keys.same(head, state)
        serial = head.serial
    assert kv_form.read_summary(kv_form.head_bytes(head)).id == states[-1].question.id


@given(growing(), limits)
@settings(max_examples=examples(30), deadline=None)
def test_a_list_reads_no_texts(states: list[Deliberation], bounds: Limits) -> None:
    plan = kv_form.first(states[-1], bounds)
    without = kv_form.needed(plan.head, texts=False)
    found = kv_form.whole(plan.head, {key: plan.parts[key] for key in without}.__getitem__, texts=False)
    for part in ("answers", "late"):
        told = {work: msgspec.structs.replace(each, text="") for work, each in getattr(states[-1], part).items()}
        assert getattr(found, part) == told
    assert msgspec.structs.replace(found, answers={}, late={}) == msgspec.structs.replace(
        states[-1], answers={}, late={}
    )


def test_what_has_ended_is_few_parts() -> None:
    bounds = Limits(1000, 100_000)
    head = kv_form.first(new(), bounds).head
    for count in range(1, 40):
        head = kv_form.later(head, with_answers(new(), count), bounds, head.serial).head
    assert len(head.batches) == 39
    plan = kv_form.later(head, ended(with_answers(new(), 39)), bounds, head.serial)
    assert (len(plan.head.batches), plan.gone) == (1, ("0.>",))
    late = msgspec.structs.replace(ended(full(with_answers(new(), 39))), dropped=7)
    assert kv_form.later(plan.head, late, bounds, plan.head.serial).gone == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b'"batches"', b'"batches": 3, "x"'),
        lambda _: b"\xff\xfe",
        lambda _: b"[" * 10_000,
    ],
)
def test_what_is_damaged_is_known_to_be(damage: Callable[[bytes], bytes]) -> None:
    data = kv_form.head_bytes(kv_form.first(full(new()), Limits(1000, 100_000)).head)
    with pytest.raises(kv_form.UNREADABLE):
        kv_form.read_head(damage(data))


def test_keys_have_only_characters_that_keys_may_have() -> None:
    for name in ("", "a b", "\n", ">", "*.>", "\U0001f600", "x" * 5000):
        key = kv_form.council_key(name, name)
        assert key.replace("-", "").isalnum()
        assert len(key) < 64
    assert kv_form.council_key("a", "b") != kv_form.council_key("a\0b", "")


@pytest.mark.parametrize(
    ("version", "old"), [("2.10.29", True), ("1.4", True), ("2.11.0", False), ("2.15.1", False), ("", False)]
)
def test_servers_that_know_no_fence_are_too_old(version: str, old: bool) -> None:
    assert is_too_old(version) is old
