"""The settings of the service ``placement``, and what may be asked of it while it runs."""

from __future__ import annotations

from typing import Annotated

import pydantic

from anywire.service import ServiceConfig

MAX_MODELS = 1000
MAX_NAME_CHARS = 512

Name = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=MAX_NAME_CHARS)]


class WantedModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    replicas: int = pydantic.Field(
        default=1, ge=0, le=1000, description="Agents that are to have the model loaded. 0: none."
    )
    agents: list[Name] = pydantic.Field(
        default_factory=list,
        max_length=1000,
        description="Ids of the agents that may load it. Empty: all that have it.",
    )


Models = Annotated[dict[Name, WantedModel], pydantic.Field(max_length=MAX_MODELS)]


class WantedModels(pydantic.BaseModel):
    """The body of ``PUT /v1/placement``, and the content of the file that keeps it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    models: Models


class PlacementConfig(ServiceConfig):
    models: Models = pydantic.Field(
        default_factory=dict,
        description="Wanted replicas by model. Models that are not named are left alone, and give way where a wanted "
        "one needs their memory and they serve nobody.",
    )
    absence: float = pydantic.Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Seconds for which a replica that is lost still counts, so that a short break moves nothing. "
        "The first look at the fleet waits as long.",
    )
    settle: float = pydantic.Field(
        default=30.0, ge=0, le=86_400, description="Seconds after which a replica beyond those wanted is unloaded."
    )
    load_timeout: float = pydantic.Field(
        default=600.0, gt=0, le=86_400, description="Seconds that loading a model may take."
    )
    retry_min: float = pydantic.Field(
        default=5.0,
        gt=0,
        le=3600,
        description="Seconds between two starts of a model at one agent; doubles with each further start.",
    )
    retry_max: float = pydantic.Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="Seconds that this pause grows to. After as long without a start it is short again.",
    )
