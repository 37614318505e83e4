"""What is published of a deliberation, made of its state alone: the same state gives the same messages with the same
ids, so that it may be looked at again and again, also by another process."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterator
from typing import Any

import msgspec

from anywire_service_deliberation.database import tenant_of
from anywire_service_deliberation.record import Answer, Deliberation, Failure, WorkId
from anywire_service_deliberation.stages import ahead
from anywire_service_deliberation.viewed import summary
from anywire_service_deliberation.views import one_line
from anywire_service_nats import payloads, subjects
from anywire_service_nats.envelopes import Envelope
from anywire_service_nats.outgoing import Outgoing

BASE = "/v1/deliberations"
ENDED_WITH_WINNER = ("completed", "degraded")


def due(
    state: Deliberation, producer: str, kinds: Collection[str], put: Container[str] = frozenset()
) -> list[Outgoing]:
    """The messages that this state gives cause for, in their order, but those whose id is in ``put``. ``kinds`` are
    those of `NatsServiceConfig.publish`.

    A member's answer is told once it cannot change any more: after the last revision, or when it has failed for good.
    """
    return [each for each in _all(state, producer, kinds, put) if each.envelope.id not in put]


def ids_at_the_end(state: Deliberation, kinds: Collection[str]) -> list[str]:
    """The ids of all messages that it gives cause for until its end."""
    named = _Names(state)
    found = [named.member(each.name) for each in state.question.members] if "answers" in kinds else []
    return [*found, *((named.ended, named.result) if "deliberations" in kinds else ())]


class _Names:
    """The ids of a deliberation's messages. Another tenant's deliberation of that id, and a later one, have others."""

    def __init__(self, state: Deliberation) -> None:
        question = state.question
        mark = hashlib.sha256(f"{tenant_of(question.caller)}\n{state.submitted!r}".encode()).hexdigest()[:12]
        self._begin = f"{question.id}:{mark}"
        self.order = self._begin
        self.dispatched = f"{self._begin}:dispatched"
        self.ended = f"{self._begin}:ended"
        self.result = f"{self._begin}:result"

    def member(self, name: str) -> str:
        return f"{self._begin}:answer:{name}"


def _all(state: Deliberation, producer: str, kinds: Collection[str], put: Container[str]) -> Iterator[Outgoing]:
    named, question = _Names(state), state.question

    def outgoing(
        subject: str, name: str, payload: dict[str, Any], time: float, instead: Outgoing | None = None
    ) -> Outgoing:
        envelope = Envelope(
            type=subject,
            id=name,
            correlation=question.id,
            time=time,
            payload=payload,
            producer=producer,
            trace=question.trace,
            priority=question.priority,
        )
        other = None if instead is None else (instead.subject, instead.envelope)
        return Outgoing(subject, envelope, named.order, other)

    story = str(question.metadata.get("story_id", "") or "")
    role = question.members[0].role if question.members else ""
    if "deliberations" in kinds and named.dispatched not in put:
        payload = payloads.task_dispatched(
            task_id=question.id, story_id=story, agent=question.council, role=role, time=state.submitted
        )
        yield outgoing(subjects.TASK_DISPATCHED, named.dispatched, payload, state.submitted)
    if "answers" in kinds and (state.is_final or "revising" not in ahead(state)):
        for member in question.members:
            name = named.member(member.name)
            if name in put:
                continue
            first = str(WorkId("proposal", 0, member.name))
            if first in state.answers:
                completed, large = _completed(state, member.name, member.role), _too_large(state, member.name)
                time = _versions(state, member.name)[-1].ended
                other = outgoing(subjects.ANSWER_FAILED, name, large, time)
                yield outgoing(subjects.ANSWER_COMPLETED, name, completed, time, other)
            elif (failure := state.failures.get(first)) is not None or state.is_final:
                at = failure.at if failure is not None else state.ended
                payload = _failed(state, member.name, member.role, failure)
                yield outgoing(subjects.ANSWER_FAILED, name, payload, at)
    if "deliberations" in kinds and state.is_final:
        won = state.status in ENDED_WITH_WINNER
        if won:
            decisions = [
                {"id": each.member, "type": "proposal", "rationale": f"rank {each.rank}, value {each.value:g}"}
                for each in state.ranking
            ]
            payload = payloads.deliberation_completed(
                task_id=question.id,
                story_id=story,
                decisions=decisions,
                time=state.ended,
                winner=state.winner,
                role=role,
            )
        else:
            payload = payloads.deliberation_failed(
                task_id=question.id, story_id=story, error=state.reason or state.status, time=state.ended
            )
        subject = subjects.COLLECTED_COMPLETED if won else subjects.COLLECTED_FAILED
        yield outgoing(subject, named.ended, payload, state.ended)
        subject = subjects.DELIBERATION_COMPLETED if won else subjects.DELIBERATION_FAILED
        short = outgoing(subject, named.result, _result(state, texts=False), state.ended)
        yield outgoing(subject, named.result, _result(state, texts=True), state.ended, short)


def _versions(state: Deliberation, member: str) -> list[Answer]:
    """Its proposal and what it has made of it, the newest last."""
    found = [(WorkId.of(text), answer) for text, answer in state.answers.items()]
    own = [(work.round, answer) for work, answer in found if work.member == member and work.kind in _PROPOSALS]
    return [answer for _, answer in sorted(own, key=lambda each: each[0])]


_PROPOSALS = ("proposal", "revision")


def _completed(state: Deliberation, member: str, role: str) -> dict[str, Any]:
    question, versions = state.question, _versions(state, member)
    last = versions[-1]
    proposal = {
        "content": last.text,
        "author_id": member,
        "author_role": role,
        "revisions": [each.text for each in versions[:-1]],
        "agent": last.agent,
        "transport": last.transport,
        "model": last.model,
    }
    return payloads.answer_completed(
        task_id=question.id,
        agent_id=member,
        role=role,
        num_agents=len(question.members),
        proposal=proposal,
        duration_ms=_ms(last.ended - versions[0].began),
        time=last.ended,
        constraints=payloads.constraints(
            question.metadata, task_id=question.id, num_agents=len(question.members), timeout=question.timeout
        ),
        summary=one_line(last.text),
        tokens_in=sum(each.prompt_tokens for each in versions),
        tokens_out=sum(each.completion_tokens for each in versions),
    )


def _failed(state: Deliberation, member: str, role: str, failure: Failure | None) -> dict[str, Any]:
    """``failure`` is None where the deliberation has ended before the member had an answer."""
    at = failure.at if failure is not None else state.ended
    return payloads.answer_failed(
        task_id=state.question.id,
        agent_id=member,
        role=role,
        num_agents=len(state.question.members),
        error=(failure.message or failure.code) if failure is not None else state.reason or state.status,
        error_type=failure.code if failure is not None else state.status,
        duration_ms=_ms(at - state.submitted),
        time=at,
    )


def _too_large(state: Deliberation, member: str) -> dict[str, Any]:
    role = next(each.role for each in state.question.members if each.name == member)
    last = _versions(state, member)[-1]
    message = f"the answer has {len(last.text)} characters, more than the NATS server takes: read it over HTTP"
    return _failed(state, member, role, Failure("payload_too_large", message, at=last.ended))


def _result(state: Deliberation, *, texts: bool) -> dict[str, Any]:
    """The deliberation's summary as REST has it, with its ranking; with ``texts`` the winner's answer too."""
    found: dict[str, Any] = msgspec.to_builtins(summary(state, BASE))
    found["task_id"] = state.question.id
    found["tenant"] = state.question.caller.tenant
    found["metadata"] = state.question.metadata
    found["ranking"] = [
        {"rank": each.rank, "member": each.member, "value": each.value, "scores": each.scores} for each in state.ranking
    ]
    if texts:
        won = _versions(state, state.winner) if state.winner else []
        found["answer"] = won[-1].text if won else ""
        found["synthesis"] = state.synthesis
    else:
        found["answer_left_out"] = True
    return found


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
