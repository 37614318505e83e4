"""The launcher ``ray`` and its driver's process, with a stand-in for Ray: what is lost, and what is said of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.patience import FACTOR

from anywire.errors import ConfigError, LaunchFailed
from anywire.testing.launcher_kit import SECRET, Changes, config, is_gone
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.patience import START_PATIENCE, expect, polled
from anywire_launcher_ray import RayConfig, RayLauncher, driver_process
from anywire_launcher_ray.messages import ALIVE_INTERVAL, Connected, encode


@asynccontextmanager
async def launching(**options: Any) -> AsyncIterator[RayLauncher]:
    launcher = RayLauncher(RayConfig(**options))
    try:
        yield launcher
    finally:
        await expect(launcher.close(), "close returns", START_PATIENCE)


def driver_pid(launcher: RayLauncher) -> int:
    assert launcher.driver is not None
    return launcher.driver.pid


async def test_the_drivers_death_is_told_in_a_line_and_the_agents_run_again(stand_in: pytest.MonkeyPatch) -> None:
    async with launching() as launcher:
        changes = Changes()
        process = await launcher.start("agent", config(), "one", changes)
        with LogRecorder() as log:
            await expect(process.ready(), "it is ready", START_PATIENCE)
            assert log.messages("Ray")
            first, driver = process.pid, driver_pid(launcher)
            os.kill(driver, signal.SIGKILL)
            await changes.until(lambda: process.pid == 0, "its loss is told")
            await changes.until(lambda: process.pid != 0, "it runs again")
            assert len(log.messages("the Ray cluster is lost with its agents")) == 1
            assert "killed by SIGKILL" in log.messages("is lost with its agents")[0]
        assert process.restarts == 1
        assert process.pid != first
        assert driver_pid(launcher) != driver
        await polled(lambda: is_gone(first), "the life before has ended")


async def test_a_lost_worker_is_told_and_its_agent_runs_again(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("RAY_STAND_IN", "a worker is lost")
    async with launching() as launcher:
        changes = Changes()
        process = await launcher.start("agent", config(), "one", changes)
        with LogRecorder() as log:
            await expect(process.ready(), "it is ready", START_PATIENCE)
            await changes.until(lambda: process.restarts == 1 and process.pid != 0, "it runs again")
            assert log.messages("one is lost and is started again: its worker or its node is lost (the worker is gone)")


async def test_a_cluster_that_was_never_there_is_not_asked_again(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("RAY_STAND_IN", "no head")
    async with launching(address="127.0.0.1:6379") as launcher:
        process = await launcher.start("agent", config(), "one")
        with pytest.raises(LaunchFailed, match=r"Ray cannot be used: nobody answers at 127\.0\.0\.1:6379"):
            await expect(process.ready(), "it ends", START_PATIENCE)
        with pytest.raises(ConfigError, match="nobody answers"):
            await expect(launcher.reached(), "it is told")
        later = await launcher.start("agent", config(), "two")
        with pytest.raises(LaunchFailed, match="nobody answers"):
            await expect(later.ready(), "it ends")
        await expect(later.stop(), "a stop returns")


async def test_a_launcher_is_closed_while_its_driver_waits_for_a_head(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("RAY_STAND_IN", "hangs")
    with LogRecorder() as log:
        async with launching(address="127.0.0.1:6379") as launcher:
            process = await launcher.start("agent", config(), "one")
            await expect(process.stop(), "a stop returns")
        assert not log.messages("did not end within")
    assert driver_pid(launcher) == 0


@pytest.mark.parametrize("what", ["chatter", "reads"])
async def test_what_others_print_in_the_driver_is_no_report_and_they_read_nothing(
    stand_in: pytest.MonkeyPatch, what: str
) -> None:
    stand_in.setenv("RAY_STAND_IN", what)
    async with launching() as launcher:
        process = await launcher.start("agent", config(), "one")
        await expect(process.ready(), "it is ready", START_PATIENCE)


async def test_a_driver_that_writes_what_is_no_report_is_ended(stand_in: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "driver.sh"
    script.write_text("#!/bin/sh\nread line\necho nonsense\nread line\n")
    script.chmod(0o700)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    driver = driver_process.DriverProcess(
        "10.0.0.1:6379",
        connected=lambda _: None,
        told=lambda _: None,
        lost=lambda reason, pause: None,
        ended=ended.set_result,
        command=[str(script)],
    )
    assert "wrote what is no report" in await expect(ended, "its end is told")
    await expect(driver.close(), "close returns")


async def test_a_driver_that_says_that_it_is_connected_twice_is_ended(tmp_path: Path) -> None:
    connected = encode(Connected("10.0.0.1:6379", "2.52", "10.0.0.2", 1, [])).decode()
    script = tmp_path / "driver.sh"
    script.write_text(f"#!/bin/sh\nread line\necho '{connected.strip()}'\necho '{connected.strip()}'\nread line\n")
    script.chmod(0o700)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    times: list[Connected] = []
    driver = driver_process.DriverProcess(
        "10.0.0.1:6379",
        connected=times.append,
        told=lambda _: None,
        lost=lambda reason, pause: reasons.put_nowait(reason),
        ended=lambda _: None,
        command=[str(script)],
    )
    assert "it is connected twice" in await expect(reasons.get(), "its end is told")
    assert len(times) == 1
    await expect(driver.close(), "close returns")


async def test_a_driver_that_hangs_is_killed_and_its_agents_run_again(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setattr(driver_process, "SILENCE", 2 * ALIVE_INTERVAL * FACTOR)
    async with launching() as launcher:
        changes = Changes()
        process = await launcher.start("agent", config(), "one", changes)
        await expect(process.ready(), "it is ready", START_PATIENCE)
        first, driver = process.pid, driver_pid(launcher)
        with LogRecorder() as log:
            os.kill(driver, signal.SIGSTOP)
            await changes.until(lambda: process.pid == 0, "its loss is told")
            await changes.until(lambda: process.pid not in (0, first), "it runs again")
            assert "the driver hangs: it said nothing for" in log.messages("is lost with its agents")[0]
        assert is_gone(driver)


async def test_a_driver_that_cannot_be_run_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    monkeypatch.setattr(driver_process, "_base", lambda: str(base))
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    driver = driver_process.DriverProcess(
        "",
        connected=lambda _: None,
        told=lambda _: None,
        lost=lambda reason, pause: None,
        ended=ended.set_result,
        command=[str(tmp_path / "no-such-program")],
    )
    assert "the driver cannot be run" in await expect(ended, "its end is told")
    await expect(driver.close(), "close returns")
    base.rmdir()  # it is empty


async def test_a_ray_that_knows_no_tokens_has_no_cluster_started(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("RAY_STAND_IN", "old")
    async with launching() as own, launching(address="127.0.0.1:6379") as joined:
        process = await own.start("agent", config(), "one")
        with pytest.raises(LaunchFailed, match=r"Ray 2\.51\.9 lets in .* needs Ray 2\.52 or later"):
            await expect(process.ready(), "it ends", START_PATIENCE)
        assert await expect(joined.reached(), "a cluster that runs is used", START_PATIENCE)


async def test_an_agent_without_a_place_is_told_and_can_be_stopped(stand_in: pytest.MonkeyPatch) -> None:
    async with launching(resources={"fast": 2}) as launcher:
        with LogRecorder() as log:
            process = await launcher.start("agent", config(), "one")
            told = await expect(log.message("one waits for a place"), "it is told", START_PATIENCE)
            assert "(0.01 CPU, 2 fast); the cluster has 2 CPU, free 2 CPU" in told
        assert process.pid == 0
        await expect(process.stop(grace=10 * START_PATIENCE), "a stop returns", START_PATIENCE)


async def test_a_machine_of_a_cluster_is_reached_where_its_node_is(stand_in: pytest.MonkeyPatch) -> None:
    async with launching(address="10.0.0.1:6379") as joined, launching() as own, launching(reach="10.0.0.9") as told:
        assert await expect(joined.reached(), "the cluster is known", START_PATIENCE) == "127.0.0.1"
        assert await own.reached() == "127.0.0.1"
        assert await told.reached() == "10.0.0.9"
        assert own.driver is None


async def test_the_driver_has_no_secret_in_arguments_or_environment(stand_in: pytest.MonkeyPatch) -> None:
    async with launching() as launcher:
        process = await launcher.start("agent", config(agent={"specialization": SECRET}), "one")
        await expect(process.ready(), "it is ready", START_PATIENCE)
        folder = Path(f"/proc/{driver_pid(launcher)}")
        assert SECRET.encode() not in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


async def test_without_ray_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    launcher = RayLauncher(RayConfig())
    with pytest.raises(ConfigError, match=r"pip install 'anywire-launcher-ray\[ray\]'"):
        await launcher.start("agent", config(), "one")
    await launcher.close()
