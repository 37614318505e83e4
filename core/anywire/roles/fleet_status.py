"""What an orchestrator tells its clients, or a parent that it joins, of the fleet behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anywire.engine import EngineStatus
from anywire.messages import COMMON_KINDS
from anywire.offers import MAX_OFFERS, RESUME, Offer
from anywire.pipeline.fleet.claims import MAX_SLOTS
from anywire.pipeline.fleet.groups import KINDS
from anywire.pipeline.fleet.serving import DEPTH
from anywire.pipeline.orchestrator import Orchestrator


def status_for_clients(orchestrator: Orchestrator) -> EngineStatus:
    """The models of services and of agents that are ready. Clients may ask for any other, and for tasks of
    `COMMON_KINDS` of any: only the orchestrator refuses these, when it knows who asks."""
    fleet = orchestrator.registry.serving
    if not fleet.ready:
        return EngineStatus("starting", detail="no agent is ready yet", any_model=True)
    of_services = _of_services(orchestrator)
    of_agents = [
        Offer(model, _told((*COMMON_KINDS, *fleet.kinds(model)))) for model in _of_agents(orchestrator, of_services)
    ]
    return EngineStatus("ready", (*of_services, *of_agents), any_model=True)


def status_for_parent(orchestrator: Orchestrator, weights: Mapping[str, str]) -> EngineStatus:
    """The same with the fleet's slots and its depth. ``weights`` are digests of the weights of models whose answers go
    on here from a text. Failed when more than `pipeline.max_hops` orchestrators are below each other."""
    fleet = orchestrator.registry.serving
    limit = orchestrator.config.max_hops
    # Failed ones count: else two that join each other would recover and fail in turns.
    depth = min(limit, fleet.depth) + 1
    resources = {DEPTH: float(depth)}
    if depth > limit:
        detail = (
            f"more than {limit} orchestrators (pipeline.max_hops) are below each other: "
            "do they join each other in a circle?"
        )
        return EngineStatus("failed", (), detail, slots=0, resources=resources)
    if not fleet.ready:
        return EngineStatus("starting", detail="no agent is ready yet", slots=0, resources=resources)
    of_services = _of_services(orchestrator)
    of_agents = [
        _offer(model, _told(fleet.kinds(model)), weights.get(model), fleet.servers(model))
        for model in _of_agents(orchestrator, of_services)
    ]
    slots = min(fleet.ready_slots, MAX_SLOTS)
    return EngineStatus("ready", (*of_services, *of_agents), slots=slots, resources=resources)


def _of_services(orchestrator: Orchestrator) -> tuple[Offer, ...]:
    """The models that services here answer. They go before agents' models of that name."""
    found = [each for _, each in orchestrator.services.offers() if each.takes_tasks]
    return tuple([Offer(each.model, each.kinds or COMMON_KINDS, owner=each.owner) for each in found[:MAX_OFFERS]])


def _of_agents(orchestrator: Orchestrator, of_services: Sequence[Offer]) -> list[str]:
    """The other models that agents are ready for, in a kind of task that is known here: with those ``of_services`` as
    many as a parent takes from one agent."""
    names, fleet = {offer.model for offer in of_services}, orchestrator.registry.serving
    ready = [model for model in fleet.ready_models() if model not in names and fleet.kinds(model)]
    return ready[: MAX_OFFERS - len(of_services)]


def _told(kinds: Sequence[str]) -> tuple[str, ...]:
    """``kinds``, none where they are all: those of the orchestrator's capabilities count then."""
    found = tuple(dict.fromkeys(kinds))
    return () if len(found) == len(KINDS) else found


def _offer(model: str, kinds: tuple[str, ...], digest: str | None, servers: Sequence[str]) -> Offer:
    """``digest`` is that of its weights where answers go on here from a text, else None. ``servers`` are the servers of
    tools below, as needs."""
    features = dict.fromkeys(servers, True)
    if digest is None:
        return Offer(model, kinds, features)
    return Offer(model, kinds, {RESUME: True} | features, digest=digest)
