"""Energy is counted from folders that look like the kernel's, and comes to joules per answer and token."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.experiment.fabricated import fabricate, plan_of
from tests.patience import PATIENCE

from anywire.errors import ConfigError
from anywire_experiment import report
from anywire_experiment.analysis.analyse import analyse
from anywire_experiment.energy.jetson import jetson
from anywire_experiment.energy.meter import Meter, kept_reading, meter_of
from anywire_experiment.energy.nvidia import nvidia
from anywire_experiment.energy.rapl import rapl
from anywire_experiment.energy.source import MOST_WATTS, SAMPLING, Endless, Sampled, Wrapping
from anywire_experiment.record.cells import read_cell, write_cell
from anywire_experiment.record.energy import CellEnergy

MOST = 262_143_328_850
"""Microjoules after which the counter of a usual processor wraps."""


def no_card() -> Any:
    raise ImportError("pynvml")


def zone(root: Path, name: str, what: str, energy: int, most: int = MOST) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True)
    for file, text in (("name", what), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{text}\n")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A machine of two packages; one has memory of its own."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000, 65_712_999_613)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_and_their_memory_are_counted_and_nothing_twice(server: Path) -> None:
    meter = meter_of(root=server, load=no_card)
    assert meter.sources == ["cpu package-0", "cpu package-0 dram", "cpu package-1"]
    before = meter.read()
    (server / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("3500000\n")
    (server / "sys/class/powercap/intel-rapl:0:1/energy_uj").write_text("2250000\n")
    assert meter.since(before) == {"cpu package-0": 2.5, "cpu package-0 dram": 0.25, "cpu package-1": 0.0}


def test_a_counter_that_wraps_goes_on(server: Path) -> None:
    counter = server / "sys/class/powercap/intel-rapl:1/energy_uj"
    counter.write_text(f"{MOST - 1_000_000}\n")
    meter = meter_of(root=server, load=no_card)
    before = meter.read()
    counter.write_text("2000000\n")
    assert meter.since(before)["cpu package-1"] == pytest.approx(3.0)
    for value in (MOST // 2, 5, MOST - 5, 5):
        counter.write_text(f"{value}\n")
        meter.read()
    assert meter.since(before)["cpu package-1"] == pytest.approx(3.0 + (2 * MOST - 2_000_000 + 5) / 1e6)


def test_it_is_read_twice_before_any_counter_can_wrap(server: Path) -> None:
    every = meter_of(root=server, load=no_card).every
    assert every is not None
    assert every * MOST_WATTS * 2 == pytest.approx(65_712.999613)


async def test_a_meter_is_read_as_often_as_needed_and_no_longer_than_it_is_used() -> None:
    values, read = itertools.count(0, 60), asyncio.Event()

    def counter() -> int:
        value = next(values)
        if value >= 600:
            read.set()
        return value % 100

    source = Wrapping("cpu", counter, 100)
    source.every = 0.001
    tasks = len(asyncio.all_tasks())
    async with kept_reading(Meter([source], [])) as meter, asyncio.timeout(PATIENCE):
        before = meter.read()
        await read.wait()
        assert meter.since(before)["cpu"] * 1e6 >= 480
    assert len(asyncio.all_tasks()) == tasks


async def test_a_machine_that_tells_nothing_is_not_read() -> None:
    tasks = len(asyncio.all_tasks())
    async with kept_reading(meter_of(root=Path("/nowhere"), load=no_card)) as meter:
        assert (meter.sources, meter.every, meter.read()) == ([], None, {})
        await meter.measure_idle()
        assert len(asyncio.all_tasks()) == tasks


async def test_the_power_of_the_idle_machine_is_measured_before() -> None:
    times = iter([0.0, 1.0, 1.0, 3.0, 3.0, 9.0])
    meter = Meter([Sampled("rail", lambda: 7.0)], [], clock=lambda: next(times))
    await meter.measure_idle(0.0)
    assert meter.told().idle_watts == {"rail": pytest.approx(7.0)}


def test_why_nothing_is_counted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = meter_of(root=tmp_path, load=no_card).told()
    assert told.sources == []
    assert [each.partition(":")[0] for each in told.missing] == ["RAPL", "NVML", "Jetson"]
    zone(tmp_path, "intel-rapl:0", "package-0", 1)

    def forbidden(path: Path, *_: object, **__: object) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return "1000000" if path.name.startswith("max") else "package-0"

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert rapl(tmp_path) == ([], "RAPL: only root may read the counters of energy (/sys/class/powercap/*/energy_uj)")


def test_a_source_that_is_asked_for_and_not_there_is_refused(server: Path) -> None:
    assert meter_of(["cpu package-1"], root=server, load=no_card).sources == ["cpu package-1"]
    with pytest.raises(
        ConfigError, match=r"no source 'gpu 0'; it has: cpu package-0, cpu package-0 dram, cpu package-1"
    ):
        meter_of(["gpu 0"], root=server, load=no_card)


def test_when_one_source_fails_nothing_is_counted_any_more(server: Path) -> None:
    meter = meter_of(root=server, load=no_card)
    before = meter.read()
    (server / "sys/class/powercap/intel-rapl:1/energy_uj").write_text("broken\n")
    assert meter.since(before) == {}
    assert meter.sources == []
    assert "cpu package-1 could be read no more" in meter.missing[-1]
    assert meter.since(meter.read()) == {}


class Nvml:
    """A driver with two cards: the second is too old to count its energy."""

    def __init__(self) -> None:
        self.energy, self.watts = 5_000, 100.0

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if handle:
            raise RuntimeError("Not Supported")
        return self.energy

    def nvmlDeviceGetPowerUsage(self, handle: int) -> float:  # noqa: N802
        return self.watts * 1e3


def test_cards_count_their_energy_or_their_power_is_sampled() -> None:
    driver = Nvml()
    sources, why = nvidia(lambda: driver)
    assert why == ""
    new, old = sources
    assert isinstance(new, Endless)
    assert isinstance(old, Sampled)
    assert (new.every, old.every) == (None, SAMPLING)
    assert new.joules(0.0) == old.joules(0.0) == 0.0
    driver.energy, driver.watts = 12_500, 200.0
    assert new.joules(2.0) == 7.5
    assert old.joules(2.0) == 300.0
    driver.energy = 10  # the driver was loaded anew
    assert new.joules(3.0) == 7.51


def test_no_driver_and_no_card_are_told() -> None:
    def fails() -> Any:
        raise RuntimeError("Driver Not Loaded")

    assert nvidia(fails) == ([], "NVML: no NVIDIA driver (Driver Not Loaded)")
    assert nvidia(no_card)[1].startswith("NVML: nvidia-ml-py is not installed")


@pytest.mark.parametrize("whole", [True, False])
def test_the_rails_of_a_board_are_summed_once(tmp_path: Path, whole: bool) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    folder.mkdir(parents=True)
    rails = {1: ("VDD_IN" if whole else "VDD_GPU_SOC", 5000, 2000), 2: ("VDD_CPU_CV", 5000, 500)}
    for number, (name, millivolts, milliamperes) in rails.items():
        (folder / f"in{number}_label").write_text(f"{name}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("sum of shunt voltages\n")
    sources, why = jetson(tmp_path)
    assert why == ""
    assert [each.name for each in sources] == (["rail VDD_IN"] if whole else ["rail VDD_CPU_CV", "rail VDD_GPU_SOC"])
    assert [each.joules(at) for at in (0.0, 3.0) for each in sources][-1] == pytest.approx(30.0)


def test_an_older_board_tells_milliwatts(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    folder.mkdir(parents=True)
    (folder / "rail_name_0").write_text("POM_5V_IN\n")
    (folder / "in_power0_input").write_text("4000\n")
    (source,), _ = jetson(tmp_path)
    assert (source.joules(1.0), source.joules(2.5)) == (0.0, 6.0)


def with_energy(folder: Path, watts: dict[str, float], energy: CellEnergy | None) -> Path:
    """Of each arm, so many watts while it was measured."""
    for path in sorted(folder.glob("cells/*/*")):
        cell = read_cell(path)
        cell.energy = energy
        for run in cell.workloads.values():
            seconds = (run.ended_ns - run.began_ns) / 1e9
            factor = 1 + 0.01 * (cell.block % 3)
            run.joules = {"cpu package-0": watts[cell.arm] * seconds * factor} if energy and energy.sources else {}
        write_cell(path, cell)
    return folder


TREE = plan_of(workloads={"one": {"requests": 60}}, metrics=["energy_per_request", "energy_per_token"])


def test_an_arm_that_takes_more_is_found_dearer(tmp_path: Path) -> None:
    told = CellEnergy(["cpu package-0"], {"cpu package-0": 20.0}, [])
    folder = with_energy(fabricate(tmp_path, TREE), {"zeromq": 50.0, "dds": 75.0}, told)
    results = analyse(folder)
    first, second = results.comparisons
    assert first.verdict is not None
    assert first.comparison is not None
    assert first.verdict.words == second.verdict.words if second.verdict else False
    assert first.verdict.words == "dearer in energy"
    assert first.comparison.ratio.value == pytest.approx(1.5, rel=0.05)
    figures = {each.arm: each.energy for each in results.figures}
    of_dds = figures["dds"]
    assert of_dds is not None
    assert of_dds.idle_watts == 20.0
    assert of_dds.watts == pytest.approx(75.75, rel=0.01)
    assert of_dds.joules_per_token == pytest.approx(sum(of_dds.joules.values()) / 8)
    report.write(folder)
    page = (folder / "report.md").read_text()
    assert "### Energy" in page
    assert "not subtracted" in page


def test_where_it_cannot_be_measured_the_comparison_says_why(tmp_path: Path) -> None:
    folder = with_energy(fabricate(tmp_path, TREE), {}, CellEnergy([], {}, ["RAPL: only root may read it"]))
    (first, _) = analyse(folder).comparisons
    assert first.verdict is None
    assert (
        "there is no energy to compare: energy was not measurable there (RAPL: only root may read it)" in first.reason
    )


def test_other_parts_in_some_cells_are_a_caution(tmp_path: Path) -> None:
    folder = with_energy(fabricate(tmp_path, TREE), {"zeromq": 50.0, "dds": 75.0}, CellEnergy(["cpu package-0"]))
    path = folder / "cells/b003/dds"
    cell = read_cell(path)
    for run in cell.workloads.values():
        run.joules = {"gpu 0": 3.0}
    write_cell(path, cell)
    assert any("not counted of the same parts" in each for each in analyse(folder).cautions)


def test_a_cell_from_before_is_read(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, TREE)
    path = folder / "cells/b001/dds/cell.json"
    tree = msgspec.json.decode(path.read_bytes())
    del tree["energy"]
    path.write_bytes(msgspec.json.encode(tree))
    assert read_cell(path.parent).energy is None
