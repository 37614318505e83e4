"""From the messages of the services to requests as `Deliberations.question` takes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc import ray_executor_pb2 as executor
from anywire_service_deliberation.offered import Council, Deliberations
from anywire_service_deliberation.question import MAX_MEMBERS, Question
from anywire_service_deliberation.request_form import digest_of
from anywire_service_deliberation.roles_and_rubrics import spoken

ANY = "*"
"""In the setting ``models``: every name that is neither listed nor served."""
MAX_NAME_CHARS = 64
"""Characters of a criterion's name."""


class Models:
    """What names of models mean. ``served`` tells those that a caller may use."""

    def __init__(self, names: Mapping[str, str], served: Callable[[Caller], Sequence[str]]) -> None:
        self._names, self._served = names, served

    def meant(self, name: str, caller: Caller) -> str:
        """The served model; empty for any."""
        if name in self._names:
            return self._names[name]
        if name and ANY in self._names and name not in self._served(caller):
            return self._names[ANY]
        return name


class _Backlog(Protocol):
    """The constraints that both kinds of requests to the executor have."""

    story_id: str
    timeout_seconds: int
    metadata: Any


def deliberate(asked: wire.DeliberateRequest, council: Council | None) -> dict[str, Any]:
    return _request(asked.task_id, asked.task_description, asked.role) | _constrained(
        asked.constraints, asked.rounds, _members(asked.num_agents, council), {}
    )


def orchestrate(asked: wire.OrchestrateRequest, council: Council | None) -> dict[str, Any]:
    names = {name: getattr(asked, name) for name in ("case_id", "story_id", "plan_id")}
    metadata = dict(asked.options.custom_params) | {name: value for name, value in names.items() if value}
    return _request(asked.task_id, asked.task_description, asked.role) | _constrained(
        asked.constraints, asked.options.deliberation_rounds, _members(0, council), metadata
    )


def execute(
    asked: executor.ExecuteDeliberationRequest | executor.ExecuteBacklogReviewDeliberationRequest,
    council: Council | None,
    meant: Callable[[str], str],
) -> dict[str, Any]:
    limits: _Backlog = asked.constraints
    metadata = dict(limits.metadata)
    for name in ("story_id", "plan_id"):
        if value := getattr(limits, name, ""):
            metadata[name] = value
    request = _request(asked.task_id, asked.task_description, asked.role)
    if asked.agents:
        request["members"] = [
            _given(
                name=each.id,
                role=each.role,
                model=meant(each.model or asked.vllm_model),
                style=each.prompt_template,
            )
            for each in asked.agents
        ]
    else:
        request |= _members(0, council)
    return request | _limited(limits.timeout_seconds, metadata)


def question_of(
    deliberations: Deliberations,
    request: dict[str, Any],
    as_asked: dict[str, Any],
    caller: Caller,
    most_rounds: int = 0,
) -> Question:
    """The question, of ``most_rounds`` at most unless that is 0. A rubric without a known name is taken as its text.

    ``as_asked`` is the request without what councils and settings have made of it: the same again is the same
    deliberation, also where these have changed meanwhile.
    """
    if most_rounds < 0:
        raise InvalidRequest(f"constraints.max_iterations is {most_rounds}: 0 is no bound")
    try:
        question = deliberations.question(request, caller)
    except InvalidRequest as error:
        rubric = request.get("rubric")
        if error.param != "rubric" or not isinstance(rubric, str):
            raise
        described = {"rubric": {"criteria": criteria(rubric)}}
        request, as_asked = request | described, as_asked | described
        question = deliberations.question(request, caller)
    if most_rounds and question.rounds > most_rounds:
        question = deliberations.question(request | {"rounds": most_rounds}, caller)
    if most_rounds and as_asked.get("rounds", most_rounds + 1) > most_rounds:
        as_asked = as_asked | {"max_iterations": most_rounds}
    return msgspec.structs.replace(question, digest=digest_of(as_asked))


def criteria(text: str) -> list[dict[str, Any]]:
    """The criteria that a text names, one for each line, with its name before a colon."""
    found: list[tuple[str, str]] = []
    taken: set[str] = set()
    for line in filter(None, (each.strip(" \t-*•") for each in text.splitlines())):
        head, colon, rest = line.partition(":")
        name = head.strip() if colon and rest.strip() else line
        fits = len(name) <= MAX_NAME_CHARS and name.isprintable() and any(letter.isalpha() for letter in name)
        if not fits or spoken(name) in taken:
            numbers = (f"criterion {number}" for number in itertools.count(len(found) + 1))
            name = next(each for each in numbers if each not in taken)
        taken.add(spoken(name))
        found.append((name, rest.strip() if fits and colon and rest.strip() else line))
    return [{"name": name, "description": "" if name == said else said} for name, said in found]


def council_for(role: str, councils: Sequence[Council]) -> Council | None:
    """The council of that name, whatever its case."""
    return next((each for each in councils if role and each.name.casefold() == role.casefold()), None)


def _request(task_id: str, task: str, role: str) -> dict[str, Any]:
    return {"task": task} | _given(id=task_id, role=role)


def _members(count: int, council: Council | None) -> dict[str, Any]:
    """Those of the council, as many as are wanted: its first ones, and further ones that it does not have."""
    if council is None:
        return _given(members=count)
    if not 0 <= count <= MAX_MEMBERS:
        return {"members": count}  # the service says what is wrong with it
    count = count or len(council.members)
    more = max(0, count - len(council.members))
    return {"council": council.name, "members": [*council.members[:count], *({} for _ in range(more))]}


def _constrained(
    limits: wire.TaskConstraints, rounds: int, members: dict[str, Any], metadata: dict[str, str]
) -> dict[str, Any]:
    request = members | _given(rounds=rounds, rubric=limits.rubric.strip())
    if wanted := [each for each in limits.requirements if each.strip()]:
        request["requirements"] = wanted
    return request | _limited(limits.timeout_seconds, dict(limits.metadata) | metadata)


def _limited(timeout: int, metadata: dict[str, str]) -> dict[str, Any]:
    request = _given(metadata=metadata)
    return request | {"timeout": float(timeout)} if timeout else request


def _given(**members: Any) -> dict[str, Any]:
    """Those that are set."""
    return {name: value for name, value in members.items() if value}
