"""What is to be done next so that every wanted model has its replicas: a pure function of what the fleet is like.

Rules, in this order:

1. Nothing that serves, loads or is pinned is unloaded. No unload leaves a wanted model with fewer loaded replicas than
   it has to have, but for rule 6.
2. Where everything wanted is loaded nothing is done; a missing replica is the only reason to load.
3. A missing replica goes to an agent that has the model and room within its budget: before others one where the model
   has not crashed, that is not at work for long already, on a host with the fewest replicas of it, where the fewest
   models have to give way, with the fewest models, the most room and the least load.
4. Models give way that are not wanted, or of which more replicas are loaded than wanted.
5. Where no agent has room, another wanted model is first loaded at a further agent and then gives way: the shortest
   such chain counts, of at most `MAX_CHAIN` models.
6. Where not everything fits, first replicas go before second ones, and models in the order of the configuration: a
   model without a replica takes the place of another one's second, which has one more then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from anywire_service_placement.draft import Draft
from anywire_service_placement.places import Pair, Place, Plan, Step, Wanted
from anywire_service_placement.unmet import why_unmet

MAX_CHAIN = 3
"""Models that are loaded elsewhere so that another one finds room."""
MAX_TRIES = 2000
"""Agents that one plan looks at for such chains; in a fleet where that is not enough, what is missing is unmet."""
MAX_MOVES = 64
"""Moves of one plan. What is left is planned once these are under way, so that no plan takes long."""


def plan(
    wanted: Mapping[str, Wanted],
    places: Sequence[Place],
    *,
    absent: Mapping[str, int] | None = None,
    resting: Collection[Pair] = (),
) -> Plan:
    """The next steps. ``absent`` are replicas by model that are lost and still count. ``resting`` are those that are
    not to be started now."""
    draft = Draft(wanted, places, absent or {}, resting)
    tries = _Tries(MAX_TRIES)
    unmet: dict[str, str] = {}
    level = 0
    for number, model in _missing(wanted, draft):
        if number > level and unmet and draft.moves:
            break  # what is missing may find room by a chain once these are done: it goes before further replicas
        level = number
        if model in unmet:
            continue
        found = _found(draft, number, model, tries)
        if found is None:
            unmet[model] = why_unmet(model, draft)
            continue
        draft = found
        if len(draft.moves) >= MAX_MOVES:
            break
    steps = _steps(draft)
    return Plan(tuple(steps.values()), unmet, tuple(_surplus(wanted, draft)))


def _found(draft: Draft, number: int, model: str, tries: _Tries) -> Draft | None:
    replicas = draft.wanted[model].replicas
    why = "1 replica is wanted" if replicas == 1 else f"{replicas} replicas are wanted"
    for chain in range(MAX_CHAIN + 1):
        if chain and tries.left <= 0:
            break
        found = _placed(draft, model, chain, why, frozenset(), tries)
        if found is not None:
            return found
    return _placed(draft.sharing(number), model, 0, why, frozenset(), tries)


class _Tries:
    """How many more agents may be looked at."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _missing(wanted: Mapping[str, Wanted], draft: Draft) -> Iterator[tuple[int, str]]:
    """The models of missing replicas, first ones first, with how many come before each."""
    most = min(max((each.replicas for each in wanted.values()), default=0), len(draft.places) + 1)
    have = {model: draft.count(model) for model in wanted}
    for number in range(most):
        for model, each in wanted.items():
            if have[model] <= number < each.replicas:
                yield number, model


def _placed(draft: Draft, model: str, chain: int, why: str, avoid: frozenset[str], tries: _Tries) -> Draft | None:
    """The draft with one more replica of ``model``, for which ``chain`` other models are moved at most; None when there
    is no room. ``why`` it is loaded is for a person."""
    places = [place for place in draft.having(model) if place.agent_id not in avoid and draft.may_load(place, model)]
    found = []
    for place in places:
        victims = draft.victims(place, model)
        if victims is not None:
            found.append((draft.cost(place, model, victims), place, victims))
    if found:
        _, place, victims = min(found, key=lambda each: each[0])
        after = draft.copy()
        after.load(place, model, victims, why)
        return after
    if not chain:
        return None
    for place in sorted(places, key=lambda each: draft.cost(each, model, ())):
        if draft.could_ever(place, model):
            after_chain = _with_chain(draft, place, model, chain, why, avoid | {place.agent_id}, tries)
            if after_chain is not None:
                return after_chain
    return None


def _with_chain(
    draft: Draft, place: Place, model: str, chain: int, why: str, avoid: frozenset[str], tries: _Tries
) -> Draft | None:
    """The same, where wanted models at ``place`` are loaded elsewhere first."""
    after = draft.copy()
    for other in draft.movable(place):
        if not tries.take():
            return None
        # One of which more are on their way than wanted needs only time.
        comes = after.count(other) > after.wanted[other].replicas
        moved = after if comes else _placed(after, other, chain - 1, f"so that {model} finds room", avoid, tries)
        if moved is None:
            continue
        after = moved
        after.leave(place, other)
        victims = after.victims(place, model)
        if victims is not None:
            after.load(place, model, victims, why, waits=True)
            return after
    return None


def _steps(draft: Draft) -> dict[str, Step]:
    """The first step of each agent that can be done now."""
    steps: dict[str, Step] = {}
    for move in draft.moves:
        place = draft.places[move.agent_id]
        if move.waits or place.moving or place.agent_id in steps:
            continue
        if move.victims:
            steps[place.agent_id] = Step("unload", place.agent_id, move.victims[0], f"makes room for {move.model}")
        elif draft.has_room_now(place, move.model):
            steps[place.agent_id] = Step("load", place.agent_id, move.model, move.why)
    return steps


def _surplus(wanted: Mapping[str, Wanted], draft: Draft) -> Iterator[Pair]:
    """Idle replicas beyond those wanted, the first to go first: those at agents that may not have the model, then those
    on hosts with most of them, at agents with the least room."""
    for model, each in wanted.items():
        idle = [place for place in draft.having(model) if place.open and place.counts and draft.is_idle(place, model)]
        yield from ((place.agent_id, model) for place in idle if not each.allows(place.agent_id))
        inside = [place for place in idle if each.allows(place.agent_id)]
        while draft.ready(model) > each.replicas and inside:
            place = max(inside, key=lambda one: (draft.on_host(model, one.host), draft.fullness(one), one.agent_id))
            inside.remove(place)
            draft.leave(place, model)
            yield place.agent_id, model
