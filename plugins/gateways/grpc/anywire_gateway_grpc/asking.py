"""Questions of both services: submitted, awaited, looked up."""

from __future__ import annotations

import asyncio
from typing import Any

from anywire.errors import InvalidRequest
from anywire_gateway_grpc.calls import Call
from anywire_gateway_grpc.faults import Ended
from anywire_gateway_grpc.questions import Models, council_for, question_of
from anywire_service_deliberation.offered import LONGEST_WAIT, Council, Deliberations, not_known
from anywire_service_deliberation.record import Deliberation

MARGIN, MARGIN_S = 0.1, 1.0
"""Part of a call's time, and most seconds of it, that are kept for the answer: a client whose deadline is over gets
nothing."""


class Asking:
    """``wait`` is how many seconds a client waits for the end at most; None: as its deadline allows."""

    def __init__(self, deliberations: Deliberations, models: Models, wait: float | None) -> None:
        self.deliberations, self._models, self._wait = deliberations, models, wait

    async def council(self, role: str, call: Call) -> Council | None:
        return council_for(role, await self.deliberations.councils(call.caller))

    async def submit(
        self, request: dict[str, Any], as_asked: dict[str, Any], call: Call, most_rounds: int = 0
    ) -> Deliberation:
        """Take it in, and tell the client its id at once; see `question_of`."""
        translated = self._translated(request, call)
        question = question_of(self.deliberations, translated, as_asked, call.caller, most_rounds)
        state = await self.deliberations.submit(question)
        await call.tell_id(question.id)
        return state

    async def ended(self, state: Deliberation, call: Call) -> Deliberation:
        """The same once it has ended, or when the client's time is almost over."""
        loop, left = asyncio.get_running_loop(), call.left
        times = [] if left is None else [left - min(MARGIN_S, MARGIN * left)]
        times += [] if self._wait is None else [self._wait]
        until = loop.time() + min(times) if times else None
        while not state.is_final:
            wait = LONGEST_WAIT if until is None else min(LONGEST_WAIT, until - loop.time())
            if wait <= 0:
                break
            state = await self.known(state.question.id, call, wait)
        return state

    async def known(self, question_id: str, call: Call, wait: float = 0.0) -> Deliberation:
        """Raises `InvalidRequest` (404)."""
        found = await self.deliberations.get(question_id, call.caller, wait)
        if found is None:
            raise not_known(question_id)
        return found

    def meant(self, model: str, call: Call) -> str:
        return self._models.meant(model, call.caller)

    def _translated(self, request: dict[str, Any], call: Call) -> dict[str, Any]:
        """The same where members of a council name models as clients do."""
        members = request.get("members")
        if not isinstance(members, list):
            return request
        return request | {"members": [each | self._model(each, call) for each in members]}

    def _model(self, member: dict[str, Any], call: Call) -> dict[str, Any]:
        model = member.get("model")
        return {"model": self.meant(model, call)} if model else {}


def won(state: Deliberation) -> Deliberation:
    """The same, unless it has ended without a winner. Raises `Ended`."""
    if state.is_final and not state.winner:
        raise Ended(state)
    return state


def needs_id(question_id: str, field: str) -> str:
    if not question_id:
        raise InvalidRequest(f"{field} is empty: it names the deliberation that is meant")
    return question_id
