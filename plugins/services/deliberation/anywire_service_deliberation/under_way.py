"""The works of one deliberation that are under way here, each as an errand, and who has had them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import PluginFailed
from anywire_service_deliberation.checks import ProposalCheck
from anywire_service_deliberation.effects import Ask
from anywire_service_deliberation.errands import Errand, Failed
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId
from anywire_service_deliberation.served_models import ServedModels

log = logging.getLogger(__name__)

Outcome = Answer | Failed | None


class UnderWay:
    """``told`` is called with what came of each errand: None when that says nothing, because the work was stopped or
    is left to the next process."""

    def __init__(
        self,
        context: Context,
        checks: Sequence[ProposalCheck],
        now: Callable[[], float],
        told: Callable[[WorkId, Outcome], None],
        *,
        patient: bool,
    ) -> None:
        self._context, self._checks, self._now, self._told, self._patient = context, checks, now, told, patient
        self._served = ServedModels(context)
        self._errands: dict[WorkId, Errand] = {}
        self._had: dict[WorkId, list[str]] = {}
        """Agents that had tries of a work that is under way."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._errands)

    def ask(self, ask: Ask, state: Deliberation, parent: str, caller: Caller) -> None:
        """Submit a work as a task of ``caller`` and child of the task ``parent``."""
        avoid = [*ask.avoid, *self._had.get(ask.work, ())]
        if (before := self._errands.get(ask.work)) is not None:
            avoid.append(before.agent)
        if ask.work.kind == "proposal":
            avoid = [*self._others_agents(ask.work, state), *avoid]
        errand = Errand(
            self._context,
            self._served,
            self._checks,
            self._now,
            state,
            ask,
            parent,
            avoid,
            patient=self._patient,
        )
        self._errands[ask.work] = errand
        errand.submit(caller)
        task = asyncio.ensure_future(self._do(errand, caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, work: WorkId) -> None:
        errand = self._errands.get(work)
        if errand is not None:
            self._had.setdefault(work, []).append(errand.agent)
            errand.stop("its deliberation does not wait for it any more")

    def stop_all(self) -> None:
        """Cancel everything, checks of what was answered too; nothing more is told."""
        for work in list(self._errands):
            self.stop(work)
        for task in self._tasks:
            task.cancel()

    def had(self, work: WorkId, agent: str) -> None:
        """This agent has failed at a work, which another one may get."""
        self._had.setdefault(work, []).append(agent)

    def agent_of(self, work: WorkId) -> str | None:
        """Who has it now; None when nobody has had it yet."""
        errand = self._errands.get(work)
        return (errand.agent or None) if errand is not None else ""

    def leave(self) -> None:
        """Submit nothing again. What has been submitted may still be answered."""
        for errand in self._errands.values():
            errand.leave()

    async def close(self) -> None:
        """Cancel everything, and wait until it is over."""
        self.stop_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _do(self, errand: Errand, caller: Caller) -> None:
        work = errand.ask.work
        outcome: Outcome
        try:
            outcome = await errand.outcome(caller)
        except Exception as error:
            log.exception("the work %s of the deliberation %s failed", work, errand.question_id)
            message = f"its answer could not be dealt with: {type(error).__name__}"
            outcome = Failed(Failure(PluginFailed.code, message, errand.agent, errand.ask.tries), again=False)
        says_nothing = isinstance(outcome, Failed) or (outcome is not None and not outcome.text.strip())
        if errand.stopped and says_nothing:
            outcome = None
        if self._errands.get(work) is errand:
            del self._errands[work]
        elif outcome is not None:
            self.stop(work)  # it was replaced, and has answered after all: the newer try is not needed
        self._told(work, outcome)

    def _others_agents(self, work: WorkId, state: Deliberation) -> list[str]:
        """Agents that have, or have had, the proposal of another member with the same model."""
        members = state.question.members
        model = next(member.model for member in members if member.name == work.member)
        found: list[str] = []
        for name in [each.name for each in members if each.model == model and each.name != work.member]:
            other = WorkId("proposal", 0, name)
            answer = state.answers.get(str(other))
            if answer is not None:
                found.append(answer.agent)
            elif (errand := self._errands.get(other)) is not None:
                found.append(errand.agent)
        return [agent for agent in found if agent]
