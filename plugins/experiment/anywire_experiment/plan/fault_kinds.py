"""The faults of the catalogue in a plan: which of them an experiment can inflict, what each needs of the plan, and the
servers that stand in for models there."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from anywire.near import nearest
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS, Fault
from anywire_experiment.plan.objective import Time
from anywire_experiment.plan.section import Section

SHORT = {"kill": "agent-killed", "pause": "agent-paused"}
"""Names that plans have for faults of the catalogue."""
BY_ITS_CONFIGURATION = ("cut-without-resuming",)
"""Not a fault of its own in a plan: ``cut-after-k-tokens`` with the engine's `resume: never`."""
OPENAI = "openai"
"""The engine that asks a server."""

_LONG = {full: short for short, full in SHORT.items()}
KINDS = tuple(_LONG.get(each.name, each.name) for each in FAULTS if each.name not in BY_ITS_CONFIGURATION)
"""Every kind of fault that a plan may name."""


def catalogued(kind: str) -> Fault:
    """The fault of the catalogue that a plan calls ``kind``, one of `KINDS`."""
    return BY_NAME[SHORT.get(kind, kind)]


def _known(kind: str) -> str:
    if kind in KINDS:
        return kind
    near = _LONG.get(kind) or nearest(kind, list(KINDS))
    hint = f"did you mean {near!r}? " if near else ""
    if kind in BY_ITS_CONFIGURATION:
        hint = "it is `cut-after-k-tokens` with the engine's `resume: never`; "
    raise ValueError(f"there is no fault {kind!r} in an experiment: {hint}known: {', '.join(KINDS)}")


def _listed(schema: dict[str, Any]) -> None:
    schema["enum"] = list(KINDS)


FaultKind = Annotated[str, pydantic.AfterValidator(_known), pydantic.Field(json_schema_extra=_listed)]


class StandInServers(Section):
    """Servers with OpenAI's API in the place of models: one behind each agent, whose engine is `openai`. They answer
    with as many tokens as they are asked for, the same ones to the same prompt, and fail as a fault says."""

    pace: Time = pydantic.Field(20.0, validate_default=False, description="time between two tokens, such as 20 ms")


def fault_without(kind: str, *, network: bool, own_agents: bool, agents_where: str, engine: str, stand_in: bool) -> str:
    """What an arm lacks for a fault of ``kind``, in words; empty when it lacks nothing. ``own_agents``: its agents are
    processes of the cell, else ``agents_where`` says where they are."""
    fault = catalogued(kind)
    if fault.needs == "network" and not network:
        return "cuts the network, and the arm {arm} has none: set `network`"
    if fault.crosses and not own_agents:
        where = f"and in the arm {{arm}} the agents are {agents_where}: leave that level out"
        return f"has a fault of an agent's process, {where}"
    if fault.needs == "stand_in" and not stand_in:
        return "has a fault of the server behind an agent: set `stand_in`, such as `stand_in: {pace: 20 ms}`"
    if fault.needs == "stand_in" and engine != OPENAI:
        return (
            f"has a fault of the server behind an agent, and in the arm {{arm}} the engine is {engine}: choose openai"
        )
    return ""
