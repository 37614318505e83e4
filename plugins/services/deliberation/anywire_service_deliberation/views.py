"""How what a deliberation can name looks as JSON: roles, rubrics, councils. How a deliberation itself looks:
`anywire.deliberation_views`.

Times are seconds since 1970, rounded to milliseconds; 0 and empty texts say that there is none (yet).
"""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.deliberation_views import Summary as Summary
from anywire.deliberation_views import Whole as Whole
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Criterion, Role, Rubric

TITLE_CHARS = 200
"""Characters of a task that a list shows."""


class RubricView(msgspec.Struct, frozen=True, kw_only=True):
    """A rubric that a deliberation can name."""

    name: str
    object: str = "rubric"
    description: str = ""
    criteria: tuple[Criterion, ...] = ()
    lowest: int = 1
    highest: int = 5


class RoleView(msgspec.Struct, frozen=True, kw_only=True):
    """A role that members can have."""

    name: str
    object: str = "role"
    description: str = ""
    prompt: str = ""


class CouncilView(msgspec.Struct, frozen=True, kw_only=True):
    """A council as it is kept. ``in_use`` counts its deliberations under way."""

    name: str
    object: str = "council"
    role: str = ""
    members: tuple[dict[str, Any], ...] = ()
    rounds: int = 1
    rubric: str = ""
    created: float = 0.0
    in_use: int = 0
    metadata: dict[str, Any] = {}


class RubricList(msgspec.Struct):
    object: str
    data: list[RubricView]


class RoleList(msgspec.Struct):
    object: str
    data: list[RoleView]


class CouncilList(msgspec.Struct):
    object: str
    data: list[CouncilView]


class DeliberationList(msgspec.Struct):
    object: str
    data: list[Summary]


def rubric_view(rubric: Rubric) -> RubricView:
    return RubricView(
        name=rubric.name,
        description=rubric.description,
        criteria=rubric.criteria,
        lowest=rubric.lowest,
        highest=rubric.highest,
    )


def role_view(role: Role) -> RoleView:
    return RoleView(name=role.name, description=role.description, prompt=role.prompt)


def council_view(council: Council) -> CouncilView:
    return CouncilView(
        name=council.name,
        role=council.role,
        members=council.members,
        rounds=council.rounds,
        rubric=council.rubric,
        created=round(council.created, 3),
        in_use=council.in_use,
        metadata=council.metadata,
    )


def one_line(text: str, chars: int = TITLE_CHARS) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * chars].split())
    return line if len(line) <= chars and len(text) <= 4 * chars else f"{line[:chars].rstrip()}…"
