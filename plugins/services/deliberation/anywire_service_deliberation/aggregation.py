"""From scores to a ranking: deterministic, the same for any names and order of members."""

from __future__ import annotations

from collections.abc import Mapping

from anywire_service_deliberation.question import Aggregation
from anywire_service_deliberation.record import Ranked

Scores = Mapping[str, Mapping[str, float]]
"""By judge, by the one judged. Nobody judges oneself; any may be missing."""


def ranked(scores: Scores, members: tuple[str, ...], by: Aggregation, *, middle: float) -> tuple[Ranked, ...]:
    """All of ``members`` that were scored, the best first. Ties: by the mean, then the median, then the most wins head
    to head, then the place in ``members``, which is the order in which the question names them."""
    raise NotImplementedError
