"""The kit sees every fault by name, within seconds.

Each fault is planted in a transport that is right otherwise (`planted.transports`), and the one test of the kit that
must see it is run. It fails with the sentence that is expected, and not because it hangs. A normal run takes a tenth of
the faults, by a seed that is printed; ``ANYWIRE_SOAK=1`` takes all of them. ``ANYWIRE_FAULT_SEED`` gives the seed.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.planted.broker import Broker
from tests.conformance.planted.fault import Case
from tests.conformance.planted.transports import CASES

from anywire.clock import SystemClock
from anywire.lease import AwakeTime
from anywire.testing import patience, peers, rig
from anywire.testing.patience import FACTOR
from anywire.testing.recorder import Recorder
from anywire.testing.rig import Rig
from anywire.testing.transport_kit import TransportConformance

SECONDS = 10.0 * FACTOR
"""Seconds in which a fault must be seen."""

BRIEF = 6.0 * FACTOR

SEED = int(os.environ.get("ANYWIRE_FAULT_SEED", "1"))


def chosen() -> list[Case]:
    if os.environ.get("ANYWIRE_SOAK") == "1":
        return CASES
    return random.Random(SEED).sample(CASES, max(1, len(CASES) // 10))


class Kit(TransportConformance):
    """Not collected: its tests are called one at a time."""

    __test__ = False
    plugins = ("tests.conformance.planted.plugin",)

    def __init__(self, transport: str) -> None:
        self.transport = transport


async def run_test(transport: str, test: str, options: dict[str, Any], arguments: Any) -> None:
    """One test of the kit, as pytest would run it with its fixtures."""
    kit = Kit(transport)
    method = getattr(kit, test)
    async with AsyncExitStack() as stack:
        fixtures: dict[str, Any] = dict(arguments)
        if transport.endswith("broker"):
            broker = await stack.enter_async_context(Broker())
            options = options | {"port": broker.port}
            fixtures |= {"companions": broker, "break_wire": broker.cut}
        wanted = inspect.signature(method).parameters
        if "rig" in wanted:
            fixtures["rig"] = await stack.enter_async_context(Rig(transport, options, kit.plugins))
        fixtures["options"] = options
        await method(**{name: value for name, value in fixtures.items() if name in wanted})


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not pytest's own: that path may be longer than a socket's may be.
    directory = Path(tempfile.mkdtemp(prefix="anywire-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in vain is given up sooner than in the kit, so that a fault is seen in time."""
    for place in (patience, rig, peers):
        monkeypatch.setattr(place, "PATIENCE", BRIEF)
    monkeypatch.setattr(Recorder, "patience", BRIEF)
    monkeypatch.setattr(peers.LocalPeer, "patience", BRIEF)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("case", chosen(), ids=lambda case: f"{case.name}-seed{SEED}")
def test_planted_fault_is_seen(case: Case, directory: Path) -> None:
    options: dict[str, Any] = {"fault": case.name}
    if case.transport != "broker":
        options["directory"] = str(directory)
    # Of time in which this process did not run, a machine that is busy is the cause, and not the kit.
    awake = AwakeTime(SystemClock())

    async def run() -> None:
        awake.start()
        try:
            async with asyncio.timeout(6 * SECONDS):
                await run_test(f"faulty_{case.transport}", case.test, options, case.arguments)
        finally:
            awake.stop()

    # What the kit raises is an AssertionError or pytest's own failure, which is no Exception.
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        asyncio.run(run())
    assert case.words in str(caught.value), f"{case.name} was seen, with another sentence: {caught.value}"
    assert awake.now() < SECONDS, f"{case.name} was seen after {awake.now():.1f} s"


def test_every_fault_names_a_test_of_the_kit() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    for case in CASES:
        assert case.fault.__doc__, case.name
        assert hasattr(TransportConformance, case.test), case.test
