"""What the service offers to gateways and other services: `Context.services.get("deliberation")`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from anywire.caller import Caller
from anywire.deliberation_terms import Update as Update
from anywire.errors import InvalidRequest
from anywire_service_deliberation.question import Question
from anywire_service_deliberation.record import Deliberation

LONGEST_WAIT = 60.0
"""Seconds that `Deliberations.get` waits at most; who asks for more gets this."""
MAX_LISTED = 1000
"""Deliberations of one list at most."""


class Council(msgspec.Struct, frozen=True):
    """Members kept under a name. ``in_use`` counts deliberations of it under way."""

    name: str
    role: str
    members: tuple[dict[str, Any], ...]
    rounds: int = 1
    rubric: str = ""
    created: float = 0.0
    in_use: int = 0
    metadata: dict[str, Any] = {}


def not_known(question_id: str) -> InvalidRequest:
    """The error for a deliberation that is none of the caller's."""
    return InvalidRequest(
        f"there is no deliberation {question_id[:128]!r} (any more)",
        status=404,
        detail_code="deliberation_not_found",
    )


class Deliberations(Protocol):
    """All errors are those of `anywire.errors`: `InvalidRequest` says the member at fault."""

    def question(self, request: Mapping[str, Any], caller: Caller) -> Question:
        """A request as REST has it (id?, task, role?, members, rounds, rubric, requirements, quorum, timeout,
        aggregation, synthesis, council?, max_tokens, metadata), checked and completed."""
        ...

    async def submit(self, question: Question) -> Deliberation:
        """Take it in: stored when this returns. The same id and request again is the same deliberation; the same id
        with another request raises `InvalidRequest`. Raises `QueueFull` when too many are under way."""
        ...

    async def get(self, question_id: str, caller: Caller, wait: float = 0.0) -> Deliberation | None:
        """As it is now, or once it has ended within ``wait`` seconds (`LONGEST_WAIT` at most); None for one that is
        not known to the caller's tenant."""
        ...

    async def list(
        self, caller: Caller, *, status: str = "", role: str = "", limit: int = 100
    ) -> Sequence[Deliberation]:
        """The newest first, without the texts of their answers."""
        ...

    async def cancel(self, question_id: str, caller: Caller, reason: str = "cancelled") -> Deliberation | None: ...

    def updates(self, question_id: str, caller: Caller, after: int = 0) -> AsyncGenerator[Update, None]:
        """Its events after that number, to its end. Those of one that has ended are made of what is kept."""
        ...

    def listen(self, changed: Callable[[Deliberation, bool], object]) -> Callable[[], None]:
        """Call ``changed`` with each deliberation of any tenant that is under way here, whenever it has a newer state
        that is kept, from its submission to its end, and with whether an earlier process has taken it in; returns what
        ends that. It must return quickly; what it raises is logged. What was told while nobody listened is not told
        again: `list` and `get` have what is kept."""
        ...

    def listen_opened(self, opened: Callable[[], object]) -> Callable[[], None]:
        """Call ``opened`` each time that deliberations are taken in here from then on, also when another orchestrator
        had them in between: some may have ended there. Returns what ends that. It must return quickly; what it raises
        is logged."""
        ...

    async def councils(self, caller: Caller) -> Sequence[Council]: ...

    async def put_council(self, council: Council, caller: Caller) -> Council: ...

    async def delete_council(self, name: str, caller: Caller) -> Council | None:
        """Raises `InvalidRequest` (409) while it is in use."""
        ...

    async def statistics(self, caller: Caller) -> dict[str, Any]:
        """Counts, times and scores by role, model and agent."""
        ...
