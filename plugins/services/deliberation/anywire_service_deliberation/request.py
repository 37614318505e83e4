"""From a request, as REST has it, to a question that is complete and checked."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.context import Context
from anywire.deliberation_terms import MODEL as MODEL
from anywire.errors import InvalidRequest
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Member, Question
from anywire_service_deliberation.request_form import (
    MAX_NAME_CHARS,
    DeliberationRequest,
    MemberRequest,
    read_members,
    read_request,
)
from anywire_service_deliberation.roles_and_rubrics import Library

_MADE_HERE = "deliberation-"

STYLES = (
    "",
    "Look first for what could go wrong, and make sure that it cannot.",
    "Prefer the simplest answer that is complete.",
    "Question the obvious approach: look for a better one before you decide.",
    "Think of the people who have to live with the answer later.",
    "Go through the task step by step, and check each step.",
    "Begin with an example, and check your answer against it.",
)
"""What tells members of one model apart, in turn; the first is as the model is."""
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.3, 1.0
"""Between these the temperatures of members of one model are spread, where the request names none."""


class Requests:
    """Completes requests with what is configured, the council they name, and the models that are served."""

    def __init__(
        self,
        context: Context,
        config: DeliberationConfig,
        library: Library,
        council: Callable[[str, Caller], Council | None],
    ) -> None:
        self._context, self._config, self._library, self._council = context, config, library, council

    def question(self, request: Mapping[str, Any], caller: Caller) -> Question:
        """Raises `InvalidRequest` whose ``param`` is the member at fault."""
        asked, digest = read_request(request)
        config = self._config
        council = self._council_of(asked, caller)
        role = asked.role or (council.role if council else "") or config.role
        named = asked.members if asked.members is not None or council is None else list(council.members)
        members = self._members(read_members(config.members if named is None else named), role, caller)
        rubric = asked.rubric
        if rubric is None or rubric == "":
            rubric = (council.rubric if council else "") or config.rubric
        rounds = _first(asked.rounds, council.rounds if council else None, config.rounds)
        timeout = _first(asked.timeout, None, config.timeout)
        quorum = _first(asked.quorum, None, 1)
        max_tokens = _first(asked.max_tokens, None, config.max_tokens)
        if timeout > config.max_timeout:
            raise InvalidRequest(
                f"timeout is {timeout:g} s, the most is {config.max_timeout:g} s (services.deliberation.max_timeout)",
                param="timeout",
            )
        if quorum > len(members):
            raise InvalidRequest(f"quorum is {quorum}, there are {len(members)} members", param="quorum")
        self._check_works(len(members), rounds, asked.synthesis)
        return Question(
            asked.id or new_id(),
            asked.task,
            members,
            {name: self._library.role(name) for name in dict.fromkeys(member.role for member in members)},
            self._library.rubric(rubric),
            rounds,
            tuple(asked.requirements),
            quorum,
            timeout,
            asked.aggregation or config.aggregation,
            asked.synthesis,
            max_tokens,
            council.name if council else "",
            caller,
            asked.metadata,
            digest,
        )

    def check_council(self, council: Council) -> Council:
        """The council as it is kept. Raises `InvalidRequest` for one that no question could be asked of."""
        if not council.name or len(council.name) > MAX_NAME_CHARS or not council.name.isprintable():
            raise InvalidRequest(f"the name of a council has 1 to {MAX_NAME_CHARS} printable characters", param="name")
        members = [{name: value for name, value in each.items() if value is not None} for each in council.members]
        request: dict[str, Any] = {"task": "-", "members": members, "rounds": council.rounds}
        request |= {"role": council.role} if council.role else {}
        request |= {"rubric": council.rubric} if council.rubric else {}
        read_request({**request, "metadata": council.metadata})
        wanted = read_members(members)
        _names(wanted)
        for each in wanted:
            self._library.role(each.role or council.role or self._config.role)
            self._check_model(each.model)
        if council.rubric:
            self._library.rubric(council.rubric)
        self._check_works(len(members), council.rounds, False)
        role = council.role and self._library.role(council.role).name
        return msgspec.structs.replace(council, role=role, members=tuple(members), in_use=0)

    # Inside

    def _council_of(self, asked: DeliberationRequest, caller: Caller) -> Council | None:
        if not asked.council:
            return None
        council = self._council(asked.council, caller)
        if council is None:
            raise InvalidRequest(
                f"there is no council {asked.council!r}: GET /v1/councils lists those there are", param="council"
            )
        return council

    def _members(self, wanted: list[MemberRequest], role: str, caller: Caller) -> tuple[Member, ...]:
        """Members that differ: by their models where several are served, else by temperature, seed and style."""
        models = self._models(caller) if any(not each.model for each in wanted) else []
        unnamed = iter(range(len(wanted)))
        chosen = [each.model or models[next(unnamed) % len(models)] for each in wanted]
        names = _names(wanted)
        together, before = Counter(chosen), Counter[str]()
        members: list[Member] = []
        for number, (each, model) in enumerate(zip(wanted, chosen, strict=True), 1):
            self._check_model(model)
            at, of = before[model], together[model]
            before[model] += 1
            temperature, style = each.temperature, each.style
            if of > 1:
                spread = LOWEST_TEMPERATURE + (HIGHEST_TEMPERATURE - LOWEST_TEMPERATURE) * at / (of - 1)
                temperature = round(spread, 2) if temperature is None else temperature
                style = STYLES[at % len(STYLES)] if style is None else style
            seed = number if each.seed is None else each.seed
            kept_role = self._library.role(each.role or role).name
            members.append(Member(names[number - 1], kept_role, model, temperature, seed, style or ""))
        return tuple(members)

    def _models(self, caller: Caller) -> list[str]:
        """Models of members that name none, in turn; an empty one when none is served now."""
        if self._config.models:
            return self._config.models
        found = [
            model
            for model, offers in self._context.offers(caller).items()
            if not is_deliberation(model)
            and any(
                not agent.startswith("service ") and offer.takes_tasks and (not offer.kinds or "chat" in offer.kinds)
                for agent, offer in offers
            )
        ]
        return sorted(found) or [""]

    @staticmethod
    def _check_model(model: str | None) -> None:
        if model and is_deliberation(model):
            raise InvalidRequest(f"a member cannot be a deliberation itself ({model!r})", param="members")

    def _check_works(self, members: int, rounds: int, synthesis: bool) -> None:
        count = works_of(members, rounds, synthesis=synthesis)
        if count > self._config.max_works:
            raise InvalidRequest(
                f"{members} members and {rounds} rounds make {count} tasks, the most are {self._config.max_works} "
                "(services.deliberation.max_works): ask fewer members or rounds",
                param="members",
            )


def _names(wanted: list[MemberRequest]) -> list[str]:
    """Their own, and for those that have none their number's, or another one where somebody is named so. Raises
    `InvalidRequest` for two of one name."""
    own = Counter(each.name for each in wanted if each.name)
    double = next((name for name, count in own.items() if count > 1), "")
    if double:
        raise InvalidRequest(f"two members have the name {double!r}", param="members")
    free = (name for number in itertools.count(len(wanted) + 1) if (name := f"member-{number}") not in own)
    made = [each.name or f"member-{number}" for number, each in enumerate(wanted, 1)]
    return [name if each.name or name not in own else next(free) for name, each in zip(made, wanted, strict=True)]


def check_models(question: Question) -> None:
    """Raise `InvalidRequest` for members whose model nobody knows. A question that was taken in before needs no model
    to be found again, so this is asked for new ones alone."""
    if any(not member.model for member in question.members):
        raise InvalidRequest(
            "no model is served now that members could use: name one for each of them, or set "
            "services.deliberation.models",
            param="members",
        )


def is_deliberation(model: str) -> bool:
    """Whether tasks for this model are deliberations, here or at an orchestrator below."""
    return model == MODEL or model.startswith(f"{MODEL}:")


def works_of(members: int, rounds: int, *, synthesis: bool = False) -> int:
    """How many tasks a deliberation needs, when nothing fails."""
    pairs = members * (members - 1)
    return members + (rounds * (pairs + members) if members > 1 else 0) + pairs + synthesis


def new_id() -> str:
    """An id that nobody can guess."""
    return f"{_MADE_HERE}{secrets.token_hex(12)}"


def is_made_here(question_id: str) -> bool:
    """Whether an id looks like one of `new_id`."""
    return question_id.startswith(_MADE_HERE)


def _first(asked: Any, councils: Any, configured: Any) -> Any:
    return next(each for each in (asked, councils, configured) if each is not None)
