"""What is told of callers: commands, cancels, who is not let in. And services that stand before commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from anywire import errors, events
from anywire.access import ListsKeys, Presented
from anywire.boundary import Boundary
from anywire.caller import Caller
from anywire.context import Context
from anywire.event_bus import EventBus
from anywire.events import Event
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key
from anywire.roles.fleet_commands import FleetCommands
from anywire.roles.remembered import Remembered
from anywire.roles.told_access import told_access
from anywire.service import Service, ServiceConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, Script
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench

OPERATOR = Caller("key-1", "lab", "operate")
SECRET = "planted-secret-5c1f"


def told_of(bus: EventBus, *kinds: type[Event]) -> list[Any]:
    told: list[Any] = []
    bus.subscribe("test", told.append, *kinds)
    return told


def command(bench: ServiceBench, name: str = "count", target: Sequence[str] = ("agent",), **arguments: Any) -> Any:
    return bench.orchestrator.command(target, name, arguments, caller=OPERATOR)


async def test_a_command_is_told_when_it_begins_and_how_it_has_ended(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        told = told_of(bench.orchestrator.events, events.CommandBegun, events.CommandEnded)
        assert [each async for each in command(bench, count=2, note=SECRET)] == [0, 1]
        for failing in (command(bench, "dance"), command(bench, target=["nobody"])):
            with pytest.raises(errors.AnywireError):
                await anext(failing)
        with pytest.raises(errors.Forbidden):
            bench.orchestrator.command(["agent"], "count", caller=Caller("key-2", "lab", "observe"))
        results = command(bench, count=1, hold=True)
        await anext(results)
        await results.aclose()
    begun = [each for each in told if type(each) is events.CommandBegun]
    ended = [each for each in told if type(each) is events.CommandEnded]
    assert [(each.name, each.target) for each in begun] == [
        ("count", ("agent",)),
        ("dance", ("agent",)),
        ("count", ("nobody",)),
        ("count", ("agent",)),
    ]
    assert [(each.caller, each.tenant, each.role, each.error) for each in ended] == [
        ("key-1", "lab", "operate", ""),
        ("key-1", "lab", "operate", "unknown_command"),
        ("key-1", "lab", "operate", "agent_unavailable"),
        ("key-2", "lab", "observe", "forbidden"),
        ("key-1", "lab", "operate", "cancelled"),
    ]
    assert SECRET not in repr(told)


async def test_who_cancels_a_task_is_told_and_no_end_of_another_kind_is_taken_for_it(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        told = told_of(bench.orchestrator.events, events.TaskCancelledBy, events.TaskEnded)
        owner = Caller("key-2", "other")
        stream = bench.submit(Script("held", hold_after=0).body(), caller=owner)
        assert not bench.orchestrator.cancel(stream.task_id, SECRET, Caller("key-3", "third"))
        assert bench.orchestrator.cancel(stream.task_id, SECRET, OPERATOR)
        assert not bench.orchestrator.cancel(stream.task_id, SECRET, OPERATOR)
        bench.submit(Script("left", hold_after=0).body(), caller=owner).cancel("its reader went away")
    assert [type(each) for each in told] == [events.TaskCancelledBy, events.TaskEnded, events.TaskEnded]
    cancelled = told[0]
    assert (cancelled.task_id, cancelled.caller, cancelled.tenant) == (stream.task_id, "key-2", "other")
    assert (cancelled.by, cancelled.by_tenant, cancelled.by_role) == ("key-1", "lab", "operate")
    assert SECRET not in repr(cancelled)


async def test_a_child_that_ends_with_its_parent_was_cancelled_by_nobody(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        told = told_of(bench.orchestrator.events, events.TaskCancelledBy)
        parent = bench.submit(Script("parent", hold_after=0).body(), caller=OPERATOR)
        bench.submit(Script("child", hold_after=0).body(), parent=parent.task_id)
        parent.cancel("its reader went away")
        assert not bench.orchestrator.tasks()
    assert told == []


class Keys:
    """Access that knows one token."""

    needs_key = True

    def caller(self, presented: Presented) -> Caller:
        if presented.token != SECRET:
            raise errors.Unauthenticated("no such key")
        return OPERATOR

    def still(self, caller: Caller) -> Caller | None:
        return caller

    def listen(self, gone: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None


async def test_who_is_not_let_in_is_told_without_what_it_has_shown(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        access = told_access(Keys(), bench.orchestrator.events)
        told = told_of(bench.orchestrator.events, events.AccessRefused)
        assert access.needs_key
        assert access.caller(Presented(token=SECRET, peer="10.0.0.1")) == OPERATOR
        for shown in (
            Presented(token="planted-wrong-token", peer="10.0.0.2" * 1000),
            Presented(certificate="ab" * 32),
            Presented(public_key=b"k" * 32),
            Presented(uid=1000),
            Presented(),
        ):
            with pytest.raises(errors.Unauthenticated):
                access.caller(shown)
    assert [each.presented for each in told] == ["token", "certificate", "proof", "user", "nothing"]
    assert {each.message for each in told} == {"no such key"}
    assert len(told[0].peer) == 256
    assert "planted" not in repr(told)


async def test_keys_are_listed_through_it_without_that_of_the_run(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", record_of(new_key(), label="Ann", tenant="lab", role="observe"))
    bus = EventBus(Boundary())
    access = told_access(KeyAccess(tmp_path / "keys.json"), bus)
    assert isinstance(access, ListsKeys)
    assert [(each.label, each.tenant, each.role, each.state) for each in access.known_keys()] == [
        ("Ann", "lab", "observe", "active")
    ]
    unlisted = told_access(Keys(), bus)
    assert isinstance(unlisted, ListsKeys)
    assert list(unlisted.known_keys()) == []


class Consent(Service):
    """Stands before commands, and does what the test has it do."""

    name = "consent"
    before_timeout = 0.05

    def __init__(self, does: Callable[[], Any] = lambda: None) -> None:
        super().__init__(ServiceConfig())
        self.does, self.asked = does, list[tuple[Any, ...]]()

    async def start(self, context: Context) -> None: ...
    async def close(self) -> None: ...

    async def before_command(self, target: Sequence[str], name: str, caller: Caller) -> None:
        self.asked.append((tuple(target), name, caller))
        if (waiting := self.does()) is not None:
            await waiting


def refuse() -> None:
    raise errors.Refused("not today")


def break_down() -> None:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("does", "error", "failures"),
    [(refuse, errors.Refused, 0), (break_down, errors.PluginFailed, 1), (asyncio.Event().wait, errors.PluginFailed, 1)],
    ids=["refuses", "raises", "says nothing"],
)
async def test_a_command_that_a_service_does_not_let_go_is_not_sent(
    tmp_path: Path, does: Callable[[], Any], error: type[errors.AnywireError], failures: int
) -> None:
    willing, other = Consent(), Consent(does)
    async with service_bench(willing, other, state=tmp_path) as bench:
        told = told_of(bench.orchestrator.events, events.CommandEnded)
        with pytest.raises(error) as raised:
            await anext(command(bench, count=1))
        engine: Any = bench.agent.engine
        assert engine.recorder.named("command") == []
        other.does = willing.does
        assert [each async for each in command(bench, count=1)] == [0]
        assert bench.orchestrator.boundary.failures["service consent.before_command"] == failures
        stream = bench.orchestrator.submit(Submission("chat", MODEL, Script("t").body()))
        assert (await stream.result()).deltas, "tasks go on"
    assert willing.asked == [(("agent",), "count", OPERATOR)] * 2
    assert [each.error for each in told] == [error.code, ""]
    assert SECRET not in str(raised.value)


async def test_changes_of_the_keys_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = new_key()
    add_key(path, record_of(first, tenant="lab", role="observe"))
    bus = EventBus(Boundary())
    access = KeyAccess(path, bus=bus)
    told, came = told_of(bus, events.KeyChanged, events.ConfigReloaded), asyncio.Event()
    bus.subscribe("came", lambda event: came.set(), events.KeyChanged)

    async def changed() -> None:
        await expect(came.wait(), "a change is told")
        came.clear()

    await access.start()
    try:
        second = new_key()
        add_key(path, record_of(second))
        await changed()
        revoke_keys(path, [first.id])
        await changed()
        path.unlink()
        reloaded = asyncio.Event()
        bus.subscribe("failed", lambda event: reloaded.set(), events.ConfigReloaded)
        await expect(reloaded.wait(), "the failure is told")
    finally:
        await access.close()
    keys = [each for each in told if type(each) is events.KeyChanged]
    assert [(each.key_id, each.state, each.key_tenant, each.key_role) for each in keys] == [
        (second.id, "created", second.id, "use"),
        (first.id, "revoked", "lab", "observe"),
    ]
    reloads = [each for each in told if type(each) is events.ConfigReloaded]
    assert [(each.what, bool(each.error)) for each in reloads] == [("keys", False), ("keys", False), ("keys", True)]
    assert not any(key.secret in repr(told) for key in (first, second))


async def test_a_key_that_runs_out_is_told(tmp_path: Path) -> None:
    path, now, clock = tmp_path / "keys.json", [time.time()], SimulatedClock()
    key = new_key()
    add_key(path, record_of(key, tenant="lab", expires=now[0] + 60))
    bus = EventBus(Boundary())
    access = KeyAccess(path, bus=bus, clock=clock, now=lambda: now[0])
    told = told_of(bus, events.KeyChanged)
    await access.start()
    now[0] += 61
    clock.advance(61)
    await access.close()
    assert [(each.key_id, each.state) for each in told] == [(key.id, "expired")]


async def test_who_cancels_over_the_client_plane_is_told(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        told = told_of(bench.orchestrator.events, events.TaskCancelledBy)
        own = Remembered()
        commands = FleetCommands(bench.orchestrator, own)
        stream = bench.submit(Script("held", hold_after=0).body(), caller=Caller("client-1", "lab"))
        own.add("client-1", stream.task_id)
        arguments = {"task_id": stream.task_id}
        for client, is_its in (("client-2", False), ("client-1", True)):
            results = commands.carry_out("cancel", arguments, (), 0, Caller(client))
            assert [each async for each in results] == [{"cancelled": is_its}]
    assert [(each.by, each.caller) for each in told] == [("client-1", "client-1")]


@pytest.mark.parametrize("caller", [Caller(), Caller("key-9", "lab"), Caller("key-9")])
def test_what_is_told_of_access_is_for_those_alone_who_see_everything(caller: Caller) -> None:
    head: dict[str, Any] = {"id": "1-1", "at_ns": 1, "time": 1.0}
    told = (
        events.AccessRefused(**head, peer="10.0.0.1", presented="token", message="no"),
        events.KeyChanged(**head, key_id="abc", state="created", key_tenant="lab", key_role="use"),
        events.AdmissionChanged(**head, fingerprint="SHA256:x", end="agent", state="refused"),
        events.ConfigReloaded(**head, what="keys"),
    )
    assert not any(events.is_shown(event, caller) for event in told)
    assert all(events.is_shown(event, Caller("key-1", "other", "observe")) for event in told)
