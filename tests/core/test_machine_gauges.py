"""What agents report of their process and their machine, and on what they run."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from anywire.config_layers import load
from anywire.messages import GAUGES
from anywire.plugins import Plugins
from anywire.roles.agent_configs import agent_configs
from anywire.roles.assembly import make_agent
from anywire.roles.machine_gauges import EVERY, MachineGauges
from anywire.testing.clock import SimulatedClock


def test_the_machine_is_read_once_a_second_and_its_use_told_from_the_second_reading_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = iter([99.0, 20.0, 30.0])
    monkeypatch.setattr(psutil, "cpu_percent", lambda: next(used))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7))
    clock = SimulatedClock()
    gauges = MachineGauges(clock.now)
    told: list[dict[str, float]] = []
    for _ in range(3):
        told += [gauges.read(), gauges.read()]
        clock.advance(EVERY)
    assert [each.get("cpu_percent") for each in told] == [None, None, 20.0, 20.0, 30.0, 30.0]
    assert [each.get("ram_free_bytes") for each in told] == [None, None, 7.0, 7.0, 7.0, 7.0]
    assert "disk_free_bytes" not in told[0]
    assert told[-1]["disk_free_bytes"] > 0
    assert told[-1].keys() <= GAUGES.keys()


def test_a_device_is_that_of_the_entry_or_of_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('agent: {device: cpu}\nagents: [{id: a, device: "cuda:0"}, {id: b}]\n')
    here: dict[str, Any] = {"transports": "memory", "engine": "synthetic"}
    config = load(tmp_path / "a.yaml", environment={}, settings=here)
    agents = [make_agent(each, Plugins()) for each in agent_configs(config, None).values()]
    assert [(agent.info.agent_id, agent.info.device) for agent in agents] == [("a", "cuda:0"), ("b", "cpu")]


def test_a_disk_that_cannot_be_read_has_no_gauge_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "statvfs", gone)
    clock = SimulatedClock()
    gauges = MachineGauges(clock.now)
    gauges.read()
    clock.advance(EVERY)
    told = gauges.read()
    assert "ram_free_bytes" in told
    assert "disk_free_bytes" not in told
