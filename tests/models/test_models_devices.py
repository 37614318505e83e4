"""Graphics cards: read without trusting drivers, chosen by what is free, and never the loop's business."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.models.simulated_servers import Behaviour, SimulatedLauncher

from anywire.messages import GAUGES
from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import expect
from anywire_engine_models.devices import MachineDevices, devices_of
from anywire_engine_models.devices.amd import AmdCards
from anywire_engine_models.devices.cards import Card
from anywire_engine_models.devices.choice import choose
from anywire_engine_models.devices.machine import EVERY
from anywire_engine_models.devices.nvidia import NvidiaCards
from anywire_engine_models.devices.settings import DeviceSettings, SimulatedCard
from anywire_engine_models.devices.simulated import SimulatedCards
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.status import Listener, ModelChanged, ModelState, ModelStatus

GB = 1_000_000_000


class FakeNvml:
    """NVIDIA's library with cards of so many free gigabytes; one of None fails when it is asked."""

    def __init__(self, *free: float | None) -> None:
        self.free = list(free)
        self.begun = self.ended = 0
        self.broken = False

    def nvmlInit(self) -> None:  # noqa: N802
        self.begun += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.ended += 1
        raise RuntimeError("is of no interest")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.broken:
            raise RuntimeError("Driver/library version mismatch")
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, index: int) -> str:  # noqa: N802
        return f"GPU-{index}abc"

    def nvmlDeviceGetName(self, index: int) -> bytes:  # noqa: N802
        return b"Fast \x1b card"

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:  # noqa: N802
        free = self.free[index]
        if free is None:
            raise RuntimeError("GPU is lost")
        return SimpleNamespace(total=24 * GB, free=int(free * GB), used=0)

    def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:  # noqa: N802
        if index:
            raise RuntimeError("Not Supported")
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetTemperature(self, index: int, sensor: int) -> int:  # noqa: N802
        assert sensor == 0
        return 61


def nvidia(nvml: object, **environment: str) -> NvidiaCards:
    return NvidiaCards(environment, lambda: nvml)


def test_cards_of_nvidia_are_read_and_one_that_fails_is_left_out() -> None:
    nvml = FakeNvml(20, None, 99)
    source = nvidia(nvml)
    cards, fault = source.read(0)
    assert cards == [
        Card("gpu:0", "Fast   card", 24 * GB, 20 * GB, 37.0, 61.0),
        Card("gpu:2", "Fast   card", 24 * GB, 24 * GB, None, 61.0),
    ]
    assert fault == "gpu:1 is left out (GPU is lost)"
    nvml.broken = True
    assert source.read(0) == ([], "the NVIDIA driver fails (Driver/library version mismatch)")
    nvml.broken = False
    assert len(source.read(0)[0]) == 2
    source.close()
    source.close()
    assert (nvml.begun, nvml.ended) == (2, 2)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("0,2", "02"),
        ("2", "2"),
        ("", ""),
        ("-1", ""),
        ("1,-1,0", "1"),
        ("GPU-2abc, 0", "02"),
        ("MIG-1,0", ""),
        ("7", ""),
        ("0,7,1", "0"),
    ],
)
def test_cards_that_a_server_would_not_see_are_not_chosen(visible: str, seen: str) -> None:
    cards, fault = nvidia(FakeNvml(1, 2, 3), CUDA_VISIBLE_DEVICES=visible).read(0)
    assert "".join(card.device[-1] for card in cards) == seen
    assert ("CUDA_VISIBLE_DEVICES names none of 3" in fault) == (not seen)


def test_without_library_or_driver_there_are_no_cards() -> None:
    def missing() -> Any:
        raise ImportError

    assert NvidiaCards({}, missing).read(0) == ([], "NVIDIA's cards are not looked for: nvidia-ml-py is not installed")
    real = pytest.importorskip("pynvml")
    try:
        real.nvmlInit()
    except real.NVMLError as error:
        said = f"no NVIDIA driver ({error})"
    else:
        said = ""
    cards, fault = NvidiaCards({}).read(0)
    assert all(0 <= card.vram_free_bytes <= card.vram_total_bytes for card in cards)
    assert (fault, bool(cards)) == (said, not said)


def sysfs(root: Path, name: str, **files: str) -> None:
    folder = root / name / "device"
    (folder / "hwmon" / "hwmon3").mkdir(parents=True)
    for each, content in files.items():
        (folder / each.replace("temp1_input", "hwmon/hwmon3/temp1_input")).write_text(content + "\n")


def test_cards_of_amd_are_read_from_sysfs(tmp_path: Path) -> None:
    full = {"mem_info_vram_total": str(16 * GB), "mem_info_vram_used": str(4 * GB)}
    more = {"gpu_busy_percent": "12", "temp1_input": "51000", "product_name": "Red card"}
    sysfs(tmp_path, "card10", vendor="0x1002", device="0x744c", **full)
    sysfs(tmp_path, "card2", vendor="0x1002", **full, **more)
    sysfs(tmp_path, "card3", vendor="0x1002", mem_info_vram_total="many")
    sysfs(tmp_path, "card1", vendor="0x8086", **full)
    sysfs(tmp_path, "card2-HDMI-A-1", vendor="0x1002", **full)
    (tmp_path / "version").touch()
    cards, fault = AmdCards(tmp_path).read(4)
    assert cards == [
        Card("gpu:4", "Red card", 16 * GB, 12 * GB, 12.0, 51.0),
        Card("gpu:5", "AMD 0x744c", 16 * GB, 12 * GB),
    ]
    assert fault == "card3 is left out: its driver does not tell of its memory"
    assert AmdCards(tmp_path / "missing").read(0) == ([], "")


def card(number: int, free: float, *, simulated: bool = False) -> Card:
    device = f"gpu:{number}-simulated" if simulated else f"gpu:{number}"
    return Card(device, "Fast", 24 * GB, int(free * GB), simulated=simulated)


@pytest.mark.parametrize(
    ("cards", "options", "device", "reason"),
    [
        ([], {}, "cpu", "no graphics card"),
        ([], {"fault": "no NVIDIA driver (x)"}, "cpu", "no graphics card; no NVIDIA driver (x)"),
        ([card(0, 4.5)], {}, "gpu:0", "needs 4 GB, gpu:0 (Fast) has 4.5 GB of 24 GB free, 500 MB stay free"),
        ([card(0, 4.4)], {}, "cpu", "needs 4 GB, gpu:0 (Fast) has 4.4 GB of 24 GB free, 500 MB stay free"),
        ([card(0, 5), card(1, 9), card(2, 9)], {}, "gpu:1", "has 9 GB of"),
        (
            [card(0, 1), card(1, 2)],
            {},
            "cpu",
            "has 2 GB of 24 GB free, 500 MB stay free, the most of 2 cards",
        ),
        ([card(0, 9), card(1, 8)], {"promised": {"gpu:0": 5 * GB}}, "gpu:1", "has 8 GB"),
        (
            [card(0, 9)],
            {"promised": {"gpu:0": 5 * GB}},
            "cpu",
            "of 24 GB free but 5 GB for models on their way",
        ),
        ([card(0, 9), card(1, 8)], {"without": ["gpu:0"]}, "gpu:1", "has 8 GB"),
        ([card(0, 9)], {"without": ["gpu:0"]}, "cpu", "no other graphics card"),
        ([card(0, 9)], {"wish": "cpu"}, "cpu", "asked for"),
        ([card(0, 9), card(1, 1)], {"wish": "gpu:1"}, "gpu:1", "asked for; needs 4 GB, gpu:1 (Fast) has 1 GB"),
        ([card(0, 9)], {"wish": "gpu:1"}, "cpu", "gpu:1 was asked for and is not there; there is gpu:0"),
        ([], {"wish": "gpu:0", "fault": "x"}, "cpu", "gpu:0 was asked for and is not there; x"),
        ([card(0, 9), card(1, 9)], {"wish": "gpu:1", "without": ["gpu:1"]}, "cpu", "gpu:1 was asked for"),
        (
            [card(0, 1, simulated=True)],
            {"need": 0},
            "gpu:0-simulated",
            "its need is not known, gpu:0-simulated has",
        ),
        (
            [card(0, 1, simulated=True)],
            {"wish": "gpu:0"},
            "gpu:0-simulated",
            "asked for; needs 4 GB, gpu:0-sim",
        ),
        ([card(0, 0.4)], {"need": 0}, "cpu", "its need is not known, gpu:0 (Fast) has 400 MB"),
    ],
)
def test_where_a_model_of_four_gigabytes_starts(
    cards: Sequence[Card], options: dict[str, Any], device: str, reason: str
) -> None:
    chosen = choose(cards, options.pop("need", 4 * GB), reserve=GB // 2, **options)
    assert (chosen.name, reason in chosen.reason) == (device, True), chosen


@given(
    free=st.lists(st.integers(0, 100), max_size=4),
    need=st.integers(0, 100),
    reserve=st.integers(0, 20),
    promised=st.dictionaries(st.sampled_from(["gpu:0", "gpu:1", "gpu:9"]), st.integers(0, 100)),
    without=st.lists(st.sampled_from(["gpu:0", "gpu:1", "gpu:2", "gpu:3"]), unique=True),
    wish=st.sampled_from(["auto", "cpu", "gpu:0", "gpu:3"]),
)
@hypothesis_settings(max_examples=examples(200), deadline=None)
def test_a_choice_fits_and_is_where_no_start_has_failed(
    free: list[int], need: int, reserve: int, promised: dict[str, int], without: list[str], wish: str
) -> None:
    cards = [Card(f"gpu:{number}", "x", 100, bytes_) for number, bytes_ in enumerate(free)]
    chosen = choose(cards, need, wish=wish, reserve=reserve, promised=promised, without=without)
    room = {each.device: max(0, each.vram_free_bytes - promised.get(each.device, 0)) for each in cards}
    open_to_it = {device: bytes_ for device, bytes_ in room.items() if device not in without}
    assert chosen.reason
    if wish == "auto":
        fitting = {device: bytes_ for device, bytes_ in open_to_it.items() if bytes_ >= need + reserve}
        assert chosen.name in fitting if fitting else chosen.name == "cpu"
        assert chosen.name == "cpu" or fitting[chosen.name] == max(fitting.values())
    else:
        assert chosen.name == (wish if wish in open_to_it else "cpu")


class Host:
    """Tells of models what a test says."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def tell(self, model: str, state: ModelState) -> None:
        for listener in self.listeners:
            listener(ModelChanged(ModelStatus(model, state), "starting"))


def model(name: str, need: float = 4, device: str = "auto") -> HostedModel:
    return HostedModel(name, memory_bytes=int(need * GB), device=device, start_timeout=60)


class Cards:
    """A source whose cards a test sets."""

    def __init__(self, *cards: Card) -> None:
        self.cards, self.reads = list(cards), 0

    def read(self, first: int) -> tuple[list[Card], str]:
        self.reads += 1
        return self.cards, ""

    def close(self) -> None:
        self.reads = -1


async def test_memory_is_promised_to_one_model_until_it_is_there() -> None:
    source, host, clock = Cards(card(0, 9)), Host(), SimulatedClock()
    devices = MachineDevices([source], clock=clock)
    devices.follow(host)
    first, second = await asyncio.gather(devices.choose(model("a", 5)), devices.choose(model("b", 5)))
    assert (first.name, second.name) == ("gpu:0", "cpu")
    assert "5 GB for models on their way" in second.reason
    assert (await devices.choose(model("a", 5))).name == "gpu:0", "its own promise is no hindrance"
    host.tell("a", "starting")
    assert (await devices.choose(model("b", 5))).name == "cpu"
    source.cards = [card(0, 4)]  # the driver counts it now
    host.tell("a", "running")
    assert (await devices.choose(model("b", 3))).name == "gpu:0"
    host.tell("b", "crashed")
    assert (await devices.choose(model("c", 3))).name == "gpu:0"
    assert (await devices.choose(model("d", 3))).name == "cpu"
    clock.advance(61)  # c never says what became of it
    assert (await devices.choose(model("d", 3))).name == "gpu:0"
    await devices.close()
    await devices.close()
    assert (host.listeners, source.reads) == ([], -1)


async def test_who_is_not_told_of_models_promises_nothing() -> None:
    devices = MachineDevices([Cards(card(0, 9))])
    for name in "ab":
        assert (await devices.choose(model(name, 5))).name == "gpu:0"
    await devices.close()


async def test_a_simulated_card_says_so_and_is_filled_by_its_models() -> None:
    section = SimpleNamespace(reserve=GB, simulated=[SimpleNamespace(vram_total=8 * GB, vram_free=9 * GB)])
    host = Host()
    devices = devices_of(SimpleNamespace(devices=section))
    devices.follow(host)
    await devices.begin()
    chosen = await devices.choose(model("a", 4))
    assert (chosen.name, "gpu:0-simulated has" in chosen.reason) == ("gpu:0-simulated", True)
    host.tell("a", "running")
    assert devices.list() == (Card("gpu:0-simulated", "simulated card", 8 * GB, 4 * GB, simulated=True),)
    assert devices.gauges() == {
        "vram_free_bytes": 4 * GB,
        "vram_total_bytes": 8 * GB,
        "vram_used_percent": 50.0,
        "gpu_simulated": 1.0,
    }
    assert (await devices.choose(model("b", 4))).name == "cpu"
    host.tell("a", "stopping")
    assert devices.list()[0].vram_free_bytes == 4 * GB
    host.tell("a", "stopped")
    assert devices.list()[0].vram_free_bytes == 8 * GB
    await devices.close()


async def test_gauges_are_of_the_card_with_most_room_and_read_once_a_second() -> None:
    source, clock = Cards(card(0, 3), Card("gpu:1", "Fast", 24 * GB, 12 * GB, 9.0, 50.0)), SimulatedClock()
    devices = MachineDevices([source], clock=clock)
    assert devices.gauges() == {}
    await devices.begin()
    gauges = devices.gauges()
    assert gauges == {
        "vram_free_bytes": 12 * GB,
        "vram_total_bytes": 24 * GB,
        "vram_used_percent": 50.0,
        "gpu_percent": 9.0,
        "temperature_celsius": 50.0,
    }
    assert gauges.keys() <= GAUGES.keys()
    before = source.reads
    source.cards = [card(0, 3)]
    clock.advance(EVERY)
    for _ in range(10):
        devices.gauges()
    device = await devices.choose(model("a", 1))  # shares the reading that has begun
    assert (device.name, source.reads) == ("gpu:0", before + 1)
    assert devices.gauges()["vram_free_bytes"] == 3 * GB
    await devices.close()


class Hanging:
    """A driver that hangs until it is let go."""

    def __init__(self) -> None:
        self.go, self.calls = threading.Event(), 0

    def read(self, first: int) -> tuple[list[Card], str]:
        self.calls += 1
        self.go.wait(60)
        return [card(0, 9)], ""

    def close(self) -> None:
        pass


async def test_a_driver_that_hangs_holds_nobody_up() -> None:
    source = Hanging()
    devices = MachineDevices([source], DeviceSettings(timeout=0.05))
    await expect(devices.begin(), "it begins without the driver")
    chosen = await expect(devices.choose(model("a")), "a device is chosen")
    assert chosen.name == "cpu"
    assert "has not answered within 0.05 s" in chosen.reason
    assert (await devices.choose(model("a", device="cpu"))).reason == "asked for"
    assert "has not answered" in devices.fault
    assert source.calls == 1, "one call hangs, and no second one beside it"
    await expect(devices.close(), "it closes")
    source.go.set()


async def test_a_source_that_raises_is_told() -> None:
    class Broken(Hanging):
        def read(self, first: int) -> tuple[list[Card], str]:
            raise ZeroDivisionError("nonsense")

    devices = MachineDevices([Broken()])
    await devices.begin()
    assert devices.fault == "reading graphics cards has failed: nonsense"
    assert (await devices.choose(model("a"))).reason == "no graphics card; reading graphics cards has failed: nonsense"
    await devices.close()


def test_a_process_ends_while_a_driver_hangs() -> None:
    code = (
        "import asyncio, time\n"
        "from anywire_engine_models.devices.machine import MachineDevices\n"
        "from anywire_engine_models.devices.settings import DeviceSettings\n"
        "class Hanging:\n"
        "    def read(self, first): time.sleep(1000)\n"
        "    def close(self): pass\n"
        "asyncio.run(MachineDevices([Hanging()], DeviceSettings(timeout=0.01)).begin())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0


def test_simulated_cards_are_numbered() -> None:
    cards, _ = SimulatedCards([SimulatedCard(2, 1), SimulatedCard(4, 4)]).read(0)
    assert [(each.device, each.vram_free_bytes) for each in cards] == [("gpu:0-simulated", 1), ("gpu:1-simulated", 4)]


async def test_models_of_a_host_share_a_card_and_one_that_it_refuses_starts_on_the_processor() -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        refused = model.name == "refused" and device != "cpu"
        return Behaviour(fails="out of memory", elsewhere=True) if refused else Behaviour()

    cards = [SimpleNamespace(vram_total=9 * GB, vram_free=9 * GB)]
    devices = devices_of(SimpleNamespace(devices=SimpleNamespace(reserve=GB, simulated=cards)))
    launcher = SimulatedLauncher(behave)
    host = ModelHost(launcher, devices)
    devices.follow(host)
    await host.begin([model("a", 5), model("b", 5), model("refused", 3), model("c", 5, "cpu")])
    try:
        first, second = await expect(asyncio.gather(host.start("a"), host.start("b")), "both start")
        assert sorted([first.device, second.device]) == ["cpu", "gpu:0-simulated"]
        refused = await expect(host.start("refused"), "it starts")
        assert refused.device == "cpu"
        assert refused.device_reason == "gpu:0-simulated failed (out of memory); no other graphics card"
        assert (await expect(host.start("c"), "it starts")).device_reason == "asked for"
        on_card, other = ("a", "b") if first.device != "cpu" else ("b", "a")
        for name in (on_card, other):
            await expect(host.stop(name), "it stops")
        assert (await expect(host.start(other), "it starts where there is room now")).device == "gpu:0-simulated"
    finally:
        await host.close()
        await devices.close()
    assert not launcher.processes
    assert not launcher.faults
