"""What each program that runs models on a machine may take of its memory: rules without effects.

A budget that is a share (``80%``) is of the whole machine, so the programs that have one divide it equally. A budget in
bytes is what somebody has decided for one program: it has that, and the others divide the rest of their share.

A program may take what it has been *granted*, and no more. It changes its own grant only, and sees those of the others
while it does, which change theirs meanwhile not. So it may take at once what others have not been granted, and
gets the rest of its fair part when these have given it back: they lower their grant when they learn of it, though never
below what their models take. At every moment all grants of shares together are at most the largest share that there has
been.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec


class Claim(msgspec.Struct, frozen=True):
    """One program's. ``wish`` are the bytes that its setting gives it if it is alone, ``granted`` those that its models
    may take now. ``is_share``: the setting is a share of the machine. ``id`` is no other one's."""

    id: str
    pid: int
    wish: int
    granted: int = 0
    is_share: bool = True


def fair(own: Claim, others: Collection[Claim]) -> int:
    """The bytes that ``own`` has once all others have given back what is beyond their part."""
    if not own.is_share:
        return own.wish
    sharing = sum(each.is_share for each in others) + 1
    return max(0, own.wish - _decided(others)) // sharing


def grant(own: Claim, others: Collection[Claim], used: int) -> int:
    """The bytes that ``own`` may take now, with models there that take ``used``."""
    if not own.is_share:
        return own.wish
    whole = max(own.wish, *[each.wish for each in others if each.is_share], 0)
    left = whole - sum(each.granted for each in others)
    return max(used, min(fair(own, others), left))


def _decided(claims: Collection[Claim]) -> int:
    return sum(each.wish for each in claims if not each.is_share)
