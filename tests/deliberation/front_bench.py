"""The routes of deliberations behind the real gateway, before a double of `Deliberations` that keeps what it gets."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.deliberation.acted import SUBMITTED, question

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_deliberation.aggregation import ranked
from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.offered import Council, Update
from anywire_service_deliberation.question import Question, Role
from anywire_service_deliberation.record import Answer, Check, Deliberation, Failure
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_deliberation.routes import deliberation_routes

NAMES = ("member-1", "member-2", "member-3")
SCORES = {"member-1": {"member-2": 5.0, "member-3": 2.0}, "member-2": {"member-1": 3.0, "member-3": 1.0}}


def answer(text: str, agent: str = "agent-1", **told: Any) -> Answer:
    began = SUBMITTED + 1
    known: dict[str, Any] = {"transport": "memory", "model": "m", "prompt_tokens": 10, "completion_tokens": 5}
    return Answer(text, agent=agent, began=began, ended=began + 0.5, **known | told)


def submitted(name: str = "q-1", **changes: Any) -> Deliberation:
    asked = question(**{"id": name, **changes})
    return Deliberation(asked, "submitted", SUBMITTED, SUBMITTED + asked.timeout)


def degraded(name: str = "q-1", text: str = "[].reverse()", **changes: Any) -> Deliberation:
    """One that has ended: member-2 has won, a critique and member-3's scores are missing."""
    answers = {f"proposal/0/{each}": answer(f"{text} by {each}", f"agent-{each[-1]}") for each in NAMES}
    answers["critique/1/member-2/member-1"] = answer("It copies.", "agent-2")
    answers["revision/1/member-2"] = answer(text, "agent-9", attempts=2, checks=(Check("lint", False, "no tests"),))
    for judge, given in SCORES.items():
        for author, score in given.items():
            answers[f"score/0/{judge}/{author}"] = answer("{}", score=score, points={"clarity": score})
    ranking = ranked(SCORES, NAMES, "borda", middle=3.0)
    return msgspec.structs.replace(
        submitted(name, **changes),
        status="degraded",
        ended=SUBMITTED + 12.5,
        round=1,
        answers=answers,
        failures={"critique/1/member-3/member-2": Failure("agent_lost", "it went", "agent-3", 2, SUBMITTED + 3)},
        retried={"critique/1/member-3/member-2": (Failure("hanging", "no answer", "agent-8", at=SUBMITTED + 2),)},
        late={"critique/1/member-3/member-2": answer("Late.", "agent-3")},
        dropped=1,
        ranking=ranking,
        winner=ranking[0].member,
        synthesis="All of it.",
        reason="member-3: no critique (agent_lost: it went)",
        expires=SUBMITTED + 3612.5,
    )


def update(number: int, name: str, **data: Any) -> Update:
    return Update(number, name, SUBMITTED + number, data)


class Double:
    """Keeps deliberations by id. ``ends`` are the states in which they end when `end` is called; ``said`` are the
    updates of all of them: those that are there, and, until there is one that has ``ended``, those to come."""

    def __init__(self) -> None:
        self.kept: dict[str, Deliberation] = {}
        self.said: list[Update] = []
        self.put: dict[str, Council] = {}
        self.callers: list[Caller] = []
        self.asked: list[dict[str, Any]] = []
        self.waits: list[float] = []
        self.cancelled: list[str] = []
        self.readers = 0
        self.change = asyncio.Condition()

    async def say(self, *updates: Update, ends: Deliberation | None = None) -> None:
        async with self.change:
            self.said.extend(updates)
            if ends is not None:
                self.kept[ends.question.id] = ends
            self.change.notify_all()

    def question(self, request: Mapping[str, Any], caller: Caller) -> Question:
        self.callers.append(caller)
        self.asked.append(dict(request))
        if not isinstance(request.get("task"), str):
            raise InvalidRequest("task: it must be a text", param="task")
        if request.get("rubric") == "none":
            raise InvalidRequest("rubric: there is no rubric 'none'", param="rubric")
        number = request.get("members", 3)
        digest = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
        members = number if isinstance(number, int) else len(number)
        return question(members, id=request.get("id", "made-up"), task=request["task"], caller=caller, digest=digest)

    async def submit(self, question: Question) -> Deliberation:
        new = Deliberation(question, "submitted", SUBMITTED, SUBMITTED + question.timeout)
        kept = self.kept.setdefault(question.id, new)
        if kept.question.digest not in ("", question.digest):
            raise InvalidRequest("id: there is another deliberation of that id", param="id", status=409)
        return kept

    async def get(self, question_id: str, caller: Caller, wait: float = 0.0) -> Deliberation | None:
        self.callers.append(caller)
        if question_id not in self.kept:
            return None
        if wait:
            self.waits.append(wait)
            async with self.change:
                await self.change.wait_for(lambda: self.kept[question_id].is_final)
        return self.kept[question_id]

    async def list(
        self, caller: Caller, *, status: str = "", role: str = "", limit: int = 100
    ) -> Sequence[Deliberation]:
        self.callers.append(caller)
        found = [each for each in self.kept.values() if status in ("", each.status)]
        return [each for each in found if role in ("", each.question.members[0].role)][:limit]

    async def cancel(self, question_id: str, caller: Caller, reason: str = "cancelled") -> Deliberation | None:
        self.callers.append(caller)
        kept = self.kept.get(question_id)
        if kept is not None and not kept.is_final:
            self.cancelled.append(question_id)
            kept = msgspec.structs.replace(kept, status="cancelled", reason=reason, ended=SUBMITTED + 1)
            await self.say(ends=kept)
        return kept

    async def updates(self, question_id: str, caller: Caller, after: int = 0) -> AsyncGenerator[Update, None]:
        self.callers.append(caller)
        self.readers += 1
        try:
            at = 0
            while True:
                async with self.change:
                    await self.change.wait_for(lambda: len(self.said) > at)  # noqa: B023
                while at < len(self.said):
                    each, at = self.said[at], at + 1
                    if each.number > after:
                        yield each
                    if each.name == "ended":
                        return
        finally:
            self.readers -= 1

    def listen(self, changed: Callable[[Deliberation, bool], object]) -> Callable[[], None]:
        return lambda: None

    def listen_opened(self, opened: Callable[[], object]) -> Callable[[], None]:
        return lambda: None

    async def councils(self, caller: Caller) -> Sequence[Council]:
        self.callers.append(caller)
        return [*self.put.values()]

    async def put_council(self, council: Council, caller: Caller) -> Council:
        self.callers.append(caller)
        if council.rubric == "none":
            raise InvalidRequest("rubric: there is no rubric 'none'", param="rubric")
        self.put[council.name] = msgspec.structs.replace(council, created=SUBMITTED)
        return self.put[council.name]

    async def delete_council(self, name: str, caller: Caller) -> Council | None:
        self.callers.append(caller)
        if name in self.put and self.put[name].in_use:
            raise InvalidRequest("the council is in use", status=409, detail_code="council_in_use")
        return self.put.pop(name, None)

    async def statistics(self, caller: Caller) -> dict[str, Any]:
        self.callers.append(caller)
        return {"deliberations": len(self.kept), "roles": {"DEV": {"deliberations": len(self.kept)}}}


class Front:
    """``url`` is the gateway's root."""

    def __init__(self, double: Double, url: str) -> None:
        self.double, self.url = double, url

    def client(self, **options: Any) -> DeliberationClient:
        return DeliberationClient(self.url, **options)


@asynccontextmanager
async def front(folder: Path, double: Double | None = None, port: int = 0) -> AsyncIterator[Front]:
    double, library = double if double is not None else Double(), Library.load()
    roles = {**library.roles, "poet": Role("poet", "You rhyme.")}
    async with service_bench(state=folder) as bench:
        bench.routes.add(*deliberation_routes(double, roles, library.rubrics))
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=port))
        await gateway.start(bench.context("openai"))
        try:
            yield Front(double, gateway.address)
        finally:
            await gateway.close()
