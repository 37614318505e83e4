"""The pipeline: admit → queue → choose → send → stream back, written once for every transport.

It is event-driven and owns its state alone: a submission, a chunk, a freed slot or a change of the registry is handled
to its end where it comes in. Every task ends with exactly one final chunk or error. A task's way: `Intake` admits it,
the `Dispatcher` holds the queue and the choice, `Attempts` sends it, `Incoming` takes in what comes back, `AttemptEnds`
does what follows the end of an attempt, and `TaskEnds` ends the task. Here they are put together, started and closed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from anywire import errors
from anywire.agent_health import AgentHealth, HealthState, Order
from anywire.boundary import label
from anywire.caller import OPERATOR, Caller
from anywire.clock import Clock, SystemClock
from anywire.context import TaskRecord, TaskView
from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.identities.end_check import EndCheck
from anywire.identity import random_ids
from anywire.lease import AwakeTime
from anywire.messages import AgentStatus, Chunk, HubInfo
from anywire.offers import Offer
from anywire.pipeline.attempts.attempt_ends import AttemptEnds
from anywire.pipeline.attempts.attempts import Attempts
from anywire.pipeline.attempts.decide import Decide, Decider, decide
from anywire.pipeline.attempts.fallbacks import Fallbacks
from anywire.pipeline.attempts.hedging import Hedging
from anywire.pipeline.attempts.open_attempts import OpenAttempts
from anywire.pipeline.attempts.retries import Retries
from anywire.pipeline.attempts.task_ends import TaskEnds
from anywire.pipeline.fleet.ends import Ends
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.fleet.serving import Served
from anywire.pipeline.fleet.strangers import Strangers
from anywire.pipeline.health.failing_models import ModelAt
from anywire.pipeline.health.health import QUARANTINED, Health, Subject
from anywire.pipeline.intake.incoming import Incoming
from anywire.pipeline.intake.intake import Intake
from anywire.pipeline.intake.link_sink import LinkSink
from anywire.pipeline.observation.agent_observation import AgentObservation
from anywire.pipeline.observation.kept_decisions import KeptDecisions
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.orders.agent_orders import AgentOrders
from anywire.pipeline.orders.preemption import Preemption
from anywire.pipeline.orders.probes import Probes
from anywire.pipeline.queue.admission import Admission
from anywire.pipeline.queue.dispatcher import Dispatcher
from anywire.pipeline.queue.queue_room import QueueRoom
from anywire.pipeline.queue.waiting import Waiting
from anywire.pipeline.services.commands import Commands
from anywire.pipeline.services.dropped import Dropped
from anywire.pipeline.services.service_answers import ServiceAnswers
from anywire.pipeline.tasks.following import Follower
from anywire.pipeline.tasks.limits import CallerLimits
from anywire.pipeline.tasks.task import Task, task_view
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import Scheduler
from anywire.selector import AgentView, Candidates, Selector
from anywire.submission import Submission
from anywire.task_stream import TaskStream, with_note
from anywire.tracing import Tracing
from anywire.transport import Hub, Plane, Transport

__all__ = ["Orchestrator", "PipelineConfig"]


class Orchestrator:
    """A hub on every transport given, in order of preference, with one queue and one selector.

    On the plane ``client`` its agents are orchestrators: see `anywire.roles.client`. ``decide`` says what follows a
    failed attempt. ``end_check`` says which agents are let in; without it every one that the transports let in.

    `start` raises `TransportUnavailable` when the only transport, or every one, fails to open; with several, those
    that open are used and the others are tried again.
    """

    def __init__(
        self,
        info: HubInfo,
        transports: Sequence[Transport],
        scheduler: Scheduler,
        selector: Selector,
        *,
        config: PipelineConfig | None = None,
        plugins: Plugins | None = None,
        clock: Clock | None = None,
        plane: Plane = "agent",
        decide: Decide = decide,
        end_check: EndCheck | None = None,
    ) -> None:
        self.info = info
        self._plane: Plane = plane
        self.config = config = config.model_copy(deep=True) if config is not None else PipelineConfig()
        self.clock = clock = clock or SystemClock()
        plugins = plugins or Plugins()
        self.boundary = boundary = plugins.boundary
        self.transports = tuple(transports)
        """In order of preference."""
        self._names = [transport.name for transport in transports]
        self._counts = counts = Counter[str]()
        self._listeners: list[Callable[[], None]] = []
        self.events = events = EventBus(boundary, clock)
        """Everything that happens; see `anywire.events`."""
        self.tracing = tracing = Tracing(boundary)
        """Where a service makes traces; see `anywire.tracing`."""
        subscribe = plugins.call("anywire_subscribe")
        if subscribe is not None:
            subscribe(events=events)
        selector_name = label("selector", selector).removeprefix("selector ")
        self._kept = kept = KeptDecisions(config.explained_tasks, selector_name)
        self._observation = observation = Observation(events, kept, scheduler, selector, boundary, clock)
        self._agent_observation = AgentObservation(events)
        breaker = config.breaker
        if plane == "client":  # an orchestrator is not asked to answer made-up tasks
            breaker = breaker.model_copy(update={"quarantine_trips": 0})
        self.health = health = Health(clock, self._health_changed, self._probe, breaker)
        self._retries = retries = Retries(config.retries, clock, counts, plane == "agent")
        self._dropped = dropped = Dropped(counts)
        awake = AwakeTime(clock)
        leased = [transport.capabilities.liveliness != "native" for transport in transports]
        self.registry = registry = Registry(self._names, leased, self, awake, health, counts, config.breaker.slow_start)
        self._hubs: Ends[Hub] = Ends(transports, self._open_hub, lambda hub: None, clock)
        filters = plugins.call("anywire_filter_candidates")
        self._waiting = waiting = Waiting(clock, scheduler.uses_priority)
        room = QueueRoom(config, scheduler, registry, waiting)
        self._dispatcher = dispatcher = Dispatcher(
            scheduler, selector, registry, self, boundary, filters, clock, events, room, health
        )
        self.services = services = ServiceAnswers(self, boundary, clock, config)
        """What services do for tasks; `anywire.roles.service_host` adds them."""
        self.limits = limits = CallerLimits(clock)
        """What callers have used of their limits; `anywire.roles.kept_budgets` keeps it over a restart."""
        self._admission = admission = Admission(config, registry, limits)
        hub_id, hubs = info.hub_id, self._hubs
        open_attempts = OpenAttempts(hub_id, hubs, registry, boundary, clock)
        self._wasted = open_attempts.wasted
        self._ends = ends = TaskEnds(
            open_attempts, dispatcher, services, registry, admission, limits, waiting, observation, clock, config
        )
        self._tasks = ends.tasks
        hedging: Hedging | None = None
        if config.hedging.share:
            hedging = Hedging(config.hedging, config.retries.repeat, dispatcher, clock)
        fallbacks = Fallbacks(config, admission, registry, ends.absence, dispatcher, observation, counts)
        ends.absence.fall_back = fallbacks.when_nobody_serves
        decider = Decider(decide, health, boundary)
        self._attempt_ends = attempt_ends = AttemptEnds(
            hub_id,
            open_attempts,
            ends,
            dispatcher,
            registry,
            health,
            decider,
            counts,
            events,
            observation,
            clock,
            retries,
            fallbacks,
            config.resume_bytes if config.resume else 0,
        )
        self.attempts = attempts = Attempts(
            hub_id,
            hubs,
            open_attempts,
            registry,
            health,
            boundary,
            attempt_ends,
            awake,
            counts,
            config,
            observation,
            plane,
            retries,
            hedging,
            tracing,
        )
        self._incoming = Incoming(
            hub_id, attempts, open_attempts, attempt_ends, awake, counts, dropped, config, observation, hedging
        )
        self._preemption: Preemption | None = None
        if config.preemption.urgent is not None:
            self._preemption = preemption = Preemption(
                config.preemption,
                config.retries.repeat,
                ends.tasks,
                open_attempts,
                attempt_ends,
                dispatcher,
                registry,
                counts,
                clock,
            )
            attempt_ends.preempted_ended, attempt_ends.waits_again = preemption.ended, preemption.waits
        task_ids = random_ids()
        self._probes = Probes(registry, health, attempts, ends, observation, task_ids, clock)
        self._orders = orders = AgentOrders(
            registry, health, open_attempts, attempt_ends, self._agent_observation, counts
        )
        ends.absence.why = orders.why_absent
        self._commands = Commands(
            hub_id, hubs, registry, clock, dropped, boundary, task_ids, services.before_command, observation
        )
        self.end_check = end_check
        """Who says which agents are let in; None where the transports alone do."""
        self._strangers: Strangers | None = None
        if end_check is not None:
            self._strangers = Strangers(info, plane, end_check, registry, hubs, task_ids, counts)
        self._intake = Intake(
            admission,
            room,
            waiting,
            services,
            dispatcher,
            attempts,
            ends,
            limits,
            self._preemption,
            fallbacks,
            scheduler,
            selector,
            task_ids,
            observation,
            clock,
            config,
            tracing,
        )

    # Life

    async def start(self) -> None:
        if self._strangers is not None:
            self._strangers.start(self.events)
        await self._hubs.open()
        self._observation.orchestrator_changed(self.info.hub_id, "open")

    def reconfigure(self, config: PipelineConfig) -> None:
        """Let the settings of ``config`` that may change (`anywire.pipeline_settings.LIVE`) count from now on."""
        self.config.take(config)

    @property
    def closing(self) -> bool:
        """Whether the gate is closed: nothing new is taken in, and nothing more is sent."""
        return self._admission.closed

    def close_gate(self) -> None:
        """Take no task in and send none from now on: what waits ends with `ShuttingDown`, what runs goes on."""
        was_closed, self._admission.closed = self._admission.closed, True
        self._dispatcher.close_gate()
        self._probes.close()
        if not was_closed:
            self._observation.orchestrator_changed(self.info.hub_id, "closing")
        for task in self._dispatcher.waiting_tasks():
            self._ends.fail(task, errors.ShuttingDown("the orchestrator shuts down"))

    async def close(self, grace: float = 0.0) -> None:
        """Close the gate, give the running tasks ``grace`` seconds, end what is left with an error, close the hubs."""
        self.close_gate()
        await self._ends.all_ended(grace)
        for task in list(self._tasks.values()):
            self._ends.give_up(task, errors.ShuttingDown("the orchestrator shuts down"))
        await self.services.close()
        self._ends.deadlines.close()
        self._commands.close()
        self.attempts.close()
        if self._preemption is not None:
            self._preemption.close()
        self.registry.close()
        self.health.close()
        await self._hubs.close()
        if self._strangers is not None:
            await self._strangers.close()
        self._observation.orchestrator_changed(self.info.hub_id, "closed")

    async def _open_hub(self, link: int, transport: Transport) -> Hub:
        own_id, dropped = self.info.hub_id, self._dropped
        sink = LinkSink(self.registry, self._incoming, self._commands, dropped, own_id, link, self._strangers)
        return await transport.open_hub(self.info, self._plane, sink)

    # What gateways call

    def submit(
        self, submission: Submission, by_service: bool = False, task_id: str = "", attempts: int = 0
    ) -> TaskStream:
        """Take a task in. ``by_service``: a service makes it, so its parent pays for it. ``task_id`` and ``attempts``
        are those of one that was taken in before (`anywire.context.Context.submit`). Raises `QueueFull`,
        `DeadlineTooShort`, `ModelNotFound`, `InvalidRequest`, `PayloadTooLarge`, `NoAgent`, `ShuttingDown`,
        `PluginFailed`, and of what the caller's limits do not allow `Forbidden` and `LimitReached`."""
        return self._intake.submit(submission, by_service, task_id, attempts)

    def cancel(self, task_id: str, reason: str = "cancelled", caller: Caller = OPERATOR) -> bool:
        """End a task with `TaskCancelled`, through to its engine; False when there is no such task (any more) that
        ``caller`` may end."""
        return self._ends.cancel_by(task_id, reason, caller)

    def end_caller(self, caller_id: str) -> None:
        """End all tasks and commands of the caller of that id with `Unauthenticated`: its key was revoked, or ran out.
        Nothing happens for the empty id, which nobody vouches for."""
        if caller_id:
            self._ends.end_caller(caller_id)
            self._commands.end_caller(caller_id)

    def tasks(self, caller: Caller = OPERATOR) -> list[TaskView]:
        """Those that have not ended and that ``caller`` sees, oldest first."""
        now = self.clock.now_ns()
        return [task_view(task, now) for task in self._tasks.values() if caller.sees(task.submission.caller)]

    def explain(self, task_id: str, caller: Caller = OPERATOR) -> TaskRecord | None:
        """See `anywire.context.Context.explain`."""
        task = self._tasks.get(task_id)
        record = self._kept.ended(task_id) if task is None else self._kept.running(task, self.clock.now_ns())
        return record if record is not None and caller.may_look_up(record.view.caller) else None

    def follow(self, task_id: str, caller: Caller = OPERATOR) -> AsyncGenerator[Chunk, None]:
        """See `anywire.context.Context.follow`."""
        task = self._ends.find(task_id, caller)
        if task is None:
            raise errors.InvalidRequest(f"no task {task_id[:80]!r} is under way", param="task_id")
        return Follower(task.stream)

    def note(self, task_id: str, name: str, value: str) -> None:
        """See `anywire.context.Context.note`."""
        task = self._tasks.get(task_id)
        notes = with_note(task.stream.notes if task is not None else {}, name, value)
        if task is not None:
            task.stream.notes = notes

    def command(
        self,
        target: Sequence[str],
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline: float = 60.0,
        caller: Caller = OPERATOR,
    ) -> AsyncGenerator[Any, None]:
        """See `anywire.context.Context.command`."""
        if caller.role != "operate":
            self._observation.command_ended(target, name, caller, errors.Forbidden.code)
            raise errors.Forbidden(f"commands are for the role operate, this caller has the role {caller.role}")
        return self._commands.run(target, name, arguments, deadline, caller)

    def agents(self) -> list[AgentView]:
        return self.registry.agents()

    def agent_health(self, agent_id: str) -> AgentHealth:
        """See `anywire.context.Context.agent_health`."""
        health = self._orders.report(agent_id)
        slow_start, links = self.registry.slow_start(agent_id), self._unwell_links(agent_id)
        models = {} if self.health.all_ok else self.health.models(agent_id)
        if not slow_start and not links and not models:
            return health
        return msgspec.structs.replace(health, slow_start=slow_start, links=links, models=models)

    def order_agent(self, agent_id: str, order: Order, reason: str = "", caller: Caller = OPERATOR) -> AgentHealth:
        """See `anywire.context.Context.order_agent`."""
        self._orders.order(agent_id, order, reason, caller)
        self._dispatcher.offer_held()
        return self.agent_health(agent_id)

    async def agents_until(self, condition: Callable[[list[AgentView]], bool]) -> None:
        """Wait until the agents known fulfil ``condition``; it is asked again at every change of theirs."""
        changed = asyncio.Event()
        stop_listening = self.listen(changed.set)
        try:
            while not condition(self.agents()):
                changed.clear()
                await changed.wait()
        finally:
            stop_listening()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever an agent came, went, or changed state, offers or slots; returns what ends that."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def expect_models(self, source: str, models: Collection[str]) -> None:
        """See `anywire.context.Context.expect_models`."""
        self.registry.serving.expect(source, models)

    def models(self, caller: Caller = OPERATOR) -> list[str]:
        """Those that ``caller`` may use."""
        models, limits = self.registry.models(), caller.limits
        return [model for model in models if limits.allows_model(model)] if limits.models else models

    def offers(self, caller: Caller = OPERATOR) -> dict[str, list[tuple[str, Offer]]]:
        """See `anywire.context.Context.offers`."""
        found: dict[str, list[tuple[str, Offer]]] = {}
        for member, offer in self.registry.serving.offers():
            if caller.limits.allows_model(offer.model):
                found.setdefault(offer.model, []).append((member.view.agent_id, offer))
        return dict(sorted(found.items()))

    def resumable_models(self) -> dict[str, str]:
        """Models whose answers go on here from a text (`Submission.resume`), each with the digest of its weights. None
        where streams are not resumed, or a service stands before tasks, which might answer from the beginning."""
        if not self.config.resume or self.services.stand_before:
            return {}
        own = {offer.model for _, offer in self.services.offers()}
        found = self.registry.serving.weights()
        return {model: digest for model, digest in found.items() if model not in own}

    @property
    def waiting(self) -> int:
        """How many tasks are queued or held."""
        return self._dispatcher.waiting

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        waiting = self.waiting
        failures = self.boundary.failures
        return {
            "tasks": {"running": len(self._tasks) - waiting, "queued": waiting, "ended": dict(self._ends.outcomes)},
            "transports": {name: self._attempt_ends.by_transport[name] for name in self._names},
            "agents": len(self.registry.agents()),
            "events": dict(self._counts)
            | {"limits_reached": self.limits.refused}
            | {"transports_unavailable": self._hubs.failures, "plugin_failures": failures.total()},
            "admission": self._waiting.stats(),
            "hedging": {"wasted_s": self._wasted.seconds, "wasted_tokens": self._wasted.tokens},
            "retries": self._retries.stats(),
            "plugin_failures": dict(failures),
        } | self._ends_waiting()

    def _ends_waiting(self) -> dict[str, Any]:
        """Who waits to be let in, where that is checked."""
        if self.end_check is None:
            return {}
        return {"ends_waiting": [msgspec.structs.asdict(each) for each in self.end_check.waiting]}

    # What the dispatcher asks

    def send(self, task: Task, agent: AgentView, model: str, candidates: Candidates) -> None:
        if task.agent_timer is not None:
            self._ends.absence.end(task)
        if task.wait is not None:
            self._waiting.ends(task, True)
        self._observation.task_dispatched(task, agent, model, candidates)
        self.attempts.send(task, agent, model)

    def task_held(self, task: Task, why: str) -> None:
        self._observation.task_held(task, why)

    def fail_task(self, task: Task, error: AnywireError) -> None:
        self._ends.fail(task, error)

    # What services tell

    def service_answered(self, task: Task, final: Chunk) -> None:
        task.stream.stages.delivered = self.clock.now_ns()
        self._ends.end(task, "", final=final)

    def release(self, task: Task) -> None:
        self._dispatcher.release(task)
        if task.place != "ended":
            self._ends.absence.check(task)
            self._dispatcher.dispatch()
            if task.place == "queued":
                self._waiting.released(task)
                if self._preemption is not None:
                    self._preemption.waits(task)

    def end_child(self, task_id: str, reason: str) -> None:
        self._ends.cancel(task_id, reason)

    def reader_stalled(self, task: Task) -> None:
        self._ends.reader_stalled(task)

    # What the registry tells

    def agent_joined(self, agent: AgentView) -> None:
        self._counts["agents_joined"] += 1
        self._agent_observation.agent_joined(agent)

    def agent_changed(self, agent: AgentView, before: AgentStatus) -> None:
        self._agent_observation.agent_changed(agent, before)

    def link_joined(self, agent: AgentView, link: int) -> None:
        self.attempts.link_joined(agent, link)
        self._agent_observation.link_up(agent, self._names[link])

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        self._counts["links_lost"] += 1
        self.attempts.link_lost(agent, link, reason)
        self._commands.link_lost(agent, link, reason)
        self._agent_observation.link_lost(agent, self._names[link], reason)

    def link_chosen(self, agent: AgentView, fallback: bool) -> None:
        self._counts["fallbacks" if fallback else "preferred_links_restored"] += 1

    def agent_lost(self, agent: AgentView, reason: str) -> None:
        self._counts["agents_lost"] += 1
        self._agent_observation.agent_lost(agent, reason)
        if self.config.fallbacks:
            # Nothing else follows where nothing ran on it, and what waited for it may have fallen back.
            self._dispatcher.dispatch()

    def slow_start(self, agent: AgentView, given: int) -> None:
        self._agent_observation.slow_start(agent, given)

    def agents_changed(self) -> None:
        for listener in list(self._listeners):
            self.boundary.call("listener", "agents_changed", listener, otherwise=None)

    def capacity_changed(self) -> None:
        self._dispatcher.offer_held()

    def served(self, served: Sequence[Served]) -> None:
        self._ends.absence.served(served)

    def unserved(self, served: Sequence[Served]) -> None:
        gone = set(served)
        for task in self._dispatcher.waiting_tasks():
            if any(key[:2] in gone for key in task.queued.keys):
                self._ends.absence.check(task)

    def _probe(self, agent_id: str, served: Served) -> bool:
        return self._probes.send(agent_id, served)

    def _unwell_links(self, agent_id: str) -> dict[str, HealthState]:
        """The state of each link's breaker that is not closed, by transport."""
        if self.health.all_ok:
            return {}
        states = ((name, self.health.state((agent_id, number))) for number, name in enumerate(self._names))
        return {name: state for name, state in states if state != "closed"}

    def _health_changed(self, subject: Subject) -> None:
        agent_id = subject if isinstance(subject, str) else subject[0]
        state = self.health.state(subject)
        self._counts["trips"] += state in ("open", QUARANTINED)
        if state == QUARANTINED:
            self._counts["quarantines"] += 1
            self.registry.bar(agent_id, QUARANTINED)
        elif isinstance(subject, str):
            self.registry.unbar(agent_id, QUARANTINED)
            if state == "closed":
                self.registry.begin_slowly(agent_id)
        transport = "" if isinstance(subject, str | ModelAt) else self._names[subject[1]]
        self._agent_observation.health_changed(
            subject, transport, self.health.report(subject), self.health.cause(subject), self.health.said(subject)
        )
        self.registry.health_changed(agent_id)
        if not self._attempt_ends.noting:
            self._dispatcher.offer_held()
