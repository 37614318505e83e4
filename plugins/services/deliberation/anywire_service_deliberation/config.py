"""The settings of the service ``deliberation``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pydantic

from anywire.service import ServiceConfig
from anywire_service_deliberation.question import MAX_MEMBERS, MAX_ROUNDS, Aggregation
from anywire_service_deliberation.roles_and_rubrics import DEFAULT_ROLE, DEFAULT_RUBRIC
from anywire_service_deliberation.shipped_checks import CheckSettings


class StoreSection(pydantic.BaseModel):
    """Names one store; further keys are that store's settings."""

    model_config = pydantic.ConfigDict(extra="allow", hide_input_in_errors=True)

    name: str = pydantic.Field(min_length=1, description="Store that keeps deliberations: `sqlite`, `nats`.")

    @property
    def options(self) -> dict[str, Any]:
        return {key: value for key, value in self if key != "name"}


def _by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class DeliberationConfig(ServiceConfig):
    folder: Path | None = pydantic.Field(
        None,
        description="Folder in which deliberations are kept, for this user alone. Default: `deliberation` in the "
        "fleet's state folder.",
    )
    store: Annotated[StoreSection, pydantic.BeforeValidator(_by_name)] = pydantic.Field(
        default_factory=lambda: StoreSection(name="sqlite"),
        description="Where deliberations are kept: the name of a store, or a mapping of `name` and the store's own "
        "settings. `sqlite`: in `folder`. `nats` (`anywire-service-nats`): in a key-value bucket of NATS JetStream, "
        "which orchestrators on several machines share.",
    )
    roles: Path | None = pydantic.Field(
        None, description="Folder of your own roles (YAML). One with the name of a shipped role replaces that one."
    )
    rubrics: Path | None = pydantic.Field(
        None,
        description="Folder of your own rubrics (YAML). One with the name of a shipped rubric replaces that one.",
    )
    checks: list[CheckSettings] = pydantic.Field(
        default_factory=list,
        max_length=16,
        description="Checks of each proposal and revision: `policy`, `lint`, `dry_run`, or your own.",
    )
    models: list[str] = pydantic.Field(
        default_factory=list,
        max_length=MAX_MEMBERS,
        description="Models of members that name none, in turn. Empty: all chat models that agents serve.",
    )
    role: str = pydantic.Field(DEFAULT_ROLE, min_length=1, description="Role of members that name none.")
    rubric: str = pydantic.Field(DEFAULT_RUBRIC, min_length=1, description="Rubric of questions that name none.")
    members: int = pydantic.Field(3, ge=1, le=MAX_MEMBERS, description="Members of questions that name none.")
    rounds: int = pydantic.Field(
        1, ge=0, le=MAX_ROUNDS, description="Rounds of critique and revision of questions that name none."
    )
    aggregation: Aggregation = pydantic.Field(
        "borda", description="How scores become a ranking, for questions that do not say it."
    )
    timeout: float = pydantic.Field(
        300.0, gt=0, le=86_400, allow_inf_nan=False, description="Seconds of a deliberation that names none."
    )
    max_timeout: float = pydantic.Field(
        3600.0, gt=0, le=86_400, allow_inf_nan=False, description="Most seconds that a deliberation may ask for."
    )
    max_tokens: int = pydantic.Field(
        512, ge=1, le=100_000, description="Longest answer of a member in tokens, for questions that name none."
    )
    max_works: int = pydantic.Field(
        1000,
        ge=1,
        le=20_000,
        description="Most tasks that one deliberation may need (proposals, critiques, revisions, scores).",
    )
    max_running: int = pydantic.Field(
        200, ge=1, le=1000, description="Deliberations that may be under way at once; further ones are refused (429)."
    )
    retention: float = pydantic.Field(
        3600.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for which a deliberation is kept after its end.",
    )
    max_kept: int = pydantic.Field(
        10_000,
        ge=1,
        description="Deliberations that are kept after their end. Of more, the oldest of the tenant that has the most "
        "go.",
    )
