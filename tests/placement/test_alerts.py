"""When alerts begin and end, and what the service tells of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.builtin.memory import MemoryTransport
from anywire.engine import EngineStatus
from anywire.events import PluginEvent
from anywire.identity import agent_info
from anywire.offers import offers
from anywire.roles.agent import Agent
from anywire.route import Response
from anywire.testing.doubles import ScriptedEngine
from anywire.testing.patience import expect
from anywire.testing.recorder import Recorder
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_alerts.config import DEFAULTS, AlertsConfig, Threshold
from anywire_service_alerts.levels import Levels, Reading
from anywire_service_alerts.service import Alerts


class TestAlerts(ServiceConformance):
    service = "alerts"
    options = {"thresholds": {"cpu_percent": {"above": 0, "seconds": 0}}, "interval": 0.1}  # noqa: RUF012


def reading(value: float | None, agent_id: str = "a1") -> Reading:
    return Reading(agent_id, "host", {} if value is None else {"g": value})


def told(levels: Levels, *values: float | None, step: float = 1.0) -> list[tuple[int, str, str]]:
    """What changes at which of the values, which come ``step`` seconds apart."""
    found: list[tuple[int, str, str]] = []
    for number, value in enumerate(values):
        found += [(number, each.what, each.reason) for each in levels.look([reading(value)], number * step)]
    return found


def test_an_alert_is_raised_after_its_time_and_cleared_after_it() -> None:
    levels = Levels({"g": Threshold(above=90, clear=80, seconds=2)})
    raised, cleared = (4, "raised", ""), (10, "cleared", "well")
    assert told(levels, 50, 95, 91, 85, 95, 95) == []
    levels = Levels({"g": Threshold(above=90, clear=80, seconds=2)})
    values = (50, 50, 95, 91, 92, 85, 79, 85, 79, 80, 70, 95)
    assert told(levels, *values) == [raised, cleared]
    assert levels.alerts == []


def test_below_works_the_other_way_round_and_the_worst_is_kept() -> None:
    levels = Levels({"g": Threshold(below=10, clear=20, seconds=0)})
    assert told(levels, 10, 9.0, 3.0, 12.0) == [(1, "raised", "")]
    (alert,) = levels.alerts
    assert (alert.value, alert.worst, alert.limit, alert.clear, alert.above) == (12.0, 3.0, 10, 20, False)
    assert [each.what for each in levels.look([reading(20.0)], 9.0)] == ["cleared"]


def test_agents_that_go_and_gauges_that_are_not_reported_have_no_alert() -> None:
    levels = Levels({"g": Threshold(above=1, seconds=0)})
    assert [each.alert.place.agent_id for each in levels.look([reading(2), reading(2, "a2")], 0)] == ["a1", "a2"]
    (gone,) = levels.look([reading(2, "a2")], 1)
    assert (gone.alert.place.agent_id, gone.reason) == ("a1", "gone")
    (unknown,) = levels.look([reading(None, "a2")], 2)
    assert unknown.reason == "unknown"
    assert levels.look([], 3) == []


def of(host: str, agent_id: str, boot_id: str = "", **gauges: float) -> Reading:
    return Reading(agent_id, host, gauges, boot_id)


def test_what_concerns_a_machine_is_one_alert_however_many_agents_report_it() -> None:
    levels = Levels({"ram_free_bytes": Threshold(below=10, clear=20, seconds=1)})

    def seen(now: float, *values: float | None, host: str = "one") -> list[tuple[str, tuple[str, ...], float, str]]:
        readings = [
            Reading(f"a{number}", host, {} if value is None else {"ram_free_bytes": value})
            for number, value in enumerate(values)
        ]
        changes = levels.look(readings, now)
        return [(each.what, each.alert.agents, each.alert.value, each.reason) for each in changes]

    assert seen(0, 15, 9, 15) == []
    assert seen(1, 8, 30, None) == [("raised", ("a0", "a1"), 8, "")]
    assert [(each.place.host, each.place.agent_id) for each in levels.alerts] == [("one", "")]
    assert seen(2, 30, 19, 30) == [], "as long as one of them sees it, it lasts"
    assert seen(3, 30, 30, 30) == []
    assert seen(4, 30) == [("cleared", ("a0",), 30, "well")], "agents that go take no alert along"
    assert seen(5, 1) == []
    assert seen(6, 1) == [("raised", ("a0",), 1, "")]
    assert seen(7, 50, host="two") == [("cleared", ("a0",), 1, "gone")], "the last of its agents has gone"


def test_machines_of_one_name_and_gauges_of_agents_are_apart() -> None:
    thresholds = {"cpu_percent": Threshold(above=90, seconds=0), "max_rss_bytes": Threshold(above=5, seconds=0)}
    levels = Levels({**thresholds, "kv_cache": Threshold(above=5, seconds=0)})
    readings = [
        of("localhost", "a", "boot-1", cpu_percent=99, max_rss_bytes=9, kv_cache=9),
        of("localhost", "b", "boot-1", cpu_percent=98, max_rss_bytes=9, kv_cache=9),
        of("localhost", "c", "boot-2", cpu_percent=97, kv_cache=1),
        of("", "d", cpu_percent=96),
        of("", "e", cpu_percent=95),
    ]
    raised = [each.alert for each in levels.look(readings, 0)]
    assert {(each.gauge, each.place.boot_id, each.place.agent_id) for each in raised} == {
        ("cpu_percent", "boot-1", ""),
        ("cpu_percent", "boot-2", ""),
        ("cpu_percent", "", "d"),
        ("cpu_percent", "", "e"),
        ("max_rss_bytes", "boot-1", "a"),
        ("max_rss_bytes", "boot-1", "b"),
        ("kv_cache", "boot-1", "a"),
        ("kv_cache", "boot-1", "b"),
    }
    assert len(raised) == 8


@settings(max_examples=examples(60))
@given(st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=4), min_size=1, max_size=20), st.floats(0, 3))
def test_a_machine_is_as_one_agent_that_reports_the_worst(values: list[list[float]], seconds: float) -> None:
    threshold = {"cpu_percent": Threshold(above=60, clear=40, seconds=seconds)}
    many, one = Levels(threshold), Levels(threshold)
    for now, each in enumerate(values):
        changes = many.look([of("h", f"a{n}", cpu_percent=value) for n, value in enumerate(each)], now)
        expected = one.look([of("h", "a0", cpu_percent=max(each))], now)
        assert [(c.what, c.reason, c.alert.value, c.alert.worst) for c in changes] == [
            (c.what, c.reason, c.alert.value, c.alert.worst) for c in expected
        ]


async def test_many_agents_of_this_machine_are_one_event_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thresholds = {"vram_free_bytes": {"below": 100, "seconds": 0}, "cpu_percent": None, "ram_free_bytes": None}
    config = AlertsConfig.model_validate({"thresholds": thresholds, "interval": 0.1})
    events, engines = Recorder(), [Gauged() for _ in range(5)]
    async with service_bench(Alerts(config), state=tmp_path, engine=engines[0]) as bench:

        def add(event: PluginEvent) -> None:
            if event.data["gauge"] == "vram_free_bytes":
                events.add(event.name, event.data)

        unsubscribe = bench.orchestrator.events.subscribe("test", add, PluginEvent)
        transport = bench.orchestrator.transports[0].config
        agents = [
            Agent(agent_info(f"a{number}", engine=engine), engine, [MemoryTransport(transport)])
            for number, engine in enumerate(engines[1:])
        ]
        for agent in agents:
            await agent.start()
        for engine in engines:
            engine.tell(vram_free_bytes=50.0)
        await events.event("alert.raised")
        for engine in engines:
            engine.tell(vram_free_bytes=150.0)
        cleared = (await events.event("alert.cleared"))[1]
        assert set(cleared["agents"]) <= {"agent", "a0", "a1", "a2", "a3"}
        unsubscribe()
        for agent in agents:
            await expect(agent.close(), "the agent has ended")
        assert [name for name, *_ in events.events] == ["alert.raised", "alert.cleared"]
    assert caplog.text.count("alert: vram_free_bytes") == 1


@settings(max_examples=examples(100))
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=60),
    st.floats(0, 5),
    st.floats(0, 50),
    st.booleans(),
)
def test_alerts_alternate_and_hold_for_as_long_as_said(
    values: list[float | None], seconds: float, gap: float, above: bool
) -> None:
    threshold = (
        Threshold(above=60, clear=60 - gap, seconds=seconds)
        if above
        else Threshold(below=40, clear=40 + gap, seconds=seconds)
    )
    levels = Levels({"g": threshold})
    changes = told(levels, *values)
    assert [what for _, what, _ in changes] == ["raised", "cleared"] * (len(changes) // 2) + ["raised"] * (
        len(changes) % 2
    )
    assert len(levels.alerts) == len(changes) % 2
    for number, what, _ in changes:
        held = [value for at, value in enumerate(values[: number + 1]) if at >= number - seconds]
        if what == "raised":
            assert all(value is not None and threshold.is_critical(value) for value in held)
        else:
            assert all(value is None or threshold.is_well(value) for value in held)
    for (one, _, _), (other, _, _) in pairwise(changes):
        assert other - one >= seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_percent": {}},
        {"cpu_percent": {"above": 1, "below": 1}},
        {"cpu_percent": {"above": 1, "clear": 2}},
        {"cpu_percent": {"below": 2, "clear": 1}},
        {"cpu_percent": {"above": 1, "seconds": -1}},
        {"cpu_percent": {"above": float("nan")}},
    ],
)
def test_thresholds_that_make_no_sense_are_refused(wrong: dict[str, dict[str, float]]) -> None:
    with pytest.raises(pydantic.ValidationError):
        AlertsConfig.model_validate({"thresholds": wrong})


def test_a_gauge_that_is_named_takes_the_place_of_its_default_and_null_ends_it() -> None:
    config = AlertsConfig.model_validate({"thresholds": {"cpu_percent": {"above": 50}, "ram_free_bytes": None}})
    found = config.all_thresholds()
    assert found["cpu_percent"].limit == 50
    assert "ram_free_bytes" not in found
    assert found["disk_free_bytes"] == DEFAULTS["disk_free_bytes"]


def test_sizes_are_given_as_everywhere_else() -> None:
    config = AlertsConfig.model_validate({"thresholds": {"ram_free_bytes": {"below": "1 GB", "clear": "2 GiB"}}})
    threshold = config.all_thresholds()["ram_free_bytes"]
    assert (threshold.below, threshold.clear) == (10**9, 2 * 2**30)
    with pytest.raises(pydantic.ValidationError, match="such as 12 GB"):
        AlertsConfig.model_validate({"thresholds": {"ram_free_bytes": {"below": "much"}}})


class Gauged(ScriptedEngine):
    """An engine that tells what its test says."""

    gauges: dict[str, float]

    def __init__(self) -> None:
        super().__init__()
        self.gauges = {}
        self.changed: Callable[[], None] = lambda: None

    async def start(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers("m"), resources=self.gauges)

    def tell(self, **gauges: float) -> None:
        self.gauges = gauges
        self.changed()


async def test_the_log_tells_sizes_as_people_read_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    thresholds = {"vram_free_bytes": {"below": "2 GB", "seconds": 0}, "g": {"above": 98.5, "seconds": 0}}
    config = AlertsConfig.model_validate({"thresholds": thresholds, "interval": 0.1})
    engine, events = Gauged(), Recorder()
    async with service_bench(Alerts(config), state=tmp_path, engine=engine) as bench:

        def add(event: PluginEvent) -> None:
            events.add(f"{event.data['gauge']}", event.data)

        unsubscribe = bench.orchestrator.events.subscribe("test", add, PluginEvent)
        engine.tell(vram_free_bytes=1.25e9, g=99.0)
        await events.event("vram_free_bytes")
        await events.event("g")
        unsubscribe()
    assert re.search(r"alert: vram_free_bytes of host .* \(agents: agent\) is 1.25 GB, below 2 GB", caplog.text)
    assert "alert: g of agent agent is 99, above 98.5" in caplog.text


async def test_alerts_are_events_a_route_and_metrics(tmp_path: Path) -> None:
    thresholds = {"vram_free_bytes": {"below": 100, "clear": 200, "seconds": 0}}
    config = AlertsConfig.model_validate({"thresholds": thresholds, "interval": 0.1})
    engine, events = Gauged(), Recorder()
    async with service_bench(Alerts(config), state=tmp_path, engine=engine) as bench:

        def add(event: PluginEvent) -> None:
            if event.data["gauge"] == "vram_free_bytes":
                events.add(event.name, event.data)

        unsubscribe = bench.orchestrator.events.subscribe("test", add, PluginEvent)
        engine.tell(vram_free_bytes=50.0)
        raised = (await events.event("alert.raised"))[1]
        assert (raised["agent_id"], raised["value"], raised["below"]) == ("", 50.0, 100.0)
        assert list(raised["agents"]) == ["agent"]
        (listed,) = [each for each in await alerts(bench) if each["gauge"] == "vram_free_bytes"]
        assert listed["host"]
        assert listed["seconds"] >= 0
        labels = {"host": raised["host"], "agent": "", "gauge": "vram_free_bytes"}
        assert labels in [metric.labels for _, metric in bench.host.metrics() if metric.name == "critical"]
        engine.tell(vram_free_bytes=150.0)
        engine.tell(vram_free_bytes=201.0)
        cleared = (await events.event("alert.cleared"))[1]
        assert cleared["reason"] == "well"
        assert cleared["worst"] == 50.0
        unsubscribe()


async def test_an_agent_that_is_lost_has_no_alert_any_more(tmp_path: Path) -> None:
    config = AlertsConfig.model_validate({"thresholds": {"g": {"above": 1, "seconds": 0}}, "interval": 0.1})
    events = Recorder()
    async with service_bench(Alerts(config), state=tmp_path) as bench:
        unsubscribe = bench.orchestrator.events.subscribe(
            "test", lambda event: events.add(event.name, event.data), PluginEvent
        )
        engine = Gauged()
        engine.gauges = {"g": 5.0}
        info = msgspec.structs.replace(agent_info("other", engine=engine), host="elsewhere")
        agent = Agent(info, engine, [MemoryTransport(bench.orchestrator.transports[0].config)])
        await agent.start()
        await events.event("alert.raised")
        await expect(agent.close(), "the agent has ended")
        assert (await events.event("alert.cleared"))[1]["reason"] == "gone"
        unsubscribe()


async def alerts(bench: ServiceBench) -> list[dict[str, Any]]:
    answer = await bench.call("GET", "/alerts")
    assert isinstance(answer, Response)
    told = json.loads(answer.body)
    assert told["thresholds"]["cpu_percent"] == {"above": 95.0, "seconds": 60.0, "clear": 85.0}
    found: list[dict[str, Any]] = told["data"]
    return found
