"""What is known of prompt caches, held against a list of all prompts."""

from __future__ import annotations

from itertools import accumulate

from anywire_selectors.held_prompts import MAX_HOLDERS, HeldPrompt, HeldPrompts
from hypothesis import given
from hypothesis import strategies as st

BLOCKS = st.lists(st.booleans(), min_size=1, max_size=5)
STEPS = st.lists(st.tuples(BLOCKS, st.integers(0, MAX_HOLDERS), st.booleans()), max_size=40)


def prefix_of(blocks: list[bool]) -> tuple[int, ...]:
    """Each block's number stands for all before it too, as the hashes of a prompt do."""
    return tuple(accumulate(blocks, lambda before, block: 2 * before + block, initial=1))[1:]


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=False))


@given(STEPS)
def test_the_longest_match_is_found_first_and_of_equals_the_one_used_last(
    steps: list[tuple[list[bool], int, bool]],
) -> None:
    held, known = HeldPrompts(10_000), list[HeldPrompt]()
    for number, (blocks, which, ends) in enumerate(steps):
        prefix = prefix_of(blocks)
        if which < len(known) and ends:
            # The task of one of them fails: what it left is unknown.
            gone = known.pop(which)
            held.end(gone.task_id, gone.agent_id, True)
        elif which < len(known):
            # The same prompt once more, in the same place.
            again = known.pop(which)
            held.put(f"task{number}", again.agent_id, 1, again.prefix, 100, again)
            known.append(again)
        elif len(known) < MAX_HOLDERS:
            held.put(f"task{number}", "agent", 1, prefix, 100, None)
            known.append(next(each for _, each in held.matches(prefix, 1) if each not in known))
        for least in (1, 3):
            expected = [(common(prefix, each.prefix), each) for each in reversed(known)]
            expected = [each for each in expected if each[0] >= least]
            expected.sort(key=lambda each: -each[0])
            assert list(held.matches(prefix, least)) == expected
        assert held.count("agent", 1) == len(known)
    for each in known.copy():
        held.remove(each)
    assert not held._by_block
    assert not held._of_task
