"""Two tenants on one orchestrator: nothing that one of them is told names anything of the other's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from anywire import errors
from anywire.builtin.fifo import Fifo
from anywire.caller import Caller, Limits
from anywire.errors import AnywireError
from anywire.event_bus import EventReader
from anywire.events import is_shown
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.context import OrchestratorContext
from anywire.roles.fleet_commands import ROLES_NEEDED, FleetCommands
from anywire.scheduler import QueuedTask, SchedulerConfig
from anywire.submission import Submission
from anywire.testing.doubles import MODEL
from anywire.testing.patience import expect
from anywire.testing.puppet import PuppetTransport
from anywire.views import event_json, task_json

Make = Callable[..., Any]

SECRET_MODEL = "acme-model"
ACME = Caller("acme-key", "acme-tenant", limits=Limits(concurrency=50, tokens_per_day=10_000, models=("*m*", MODEL)))
OTHER = Caller("other-key", "other-tenant", limits=Limits(models=(MODEL, "known"), concurrency=3, tokens_per_day=1000))
OBSERVER = Caller("observer", "observers", "observe")
PLANTED = "acme"
UNKNOWN_ID = "0" * 32


class Careless(Fifo):
    """Fails with words that name another task."""

    fails = ""

    def put(self, task: QueuedTask) -> None:
        if self.fails:
            raise KeyError(self.fails)
        super().put(task)

    def take(self, ready: Any, now_ns: int) -> QueuedTask | None:
        if self.fails:
            raise KeyError(self.fails)
        return super().take(ready, now_ns)


class Tenants:
    """A pipeline at which ``acme`` has tasks in every place, beside those of another tenant."""

    def __init__(self, pipeline: Orchestrator, wire: PuppetTransport, scheduler: Careless) -> None:
        self.pipeline, self.wire, self.scheduler = pipeline, wire, scheduler
        self.context = OrchestratorContext(pipeline)
        self.acmes: list[str] = []
        self.readers: dict[str, EventReader] = {}

    def read_events(self, caller: Caller) -> None:
        bus = self.pipeline.events
        self.readers[caller.id] = bus.reader(wants=lambda event: is_shown(event, caller), size=8)

    def act(self) -> None:
        """Everything that a tenant can do, with its name in all that it says."""
        for number in range(12):
            stream = self.pipeline.submit(
                Submission(
                    "chat",
                    SECRET_MODEL if number % 2 else MODEL,
                    '{"messages": "acme prompt"}',
                    True,
                    priority=number,
                    trace=f"00-{PLANTED}",
                    caller=ACME,
                    session="acme-session",
                    parent=self.acmes[0] if self.acmes else "",
                    policy="acme-policy",
                    hints={"acme": "acme"},
                    prefer=("acme-agent",),
                )
            )
            self.acmes.append(stream.task_id)
        request = self.wire.requests[0][1]
        self.wire.progress(request, "running", "acme detail")
        self.wire.chunk(request, 0, "acme answer")
        self.pipeline.cancel(self.acmes[2], "acme reason", ACME)
        self.pipeline.events.publish_plugin("service", "done", {"of": "acme"}, tenant=ACME.tenant, caller=ACME.id)
        self.pipeline.boundary.failed("service x", "answer", "acme words", self.acmes[0])

    async def events(self, caller: Caller) -> list[Any]:
        """What it has been told as it happened, and what it is told of the past."""
        live = self.readers[caller.id]
        live.close()
        told = [event_json(event) async for event in live]
        first = next(iter(self.pipeline.events._history)).id
        async with self.pipeline.events.reader(after=first, wants=lambda event: is_shown(event, caller)) as reader:
            reader.close()
            return told + [event_json(event) async for event in reader]

    async def commanded_events(self, caller: Caller, last: str) -> list[Any]:
        """What the command ``events`` tells of the past, up to the event of the id ``last``."""
        arguments = {"after": next(iter(self.pipeline.events._history)).id}
        results = FleetCommands(self.pipeline, None).carry_out("events", arguments, (), 0, caller)
        told: list[Any] = []
        async with aclosing(results):  # type: ignore[type-var]
            while not told or told[-1]["id"] != last:
                told.append(await expect(anext(results), "the next event"))
        return told

    async def commanded(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Every command that an orchestrator has, with a task's id, as an orchestrator below another one is asked."""
        commands = FleetCommands(self.pipeline, None)
        told: dict[str, Any] = {}
        for name in ROLES_NEEDED:
            given = {"task_id": task_id, "reason": "mine", "types": "task.*"}
            try:
                results = commands.carry_out(name, given, (), 0, caller)
            except AnywireError as error:
                told[name] = told_of(error)
            else:
                told[name] = await outcome(results, endless=name == "events")
        return told

    async def asked(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """What concerns a task of that id."""
        child = self.pipeline.submit(Submission("chat", MODEL, "{}", caller=caller, parent=task_id))
        told: dict[str, Any] = {"with a parent": [each.why for each in self.pipeline.tasks(caller)]}
        child.cancel("enough")
        try:
            self.pipeline.follow(task_id, caller)
        except AnywireError as error:
            told["follow"] = told_of(error)
        told["cancel"] = self.pipeline.cancel(task_id, "mine", caller)
        return told | await self.commanded(caller, task_id)

    def refused(self, caller: Caller) -> list[Any]:
        """Every error at the submission of a task, and one of a task that is under way."""
        told: list[Any] = []

        def submit(model: str = MODEL, body: str = "{}", by: Caller = caller, **fields: Any) -> Any:
            try:
                return self.pipeline.submit(Submission("chat", model, body, caller=by, **fields))
            except AnywireError as error:
                told.append(told_of(error))
                return None

        submit("guessed")
        submit("known")
        submit(body='{"max_tokens": 1000}')
        submit()
        submit(by=msgspec.structs.replace(caller, limits=Limits(requests_per_minute=1, concurrency=1)))
        self.scheduler.fails = self.acmes[0]
        submit(by=msgspec.structs.replace(caller, id="other-2", limits=Limits()))
        self.wire.report("a", slots=3, models=(MODEL, SECRET_MODEL))  # somebody's task ends with what `take` raises
        self.scheduler.fails = ""
        while self.pipeline.waiting < 30:
            self.pipeline.submit(Submission("chat", MODEL, "{}", caller=msgspec.structs.replace(ACME, limits=Limits())))
        submit(by=msgspec.structs.replace(caller, id="other-3", limits=Limits()))
        return told


def told_of(error: AnywireError) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(errors.to_wire(error))
    return told | {"task_id": error.task_id, "agent_id": error.agent_id}


async def outcome(results: AsyncIterator[Any], endless: bool = False) -> list[Any]:
    """All results, and the error at the end."""
    if endless:
        await results.aclose()  # type: ignore[attr-defined]
        return []
    told: list[Any] = []
    try:
        async for result in results:
            told.append({**result, "time": 0} if isinstance(result, dict) and "time" in result else result)
    except AnywireError as error:
        told.append(told_of(error))
    return told


@pytest.fixture
async def tenants(pipeline_of: Make, wire: PuppetTransport) -> Tenants:
    scheduler = Careless(SchedulerConfig(max_queue_size=30))
    found = Tenants(await pipeline_of(wire, scheduler=scheduler), wire, scheduler)
    for caller in (OTHER, OBSERVER, ACME):
        found.read_events(caller)
    wire.join("a", slots=2, models=(MODEL, SECRET_MODEL))
    found.act()
    return found


async def test_nothing_that_a_tenant_is_told_names_another_one(tenants: Tenants) -> None:
    mine = tenants.pipeline.submit(Submission("chat", MODEL, "{}", True, caller=OTHER))
    context = tenants.context
    told: dict[str, Any] = {"errors": tenants.refused(OTHER)}
    told["tasks"] = [task_json(view) for view in context.tasks(OTHER)]
    told["models"] = [context.models(OTHER), {name: len(found) for name, found in context.offers(OTHER).items()}]
    told["commands"] = await tenants.commanded(OTHER, mine.task_id)
    tenants.wire.lose("a")
    told["events"] = await tenants.events(OTHER)
    own = [each["id"] for each in told["events"] if each.get("task_id") == mine.task_id]
    told["commanded events"] = await tenants.commanded_events(OTHER, own[-1])
    text = repr(told) + json.dumps(told)
    for planted in (PLANTED, *tenants.acmes):
        found = text.find(planted)
        assert found < 0, text[max(0, found - 200) : found + 100]
    # It has been told of its own, and of every kind of error.
    assert mine.task_id in text
    assert {each["code"] for each in told["errors"]} >= {
        "forbidden",
        "model_not_found",
        "limit_reached",
        "plugin_failed",
        "queue_full",
    }
    # The same looked at by one who may observe has it all: the test looks where it can be found.
    observed = json.dumps(
        [
            await tenants.events(OBSERVER),
            [task_json(view) for view in context.tasks(OBSERVER)],
            context.models(OBSERVER),
        ]
    )
    for planted in ("acme-tenant", "acme-key", "acme-session", "00-acme", "acme detail", "acme reason", SECRET_MODEL):
        assert planted in observed


async def test_a_task_of_another_tenant_is_like_none(tenants: Tenants) -> None:
    before = [view.task_id for view in tenants.pipeline.tasks(ACME)]
    for task_id in (tenants.acmes[0], before[-1]):
        of_another = json.dumps(await tenants.asked(OTHER, task_id)).replace(task_id, "ID")
        of_nobody = json.dumps(await tenants.asked(OTHER, UNKNOWN_ID)).replace(UNKNOWN_ID, "ID")
        assert of_another == of_nobody
    assert [view.task_id for view in tenants.pipeline.tasks(ACME)] == before


async def test_what_is_about_the_fleet_is_for_who_observes_where_there_are_keys(tenants: Tenants) -> None:
    anybody = Caller(tenant="mine")
    tenants.read_events(anybody)
    for caller, seen in ((OTHER, False), (ACME, False), (anybody, True), (OBSERVER, True)):
        told = {each["type"] for each in await tenants.events(caller)}
        assert {"link.up", "offer.changed"} & told == ({"link.up", "offer.changed"} if seen else set())


async def test_events_that_are_missed_are_ones_own(tenants: Tenants) -> None:
    told = await tenants.events(OTHER)
    # Acme's filled a reader of eight events several times over.
    assert "missed" not in {each["type"] for each in told}
    assert "missed" in {each["type"] for each in await tenants.events(ACME)}
