"""How evenly tenants are served, and how long tasks wait."""

from __future__ import annotations

from collections.abc import Iterable

BACKLOGGED = 0.5
"""Share of a time in which a task of a tenant waited, from which on the tenant counts as backlogged."""
MAX_PAIRS = 1000
"""Pairs of tenant and priority that are counted apart in one `Served`; further ones count as those of `OTHERS`."""
OTHERS = "(others)"
MAX_PRIORITY = 10
"""Priorities beyond it, up or down, are counted with it."""


def jain_index(served: Iterable[float]) -> float:
    """Jain's index of what each of several got: 1 when all got the same, 1/n when one of n got everything, 1 for none.

    (Jain, Chiu and Hawe 1984, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
    Computer Systems".) It means something only of those that wanted more than they got: leave others out.
    """
    values = list(served)
    squares = sum(each * each for each in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


class Served:
    """What tenants got and how long their tasks waited, from ``began_ns`` on. Bounded, whatever clients send."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.longest_ns: dict[tuple[str, int], int] = {}
        """The longest wait of a task, by tenant and priority."""
        self._tenants: dict[str, list[int]] = {}
        """By tenant: its tokens, in how many ns a task of it waited, and until when that is counted."""

    def add(self, tenant: str, priority: int, received_ns: int, sent_ns: int, tokens: int) -> None:
        """Count a task that waited from ``received_ns`` to ``sent_ns`` and was answered with ``tokens``. Of a time in
        which several tasks of a tenant waited, what is told in the order of ``sent_ns`` is counted once; out of order,
        some of it may be missed."""
        if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            priority = MAX_PRIORITY if priority > 0 else -MAX_PRIORITY
        pair = (tenant, priority)
        longest = self.longest_ns.get(pair)
        if longest is None and len(self.longest_ns) >= MAX_PAIRS:
            tenant, pair = OTHERS, (OTHERS, 0)
            longest = self.longest_ns.get(pair)
        if longest is None or sent_ns - received_ns > longest:
            self.longest_ns[pair] = sent_ns - received_ns
        counts = self._tenants.get(tenant)
        if counts is None:
            counts = self._tenants[tenant] = [0, 0, self.began_ns]
        counts[0] += tokens
        if sent_ns > counts[2]:
            counts[1] += sent_ns - max(received_ns, counts[2])
            counts[2] = sent_ns

    def tokens(self) -> dict[str, int]:
        """What each tenant got."""
        return {tenant: tokens for tenant, (tokens, _, _) in self._tenants.items()}

    def backlogged(self, ended_ns: int) -> dict[str, int]:
        """The tokens of each tenant of which a task waited in at least half of the time up to ``ended_ns``."""
        span = ended_ns - self.began_ns
        return {
            tenant: tokens
            for tenant, (tokens, ns, _) in self._tenants.items()
            if tenant != OTHERS and span > 0 and ns >= BACKLOGGED * span
        }
