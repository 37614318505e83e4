"""The laws of the event bus: order, names of those that fail, readers that are slow or come back."""

import asyncio
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire import event_bus
from anywire.boundary import Boundary
from anywire.errors import ConfigError
from anywire.event_bus import EventBus, EventReader, Missed, Reset
from anywire.events import (
    EVENTS,
    ON_REQUEST,
    AnyEvent,
    Event,
    LinkUp,
    PluginEvent,
    TaskHeld,
    TaskPrefix,
    read_types,
)
from anywire.testing.clock import SimulatedClock


class Bus(EventBus):
    """With what its boundary counts, told as the pipeline does."""

    def __init__(self, clock: SimulatedClock | None = None) -> None:
        self.boundary = Boundary()
        super().__init__(self.boundary, clock or SimulatedClock())

    def up(self, agent_id: str) -> None:
        self.publish(LinkUp, agent_id=agent_id, incarnation=1, transport="puppet")


@pytest.fixture
def bus() -> Bus:
    return Bus()


def number(event: Event) -> int:
    return int(event.id.rpartition("-")[2])


async def rest(reader: EventReader) -> list[Any]:
    """What a reader has that is closed now."""
    reader.close()
    return [each async for each in reader]


def names(events: list[Any]) -> list[Any]:
    return [each.agent_id if isinstance(each, LinkUp) else each for each in events]


# Publishing


def test_without_a_subscriber_no_event_is_made(bus: Bus) -> None:
    bus.publish(LinkUp, nonsense=1)  # would raise if it were made
    bus.publish_plugin("me", "bad", object())
    seen: list[Event] = []
    bus.subscribe("me", seen.append, TaskHeld)
    bus.publish(LinkUp, nonsense=1)
    assert not seen
    assert bus.wanted == {TaskHeld}


def test_each_event_has_a_head_and_ids_grow_by_one(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("me", seen.append)
    for _ in range(3):
        bus.up("a")
    first = seen[0]
    assert [number(event) for event in seen] == [1, 2, 3]
    assert len({event.id.partition("-")[0] for event in seen}) == 1
    assert (first.version, first.at_ns, first.tenant, first.priority) == (1, SimulatedClock().now_ns(), "", 0)
    assert first.time > 1.7e9


def test_every_type_is_named_and_read_back_from_json() -> None:
    import msgspec

    bus, seen = Bus(), list[Event]()
    bus.subscribe("me", seen.append)
    bus.publish_plugin("me", "done", {"n": 1}, tenant="t")
    text = msgspec.json.encode(seen[0])
    assert b'"type":"plugin.event"' in text
    assert msgspec.json.decode(text, type=AnyEvent) == seen[0]
    assert all(kind.__struct_config__.tag == name for name, kind in EVENTS.items())


def test_what_a_subscriber_publishes_comes_after_the_event_it_was_called_for(bus: Bus) -> None:
    seen: list[str] = []
    depth = 0

    def answering(event: LinkUp) -> None:
        nonlocal depth
        depth += 1
        assert depth == 1, "called again while it was called"
        seen.append(f"first {event.agent_id}")
        if event.agent_id == "a":
            bus.up("b")
            bus.up("c")
        depth -= 1

    bus.subscribe("first", answering, LinkUp)
    bus.subscribe("second", lambda event: seen.append(f"second {event.agent_id}"), LinkUp)
    bus.up("a")
    assert seen == [f"{who} {agent}" for agent in "abc" for who in ("first", "second")]


def test_a_hold_keeps_events_until_the_outermost_one_ends(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("me", seen.append)
    bus.hold()
    bus.up("a")
    bus.hold()
    bus.up("b")
    bus.release()
    assert not seen
    bus.release()
    assert names(seen) == ["a", "b"]


def test_a_subscriber_that_raises_is_named_and_the_others_get_the_event(bus: Bus, caplog: Any) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("no")

    bus.subscribe("bad", broken)
    bus.subscribe("good", seen.append)
    bus.up("a")
    assert names(seen) == ["a"]
    assert bus.boundary.failures == {"subscriber bad.LinkUp": 1}
    assert "subscriber bad" in caplog.text


def test_a_subscriber_that_answers_every_event_with_another_is_stopped(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("echo", lambda event: bus.up("again"), LinkUp)
    bus.subscribe("me", seen.append)
    bus.up("a")
    assert len(seen) == event_bus.MAX_CAUSED
    assert bus.boundary.failures == {"subscriber echo.publish": 1}
    bus.up("b")
    assert len(seen) == 2 * event_bus.MAX_CAUSED, "the next event is delivered as ever"


def test_many_events_that_one_event_causes_are_all_delivered(bus: Bus) -> None:
    seen: list[Event] = []

    def cause_many(event: LinkUp) -> None:
        for each in range(1000 if event.agent_id == "a" else 0):
            bus.up(str(each))

    bus.subscribe("many", cause_many, LinkUp)
    bus.subscribe("me", seen.append)
    bus.up("a")
    assert len(seen) == 1001
    assert not bus.boundary.failures


def test_a_coroutine_function_is_no_subscriber(bus: Bus) -> None:
    async def asynchronous(event: Event) -> None: ...

    with pytest.raises(ConfigError, match="coroutine function"):
        bus.subscribe("me", asynchronous)


def test_after_unsubscribing_nothing_is_delivered_not_even_the_event_under_way(bus: Bus) -> None:
    seen: list[Event] = []
    ends: list[Any] = []

    def ending(event: Event) -> None:
        for end in ends:
            end()

    bus.subscribe("ending", ending, LinkUp)
    ends.append(bus.subscribe("me", seen.append, LinkUp, LinkUp))
    ends.append(bus.subscribe("ending too", ending, TaskHeld))
    bus.up("a")
    bus.up("b")
    assert not seen
    assert bus.wanted == {LinkUp}
    ends[0]()  # again, which does nothing


def test_one_that_subscribes_inside_gets_what_follows(bus: Bus) -> None:
    seen: list[Event] = []
    subscribed = False

    def subscribing(event: Event) -> None:
        nonlocal subscribed
        if not subscribed:
            subscribed = True
            bus.subscribe("me", seen.append)

    bus.subscribe("first", subscribing, LinkUp)
    bus.up("a")
    bus.up("b")
    assert names(seen) == ["b"]


# Plugins' own events


def test_a_plugin_s_event_has_its_data_as_it_was_then(bus: Bus) -> None:
    seen: list[PluginEvent] = []
    bus.subscribe("me", seen.append, PluginEvent)
    data = {"list": [1, (2, 3)]}
    bus.publish_plugin("cache", "hit", data, tenant="t", caller="c", trace="00-1", priority=3)
    data["list"] = []
    (event,) = seen
    assert (event.source, event.name, event.data) == ("cache", "hit", {"list": [1, [2, 3]]})
    assert (event.tenant, event.caller, event.trace, event.priority) == ("t", "c", "00-1", 3)


@pytest.mark.parametrize(
    ("source", "name", "data", "what"),
    [
        ("me", "big", "x" * event_bus.MAX_PLUGIN_EVENT_BYTES, "limit"),
        ("me", "object", object(), "no JSON"),
        ("me", "surrogate", "\ud800", "no JSON"),
        ("", "name", 1, "printable"),
        ("me", "a\nb", 1, "printable"),
        ("me", "n" * 129, 1, "printable"),
    ],
)
def test_a_plugin_s_event_has_bounds(bus: Bus, source: str, name: str, data: Any, what: str) -> None:
    seen: list[Event] = []
    bus.subscribe("me", seen.append)
    with pytest.raises(ConfigError, match=what):
        bus.publish_plugin(source, name, data)
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    with pytest.raises(ConfigError, match="no JSON"):
        bus.publish_plugin("me", "nested", nested)
    assert not seen


# Readers


async def test_a_reader_waits_and_gets_events_in_order(bus: Bus) -> None:
    async with bus.reader(LinkUp) as reader:
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        bus.up("a")
        bus.up("b")
        bus.publish(TaskHeld, task_id="t", why="x")
        assert (await asyncio.wait_for(waiting, PATIENCE)).agent_id == "a"  # type: ignore[union-attr]
        assert names(await rest(reader)) == ["b"]


async def test_a_slow_reader_is_told_how_much_it_missed_and_where(bus: Bus) -> None:
    reader = bus.reader(size=2)
    for name in "abcde":
        bus.up(name)
    assert names([await anext(reader)]) == ["a"]
    bus.up("f")
    assert names(await rest(reader)) == ["b", Missed(3), "f"]


async def test_what_is_missed_at_the_end_is_told_too(bus: Bus) -> None:
    reader = bus.reader(size=1)
    bus.up("a")
    bus.up("b")
    assert names([await anext(reader), await anext(reader)]) == ["a", Missed(1)]
    reader.close()


async def test_a_reader_gets_only_what_it_wants(bus: Bus) -> None:
    reader = bus.reader(wants=lambda event: getattr(event, "agent_id", "") == "b", size=1)
    for name in "aba":
        bus.up(name)
    assert names(await rest(reader)) == ["b"]


async def test_a_reader_that_comes_back_gets_what_it_has_not_read(bus: Bus) -> None:
    reader = bus.reader()
    for name in "abc":
        bus.up(name)
    first: Any = await anext(reader)
    reader.close()
    bus.up("d")
    assert names(await rest(bus.reader(after=first.id))) == ["b", "c", "d"]
    assert names(await rest(bus.reader(TaskHeld, after=first.id))) == []
    again = bus.reader(after=first.id, size=1)
    assert names(await rest(again)) == ["b", "c", "d"], "what waits for it is no slowness of its own"


async def test_one_that_has_read_everything_gets_no_reset(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("me", seen.append)
    bus.up("a")
    reader = bus.reader(after=seen[0].id)
    bus.up("b")
    assert names(await rest(reader)) == ["b"]


async def test_a_position_that_is_not_kept_is_reset(bus: Bus) -> None:
    seen: list[Event] = []
    bus.subscribe("me", seen.append)
    bus.up("before")
    bus.up("any reader")
    bus.reader()
    bus.up("a")
    assert names(await rest(bus.reader(after=seen[0].id))) == [Reset(), "a"], "history begins with the first reader"
    assert names(await rest(bus.reader(after="another-1"))) == [Reset(), "a"]
    for _ in range(event_bus.HISTORY):
        bus.up("b")
    late = await rest(bus.reader(after=seen[2].id))
    assert late[0] == Reset()
    assert len(late) == 1 + event_bus.HISTORY


async def test_a_reader_made_inside_of_a_delivery_misses_nothing(bus: Bus) -> None:
    readers: list[EventReader] = []

    def making(event: LinkUp) -> None:
        if event.agent_id == "b":
            readers.append(bus.reader(after=first.id))

    keeping = bus.reader()
    bus.up("a")
    first: Any = await anext(keeping)
    bus.subscribe("making", making, LinkUp)
    bus.up("b")
    bus.up("c")
    assert names(await rest(readers[0])) == ["b", "c"]


async def test_history_ends_some_time_after_the_last_reader() -> None:
    clock = SimulatedClock()
    bus = Bus(clock)
    reader, other = bus.reader(), bus.reader()
    bus.up("a")
    last: Any = await anext(reader)
    reader.close()
    reader.close()
    clock.advance(2 * event_bus.HISTORY_SECONDS)
    bus.up("b")
    other.close()
    clock.advance(event_bus.HISTORY_SECONDS / 2)
    back = bus.reader(after=last.id)
    clock.advance(2 * event_bus.HISTORY_SECONDS)
    assert names(await rest(back)) == ["b"]
    clock.advance(event_bus.HISTORY_SECONDS)
    assert not bus.wanted, "nobody reads, so nothing is made any more"
    assert await rest(bus.reader(after=last.id)) == [Reset()]


async def test_what_takes_time_to_make_is_made_only_while_somebody_names_it(bus: Bus) -> None:
    everything = bus.reader()
    assert not ON_REQUEST & bus.wanted
    asked = bus.reader(TaskPrefix, LinkUp)
    bus.publish(TaskPrefix, task_id="t", prefix=("a",))
    assert [type(each) for each in await rest(asked)] == [TaskPrefix]
    assert not ON_REQUEST & bus.wanted, "though what is usual is kept for readers who come back"
    bus.publish(TaskPrefix, task_id="t", prefix=("a",))
    assert await rest(everything) == []
    for text in ("", "task.*", "*"):
        assert TaskPrefix not in read_types(text)
    assert read_types("task.prefix,task.ended")[0] is TaskPrefix


async def test_a_reader_whose_filter_raises_is_named(bus: Bus) -> None:
    def wants(event: Event) -> bool:
        raise RuntimeError("no")

    reader = bus.reader(wants=wants)
    bus.up("a")
    assert bus.boundary.failures == {"subscriber reader.LinkUp": 1}
    assert await rest(reader) == []
