"""Looks at the fleet whenever it changes, and has done what the plan says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from anywire.clock import Timer
from anywire.context import Context
from anywire.selector import AgentView
from anywire_service_placement.absences import Absences
from anywire_service_placement.config import PlacementConfig, WantedModel
from anywire_service_placement.fleet import Fleet, counting
from anywire_service_placement.listings import TIMEOUT, Listings
from anywire_service_placement.moves import Moves
from anywire_service_placement.pauses import Pauses
from anywire_service_placement.places import Place, Plan, Step, Wanted
from anywire_service_placement.planner import plan
from anywire_service_placement.report import agent_report, model_report, moves_report

log = logging.getLogger(__name__)

TOGETHER = 0.05
"""Seconds in which changes are looked at together."""
RECHECK = 5.0
"""Seconds until agents are asked again where something waits for a model to be idle or unpinned, which no agent
reports by itself; doubles up to `RECHECK_MAX`."""
RECHECK_MAX = 60.0
LEAST_LAG = 2.0
"""Seconds for which an answer to a command counts at least before the agent's report shows it."""


class Keeper:
    """The one owner of what placement knows. ``publish`` tells an event by its name and data."""

    def __init__(
        self,
        context: Context,
        config: PlacementConfig,
        wanted: Mapping[str, WantedModel],
        publish: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._context, self._config, self._publish = context, config, publish
        self._pauses = Pauses(config.retry_min, config.retry_max)
        self._absences = Absences(config.absence)
        lag = max(config.absence, LEAST_LAG)
        self._moves = Moves(context, self._pauses, config.load_timeout, lag, self._moved, publish)
        self._listings = Listings(context, self.changed)
        self._fleet = Fleet(context, self._listings, self._moves)
        self._begins_at = context.clock.now() + config.absence
        self._unmet: Mapping[str, str] = {}
        self._awaits_since: float | None = None
        """Since when agents are asked that have never told: what fits where is not known yet."""
        self._over_since: dict[str, float] = {}
        self._recheck_at, self._recheck_pause = 0.0, RECHECK
        self._soon: Timer | None = None
        self._timer: Timer | None = None
        self._stopped = False
        self._set_wanted(wanted)
        self._expect(self._asked)

    @property
    def wanted(self) -> Mapping[str, WantedModel]:
        return self._wanted

    def want(self, wanted: Mapping[str, WantedModel]) -> None:
        """Want these replicas from now on, and try at once what has failed before."""
        self._set_wanted(wanted)
        self._expect(self._asked)
        self._pauses.forget()
        self._moves.forget_refusals()
        self._listings.expire_all()
        self._over_since.clear()
        self.changed()

    def changed(self) -> None:
        """Look at the fleet soon."""
        if self._soon is None and not self._stopped:
            self._soon = self._context.clock.call_later(TOGETHER, self._look)

    def stop(self) -> None:
        """Begin nothing more."""
        if not self._stopped:
            self._context.expect_models(())
        self._stopped = True
        self._cancel_timers()

    async def close(self) -> None:
        self.stop()
        await self._moves.close()
        await self._listings.close()

    def report(self) -> dict[str, Any]:
        """See `docs/how-to/placement.md`."""
        now = self._context.clock.now()
        agents = self._fleet.agents(self._asked)
        places = self._fleet.places(agents, now)
        return {
            "object": "placement",
            "models": model_report(self._wanted, self._asked, places, self._unmet),
            "agents": agent_report(places, self._fleet.listings(agents), self._fleet.faults(agents)),
        } | moves_report(self._moves, now)

    @property
    def moves(self) -> Moves:
        return self._moves

    @property
    def unmet(self) -> Mapping[str, str]:
        return self._unmet

    # Inside

    def _set_wanted(self, wanted: Mapping[str, WantedModel]) -> None:
        self._wanted = dict(wanted)
        self._asked = {model: Wanted(each.replicas, frozenset(each.agents)) for model, each in wanted.items()}

    def _expect(self, models: Collection[str]) -> None:
        """Tasks for what is loaded soon wait for it: those of an agent that was lost, and new ones."""
        expected = [model for model in models if model in self._asked and self._asked[model].replicas]
        self._context.expect_models(expected)

    def _moved(self, step: Step, done: bool) -> None:
        if done and step.action == "unload":
            self._absences.given_up((step.agent_id, step.model))
        self._listings.expire(step.agent_id)
        self.changed()

    def _cancel_timers(self) -> None:
        for timer in (self._soon, self._timer):
            if timer is not None:
                timer.cancel()
        self._soon = self._timer = None

    def _look(self) -> None:
        self._cancel_timers()
        if self._stopped:
            return
        now = self._context.clock.now()
        try:
            next_at = self._act(now)
        except Exception:
            log.exception("placement failed to look at the fleet; it looks again in %g s", RECHECK)
            next_at = now + RECHECK
        if next_at is not None and not self._stopped:
            self._timer = self._context.clock.call_later(max(TOGETHER, next_at - now), self._look)

    def _act(self, now: float) -> float | None:
        """Begin what is to be done now. When to look again, be there no change until then."""
        agents = self._fleet.agents(self._asked)
        in_service = [agent for agent in agents if self._fleet.in_service(agent)]
        self._listings.look(agents, in_service, now)
        places = self._fleet.places(agents, now)
        present = counting(places, self._asked)
        absent = self._absences.look(present, now)
        resting = self._pauses.resting(now)
        planned = plan(self._asked, places, absent=absent, resting=resting.keys())
        times = [self._absences.next, self._listings.next, *self._moves.times]
        if now < self._begins_at:
            return self._begins_at
        if not self._listings.awaits_first(in_service):
            self._awaits_since = None
        else:
            self._awaits_since = now if self._awaits_since is None else self._awaits_since
            if now < self._awaits_since + TIMEOUT:
                return self._awaits_since + TIMEOUT
        self._tell_unmet(_lasting(planned, places, self._unmet))
        self._expect(self._asked.keys() - self._unmet.keys() | {model for _, model in present} | absent.keys())
        over = _over(self._asked, places, planned)
        self._over_since = {model: self._over_since.get(model, now) for model in over}
        by_id = {agent.agent_id: agent for agent in agents}
        for step in (*planned.steps, *self._surplus_steps(planned, places, over, now)):
            self._begin(step, by_id)
        times += [since + self._config.settle for since in self._over_since.values()]
        times += resting.values() if planned.unmet else ()
        waits = bool(planned.unmet) or any(number > len(pairs) for number, pairs in over.values())
        times.append(self._recheck(waits, now))
        return min((each for each in times if each is not None and each > now), default=None)

    def _begin(self, step: Step, agents: Mapping[str, AgentView]) -> None:
        agent = agents.get(step.agent_id)
        if agent is not None and not self._moves.is_moving(agent.agent_id):
            self._moves.begin(step, agent)

    def _surplus_steps(
        self, planned: Plan, places: Sequence[Place], over: Mapping[str, tuple[int, list[str]]], now: float
    ) -> Iterator[Step]:
        busy = {place.agent_id for place in places if place.moving} | {step.agent_id for step in planned.steps}
        for model, (_, agent_ids) in over.items():
            if now < self._over_since[model] + self._config.settle:
                continue
            for agent_id in agent_ids:
                if agent_id not in busy:
                    busy.add(agent_id)
                    number = self._asked[model].replicas
                    why = f"more replicas are loaded than the {number} that {'is' if number == 1 else 'are'} wanted"
                    yield Step("unload", agent_id, model, why)

    def _recheck(self, waits: bool, now: float) -> float | None:
        """When agents are asked again for what waits: now they are, if it is time."""
        if not waits:
            self._recheck_at, self._recheck_pause = 0.0, RECHECK
            return None
        if self._recheck_at and now >= self._recheck_at:
            self._listings.expire_all()
            self._recheck_at = 0.0
            self._recheck_pause = min(2 * self._recheck_pause, RECHECK_MAX)
            self.changed()
        if not self._recheck_at:
            self._recheck_at = now + self._recheck_pause
        return self._recheck_at

    def _tell_unmet(self, unmet: Mapping[str, str]) -> None:
        before, self._unmet = self._unmet, unmet
        for model in unmet.keys() - before.keys():
            log.warning("placement: no place for %s: %s", model, unmet[model])
            self._publish("model.unmet", {"model": model, "reason": unmet[model]})
        for model in before.keys() - unmet.keys():
            self._publish("model.met", {"model": model})


def _lasting(planned: Plan, places: Sequence[Place], before: Mapping[str, str]) -> Mapping[str, str]:
    """What is unmet, without what may yet find room by what is under way."""
    under_way = bool(planned.steps) or any(place.moving and not place.late for place in places)
    return {model: why for model, why in planned.unmet.items() if model in before or not under_way}


def _over(wanted: Mapping[str, Wanted], places: Sequence[Place], planned: Plan) -> dict[str, tuple[int, list[str]]]:
    """Models of which more replicas are loaded than wanted: how many more, and at which agents they may be unloaded.
    Those at agents that are not to have the model go once it is loaded where it is to be."""
    idle: dict[str, list[str]] = {}
    for agent_id, model in planned.surplus:
        idle.setdefault(model, []).append(agent_id)
    found = {}
    for model, each in wanted.items():
        loaded = [place.agent_id for place in places if place.counts and _is_running(place, model)]
        inside = sum(each.allows(agent_id) for agent_id in loaded)
        if each.replicas <= inside and each.replicas < len(loaded):
            found[model] = (len(loaded) - each.replicas, idle.get(model, []))
    return found


def _is_running(place: Place, model: str) -> bool:
    replica = place.models.get(model)
    return replica is not None and replica.state == "running"
