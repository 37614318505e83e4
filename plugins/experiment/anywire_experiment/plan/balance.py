"""Orders of things over blocks that are balanced, and how even given ones are.

Each thing stands at each place of a block equally often, and each comes directly after each other one equally often
(Williams 1949, "Experimental designs balanced for the estimation of residual effects of treatments"). So what the
place does, being first for one, or what ran before leaves behind, falls on all alike, and can be told apart from them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec


class Balance(msgspec.Struct, frozen=True):
    """How even the orders of ``blocks`` blocks of ``count`` things are. ``first``, ``place`` and ``after`` are each the
    least and the most: of how often a thing is first in a block, stands at one place, comes directly after one other
    thing. A design is complete when both are the same in all three."""

    count: int
    blocks: int
    first: list[int]
    place: list[int]
    after: list[int]

    @property
    def is_complete(self) -> bool:
        return all(least == most for least, most in (self.first, self.place, self.after))

    def told(self, what: str = "arm") -> str:
        """In a sentence; ``what`` is the singular of what is ordered."""
        if self.count < 2:
            return f"there is one {what}, so there is no order"
        said = (
            f"each {what} is first in {_times(self.first)} and stands at each other place in {_times(self.place)} of "
            f"{self.blocks} blocks, and comes directly after each other {what} in {_times(self.after)}"
        )
        if self.is_complete:
            return f"the order is balanced: {said}"
        return f"the order is not wholly balanced, which takes a multiple of {period(self.count)} whole blocks: {said}"


def period(count: int) -> int:
    """Blocks after which the orders of ``count`` things are completely balanced."""
    return count if count % 2 == 0 or count == 1 else 2 * count


def balanced_order(seed: str, count: int, turn: int) -> list[int]:
    """The order of ``count`` things, as numbers from 0, in the block ``turn``, counted from 0.

    Every ``count`` turns are a Latin square, in which each thing stands at each place once; with an even number it is
    a Williams square, in which each also follows each other once. With an odd number that takes two squares, of
    which the second has the steps of the first with the other sign. Names and rows are drawn anew for each design, so
    every order is as probable as every other. The orders of fewer blocks are the first ones of more.
    """
    squares = period(count) // count
    design, within = divmod(turn, period(count))
    square, row = divmod(within, count)
    drawn = random.Random(f"{seed}/design {design}")
    names = drawn.sample(range(count), count)
    rows = [drawn.sample(range(count), count) for _ in range(squares)][square]
    sign = 1 if square == 0 else -1
    return [names[(rows[row] + sign * step) % count] for step in _steps(count)]


def balance_of(orders: Sequence[Sequence[str]], names: Sequence[str]) -> Balance:
    """How even ``orders`` are, one of each block; one in which things are missing counts for those that are there."""
    count = len(names)
    places = Counter((name, at) for order in orders for at, name in enumerate(order))
    after = Counter(pair for order in orders for pair in pairwise(order))
    return Balance(
        count,
        len(orders),
        _least_and_most([places[name, 0] for name in names]),
        _least_and_most([places[name, at] for name in names for at in range(count)]),
        _least_and_most([after[one, other] for one in names for other in names if one != other]),
    )


def _steps(count: int) -> list[int]:
    """0, 1, -1, 2, -2, …: the differences of neighbours, modulo an even ``count``, are all different."""
    return [(at + 1) // 2 * (1 if at % 2 else -1) for at in range(count)]


def _least_and_most(counts: Sequence[int]) -> list[int]:
    return [min(counts, default=0), max(counts, default=0)]


def _times(bounds: Sequence[int]) -> str:
    least, most = bounds
    return f"{least}" if least == most else f"{least} to {most}"
