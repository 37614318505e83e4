"""The owner of models as its callers see it, over simulated servers in simulated time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, cast

import pytest
from tests.long_form import SOAK
from tests.models.logged import next_text, texts
from tests.models.simulated_hosts import HostRig, hosted
from tests.models.simulated_servers import Behaviour, SimulatedDevices, SimulatedLauncher, SimulatedServer, pass_time

from anywire.errors import (
    AnywireError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelStopped,
    QueueFull,
    ShuttingDown,
)
from anywire.event_bus import Missed
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.life import CHOICE_LIMIT, END_MARGIN, START_MARGIN
from anywire_engine_models.host.server import Device, Exit, Server, StartFailed, Watcher
from anywire_engine_models.host.settings import HostSettings
from anywire_engine_models.host.status import ModelChanged, ModelStatus

A = HostedModel("a")
ON_DEMAND = HostedModel("a", on_demand=True)


def starting(rig: HostRig, name: str) -> asyncio.Task[ModelStatus]:
    return asyncio.ensure_future(rig.host.start(name))


def stopping(rig: HostRig, name: str) -> asyncio.Task[ModelStatus]:
    return asyncio.ensure_future(rig.host.stop(name))


class Use:
    """A request that holds a turn until `finish`; ``told`` is what it was told meanwhile."""

    def __init__(self, host: ModelHost, name: str) -> None:
        self.told: list[str] = []
        self.server: Server | None = None
        self._finished = asyncio.Event()
        self.task = asyncio.ensure_future(self._use(host, name))

    async def _use(self, host: ModelHost, name: str) -> None:
        async with host.use(name, self.told.append) as server:
            self.server = server
            await self._finished.wait()

    def finish(self) -> None:
        self._finished.set()

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None


# Start and stop


async def test_a_model_starts_serves_and_stops() -> None:
    async with hosted([A], Behaviour(2.0)) as rig:
        assert rig.host.status("a") == ModelStatus("a", since=rig.host.status("a").since)
        status = await rig.outcome(starting(rig, "a"))
        assert status == rig.host.status("a")
        assert (status.state, status.reason, status.device) == ("running", "asked to", "cpu")
        assert (status.starts, status.progress) == (1, 1.0)
        assert status.load_seconds == pytest.approx(2.0, abs=0.2)
        assert status.pid
        assert status.address == rig.launcher.servers["a"].address
        use = Use(rig.host, "a")
        await rig.settle()
        assert use.server is rig.launcher.servers["a"]
        assert rig.host.status("a").serving == 1
        use.finish()
        await rig.settle()
        assert rig.host.status("a").serving == 0
        stopped = await rig.outcome(stopping(rig, "a"))
        assert (stopped.state, stopped.pid, stopped.address, stopped.device) == ("stopped", 0, "", "")
        assert rig.states["a"] == ["stopped", "starting", "running", "stopping", "stopped"]


async def test_two_hundred_starts_at_once_are_one_process() -> None:
    async with hosted([A], Behaviour(1.0)) as rig:
        starts = [starting(rig, "a") for _ in range(200)]
        await rig.spend(0.5)
        assert rig.host.status("a").waiting == 200
        pids = {(await rig.outcome(start)).pid for start in starts}
        assert len(pids) == 1
        assert rig.launcher.starts["a"] == 1
        assert rig.host.status("a").waiting == 0


async def test_calls_are_idempotent() -> None:
    async with hosted([A]) as rig:
        assert (await rig.outcome(stopping(rig, "a"))).state == "stopped"
        first = await rig.outcome(starting(rig, "a"))
        assert (await rig.outcome(starting(rig, "a"))).pid == first.pid
        both = [stopping(rig, "a"), stopping(rig, "a")]
        assert {(await rig.outcome(each)).state for each in both} == {"stopped"}
        assert (await rig.outcome(starting(rig, "a"))).starts == 2


async def test_a_start_is_stopped() -> None:
    async with hosted([A], Behaviour(None, cancels_after=0.5)) as rig:
        start, use = starting(rig, "a"), Use(rig.host, "a")
        await rig.spend(1.0)
        assert use.told == ["loading"]
        assert (await rig.outcome(stopping(rig, "a"))).state == "stopped"
        assert not rig.launcher.processes
        for error in (start.exception(), use.error):
            assert isinstance(error, ModelStopped)
            assert "was stopped: asked to" in str(error)
        assert rig.states["a"] == ["stopped", "starting", "stopping", "stopped"]


async def test_of_a_start_that_tries_another_process_the_newest_is_told() -> None:
    class Trying(SimulatedLauncher):
        async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> SimulatedServer:
            watcher.spawned(17)  # its port was taken
            watcher.spawned(18)
            return await super().launch(model, device, watcher)

    async with hosted([A], launcher=Trying()) as rig:
        status = await rig.outcome(starting(rig, "a"))
        told = [change.status.pid for change in rig.changes if change.status.state == "starting"]
        assert told == [0, 0, 17, 18, status.pid]


async def test_a_start_during_a_stop_waits_for_its_end() -> None:
    async with hosted([A], Behaviour(stops_after=1.0)) as rig:
        await rig.outcome(starting(rig, "a"))
        stop = stopping(rig, "a")
        await rig.spend(0.2)
        start = starting(rig, "a")
        assert (await rig.outcome(stop)).state == "stopped"
        assert (await rig.outcome(start)).state == "running"
        assert rig.launcher.starts["a"] == 2


async def test_requests_under_way_end_with_their_server_and_harm_no_later_one() -> None:
    async with hosted([HostedModel("a", slots=1)]) as rig:
        await rig.outcome(starting(rig, "a"))
        held, waiting = Use(rig.host, "a"), Use(rig.host, "a")
        await rig.settle()
        assert waiting.told == ["the only slot is in use"]
        await rig.outcome(stopping(rig, "a"))
        assert held.server is not None
        assert held.server.exited.done()
        assert isinstance(waiting.error, ModelStopped)
        await rig.outcome(starting(rig, "a"))
        new = Use(rig.host, "a")
        await rig.settle()
        assert new.server is not held.server
        held.finish()
        await rig.settle()
        assert rig.host.status("a").serving == 1
        new.finish()


# Requests


async def test_a_stopped_model_answers_at_once_what_to_do() -> None:
    async with hosted([A]) as rig:
        use = Use(rig.host, "a")
        await rig.settle()
        assert isinstance(use.error, ModelStopped)
        assert str(use.error) == (
            "model a is stopped, and no request starts it: run `anywire models start a`, or let requests start it "
            "(on_demand)"
        )
        assert not rig.launcher.launches


async def test_an_unknown_model_is_an_error_that_names_the_nearest() -> None:
    async with hosted([HostedModel("local:smollm2:135m")]) as rig:
        for call in (rig.host.start, rig.host.stop, rig.host.unload):
            with pytest.raises(ModelNotFound, match="did you mean local:smollm2:135m"):
                await call("local:smollm:135m")
        with pytest.raises(ModelNotFound):
            await rig.host.pin("zzz", True)
        with pytest.raises(ModelNotFound):
            rig.host.status("zzz")
        with pytest.raises(ModelNotFound):
            rig.host.logs("zzz")
        with pytest.raises(ModelNotFound):
            async with rig.host.use("zzz"):
                pass


async def test_a_request_starts_a_model_on_demand_and_is_told() -> None:
    async with hosted([ON_DEMAND], Behaviour(2.0)) as rig:
        uses = [Use(rig.host, "a") for _ in range(3)]
        await rig.spend(1.0)
        assert [use.told for use in uses] == [["loading"]] * 3
        await rig.spend(1.1)
        assert rig.host.status("a").reason == "its first task"
        assert [use.server is not None for use in uses] == [True, False, False]
        assert uses[1].told == ["loading", "the only slot is in use"]
        for use in uses:
            use.finish()
            await rig.settle()
        assert rig.launcher.starts["a"] == 1


async def test_an_idle_model_on_demand_is_stopped_and_a_pinned_one_is_not() -> None:
    models = [
        HostedModel("a", on_demand=True, idle_ttl=10.0),
        HostedModel("b", on_demand=True, idle_ttl=10.0, pinned=True),
        HostedModel("c", on_demand=True),
    ]
    async with hosted(models) as rig:
        for name in "abc":
            use = Use(rig.host, name)
            await rig.spend(12.0)
            assert rig.state(name) == "running"
            use.finish()
            await rig.settle()
        await rig.spend(9.5)
        assert [each.state for each in rig.host.statuses()] == ["stopped", "running", "running"]
        assert rig.host.status("a").reason == "idle for 10 s"
        await rig.host.pin("b", False)
        await rig.spend(10.5)
        assert rig.state("b") == "stopped"


async def test_a_caller_who_is_cancelled_leaves_no_trace() -> None:
    settings = HostSettings(memory_budget=10)
    models = [HostedModel("a", 6, slots=1), HostedModel("b", 6, on_demand=True)]
    async with hosted(models, settings=settings) as rig:
        await rig.outcome(starting(rig, "a"))
        held = Use(rig.host, "a")
        await rig.settle()
        waiting: list[asyncio.Task[Any]] = [Use(rig.host, "a").task, Use(rig.host, "b").task, starting(rig, "b")]
        await rig.settle()
        assert [each.waiting for each in rig.host.statuses()] == [1, 2]
        for task in waiting:
            task.cancel()
        await rig.settle()
        assert [each.waiting for each in rig.host.statuses()] == [0, 0]
        held.finish()
        await rig.spend(5.0)
        assert rig.state("b") == "stopped"
        assert rig.launcher.starts == {"a": 1}


@pytest.mark.parametrize("turns", range(8))
async def test_a_caller_who_is_cancelled_as_it_is_given_its_turn_gives_it_back(turns: int) -> None:
    async with hosted([HostedModel("a", slots=1)]) as rig:
        await rig.outcome(starting(rig, "a"))
        first, second = Use(rig.host, "a"), Use(rig.host, "a")
        for _ in range(turns):
            await asyncio.sleep(0)
        first.task.cancel()
        await rig.settle()
        assert second.server is not None
        second.finish()
        await rig.settle()
        assert rig.host.status("a").serving == 0


async def test_no_more_may_wait_than_the_bound() -> None:
    async with hosted([ON_DEMAND, HostedModel("b")], Behaviour(1.0), settings=HostSettings(max_waiting=3)) as rig:
        uses = [Use(rig.host, "a") for _ in range(5)]
        await rig.settle()
        assert [type(use.error) for use in uses] == [type(None)] * 3 + [QueueFull] * 2
        with pytest.raises(QueueFull, match="3 requests wait"):
            await rig.host.start("b")
        for use in uses:
            use.finish()
        await rig.spend(2.0)
        assert all(use.task.done() for use in uses)


# Ends that nobody asked for


async def test_a_killed_server_is_crashed_on_the_event_of_its_exit() -> None:
    model = HostedModel("a", restart="never")
    async with hosted([model], Behaviour(lines=("loading", "out of luck"))) as rig:
        await rig.outcome(starting(rig, "a"))
        rig.launcher.servers["a"].crash()
        await rig.settle()  # no time has passed
        status = rig.host.status("a")
        assert (status.state, status.reason, status.pid) == ("crashed", "killed by SIGKILL", 0)
        assert status.exit == Exit("killed by SIGKILL", signal="SIGKILL", lines=("loading", "out of luck"))
        use = Use(rig.host, "a")
        await rig.spend(60.0)
        assert isinstance(use.error, EngineFailed)
        assert "killed by SIGKILL" in str(use.error)
        assert "run `anywire models start a`" in str(use.error)
        assert "out of luck" not in str(use.error)
        assert rig.state("a") == "crashed"
        assert (await rig.outcome(stopping(rig, "a"))).state == "stopped"
        assert (await rig.outcome(starting(rig, "a"))).exit is None


async def test_the_host_has_the_last_lines_where_a_server_tells_none() -> None:
    async with hosted([A], Behaviour(lines=tuple(f"line {number}" for number in range(50)))) as rig:
        await rig.outcome(starting(rig, "a"))
        rig.launcher.servers["a"].end(Exit("it exited with status 3", code=3))
        await rig.settle()
        ended = rig.host.status("a").exit
        assert ended is not None
        assert ended.lines == tuple(f"line {number}" for number in range(30, 50))


async def test_restarts_back_off_and_end() -> None:
    starts: list[float] = []

    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        starts.append(rig.clock.now())
        return Behaviour(crashes_after=0.0)

    async with hosted([HostedModel("a", max_restarts=8)], behave) as rig:
        start = starting(rig, "a")
        await rig.spend(40.0)
        assert start.done()
        waits = [later - earlier for earlier, later in pairwise(starts)]
        assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0], abs=0.03)
        use = Use(rig.host, "a")
        await rig.settle()
        assert "given up after 9 failures in a row" in str(use.error)
        again = starting(rig, "a")
        await rig.spend(1.0)
        assert again.done()
        assert len(starts) > 10


async def test_a_long_life_begins_the_count_of_failures_anew() -> None:
    async with hosted([HostedModel("a", max_restarts=1)]) as rig:
        await rig.outcome(starting(rig, "a"))
        for _ in range(4):
            await rig.spend(31.0)
            rig.launcher.servers["a"].crash()
            await rig.spend(0.3)
            assert rig.state("a") == "running"
        rig.launcher.servers["a"].crash()
        await rig.spend(30.0)
        assert rig.state("a") == "crashed"


async def test_requests_wait_for_the_restart_of_a_model_on_demand_and_others_do_not() -> None:
    models = [HostedModel("a", on_demand=True), HostedModel("b")]
    async with hosted(models) as rig:
        await rig.outcome(starting(rig, "a"))
        await rig.outcome(starting(rig, "b"))
        held = [Use(rig.host, name) for name in "ab"]
        await rig.settle()
        waiting = [Use(rig.host, name) for name in "ab"]
        await rig.settle()
        for name in "ab":
            rig.launcher.servers[name].crash()
        await rig.settle()
        assert not waiting[0].task.done()
        assert "waits for a restart: killed by SIGKILL" in waiting[0].told
        assert isinstance(waiting[1].error, EngineFailed)
        assert waiting[1].error.retry_after == pytest.approx(0.1)
        await rig.spend(0.2)
        assert waiting[0].server is not None
        assert rig.state("b") == "running"
        assert rig.host.status("b").reason == "restart 1 of at most 5 (killed by SIGKILL)"
        for use in (*held, *waiting):
            use.finish()


async def test_a_start_that_fails_is_an_error_for_all_and_is_not_repeated_by_itself() -> None:
    failing = Behaviour(0.5, fails="it exited with status 1", lines=("no such file",))
    async with hosted([A, HostedModel("b", on_demand=True)], failing) as rig:
        calls = [starting(rig, "a"), starting(rig, "a")]
        uses = [Use(rig.host, "b"), Use(rig.host, "b")]
        await rig.spend(1.0)
        for error in [*(call.exception() for call in calls), *(use.error for use in uses)]:
            assert isinstance(error, EngineFailed)
            assert "it exited with status 1" in str(error)
            assert "anywire models logs" in str(error)
        ended = rig.host.status("a").exit
        assert ended is not None
        assert (ended.code, ended.lines) == (1, ("no such file",))
        await rig.spend(60.0)
        assert rig.launcher.starts == {"a": 1, "b": 1}


async def test_who_asked_for_a_start_that_fails_is_told_why_and_not_to_ask_again() -> None:
    failing = Behaviour(fails="there is no program vllm")
    async with hosted([A, HostedModel("b", on_demand=True)], failing) as rig:
        calls = [starting(rig, name) for name in "ab"]
        await rig.spend(1.0)
        assert [str(call.exception()) for call in calls] == [
            f"model {name} did not start: there is no program vllm" for name in "ab"
        ]
        use = Use(rig.host, "a")
        await rig.settle()
        assert str(use.error) == "model a is not running: there is no program vllm; run `anywire models start a`"


async def test_requests_start_a_failing_model_again_but_not_without_end() -> None:
    async with hosted([HostedModel("a", on_demand=True, max_restarts=3)], Behaviour(fails="bad file")) as rig:
        for _ in range(600):
            use = Use(rig.host, "a")
            await rig.spend(0.1)
            assert isinstance(use.error, EngineFailed)
        assert rig.launcher.starts["a"] == 4
        assert "given up after 4 failures" in str(use.error)
        await rig.spend(300.0)
        use = Use(rig.host, "a")
        await rig.settle()
        assert rig.launcher.starts["a"] == 5
        assert use.error is not None


async def test_autostart_fails_and_is_tried_again() -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        return Behaviour(fails="no driver yet") if number < 3 else Behaviour()

    async with hosted([HostedModel("a", autostart=True)], behave) as rig:
        await rig.spend(1.0)
        status = rig.host.status("a")
        assert (status.state, status.starts) == ("running", 3)
        assert status.reason == "restart 2 of at most 5 (no driver yet)"


# Memory


async def test_what_never_fits_is_answered_at_once() -> None:
    models = [
        HostedModel("large", 11_000_000_000, on_demand=True),
        HostedModel("pinned", 6_000_000_000, pinned=True),
        HostedModel("b", 6_000_000_000, on_demand=True),
    ]
    async with hosted(models, settings=HostSettings(memory_budget=10_000_000_000)) as rig:
        use, start = Use(rig.host, "large"), starting(rig, "large")
        await rig.settle()
        for error in (use.error, start.exception()):
            assert isinstance(error, InvalidRequest)
            assert "large needs 11 GB, the memory budget is 10 GB" in str(error)
        await rig.outcome(starting(rig, "pinned"))
        use = Use(rig.host, "b")
        await rig.settle()
        assert isinstance(use.error, InvalidRequest)
        assert "unpin or stop pinned" in str(use.error)
        await rig.host.pin("pinned", False)
        use = Use(rig.host, "b")
        await rig.settle()
        assert use.server is not None
        use.finish()


async def test_models_of_two_groups_are_not_together() -> None:
    groups = {"a": "x", "b": "x", "c": "y", "d": ""}
    models = [HostedModel(name, on_demand=True, group=group) for name, group in groups.items()]
    async with hosted(models, Behaviour(0.1)) as rig:
        for name in "abd":
            await rig.outcome(starting(rig, name))
        held = Use(rig.host, "a")
        await rig.settle()
        use = Use(rig.host, "c")
        await rig.spend(1.0)
        assert use.told == ["waits until a, b of another group may be stopped"]
        assert rig.state("b") == "running"
        held.finish()
        await rig.spend(0.5)
        assert [each.state for each in rig.host.statuses()] == ["stopped", "stopped", "running", "running"]
        use.finish()
        await rig.host.pin("c", True)
        start = starting(rig, "a")
        await rig.settle()
        assert "of group x" in str(start.exception())


async def test_unload_takes_nothing_from_anybody() -> None:
    async with hosted([HostedModel("a", pinned=True)], Behaviour(1.0)) as rig:
        assert (await rig.host.unload("a")).state == "stopped"
        start = starting(rig, "a")
        await rig.settle()
        with pytest.raises(InvalidRequest, match=r"requests are served or wait there \(1\)"):
            await rig.host.unload("a")
        await rig.outcome(start)
        with pytest.raises(InvalidRequest, match="it is pinned"):
            await rig.host.unload("a")
        assert not (await rig.host.pin("a", False)).pinned
        use = Use(rig.host, "a")
        await rig.settle()
        with pytest.raises(InvalidRequest, match="requests are served"):
            await rig.host.unload("a")
        use.finish()
        await rig.settle()
        unloaded = await rig.outcome(asyncio.ensure_future(rig.host.unload("a")))
        assert (unloaded.state, unloaded.reason) == ("stopped", "unloaded")


async def test_autostart_fills_the_memory_and_takes_none_from_others() -> None:
    models = [HostedModel(name, 4, autostart=True) for name in "abc"]
    async with hosted(models, Behaviour(1.0), settings=HostSettings(memory_budget=10)) as rig:
        await rig.spend(5.0)
        assert [each.state for each in rig.host.statuses()] == ["running", "running", "stopped"]
        assert rig.host.status("a").reason == "autostart"
        assert rig.host.memory().used_bytes == 8
        assert rig.host.memory().swaps == 0
        await rig.outcome(stopping(rig, "b"))
        await rig.spend(2.0)
        assert rig.state("c") == "running"


# Replaced models


async def test_replacing_models_leaves_those_that_run() -> None:
    first = [HostedModel("a"), HostedModel("b", on_demand=True), HostedModel("c")]
    async with hosted(first) as rig:
        for name in "ab":
            await rig.outcome(starting(rig, name))
        held = Use(rig.host, "b")
        await rig.settle()
        pids = [rig.host.status(name).pid for name in "ab"]
        await rig.host.replace([HostedModel("d", on_demand=True), HostedModel("a", 7, slots=3, group="g")])
        await rig.settle()
        assert [(each.model, each.state) for each in rig.host.statuses()] == [
            ("d", "stopped"),
            ("a", "running"),
            ("b", "running"),
        ]
        assert [each.pid for each in rig.host.statuses()][1:] == pids
        assert (rig.host.status("a").memory_bytes, rig.host.status("a").group) == (0, "")
        use = Use(rig.host, "b")
        await rig.settle()
        assert isinstance(use.error, ModelNotFound)
        assert rig.host.status("b").serving == 1
        held.finish()
        await rig.settle()
        assert [each.model for each in rig.host.statuses()] == ["d", "a"]
        assert rig.changes[-1].status.reason == "no longer in the registry"
        await rig.outcome(stopping(rig, "a"))
        again = await rig.outcome(starting(rig, "a"))
        assert (again.memory_bytes, again.group) == (7, "g")


async def test_a_name_twice_is_refused() -> None:
    async with hosted([A]) as rig:
        with pytest.raises(InvalidRequest, match="two models are named 'b'"):
            await rig.host.replace([HostedModel("b"), A, HostedModel("b")])
        assert [each.model for each in rig.host.statuses()] == ["a"]


# Devices


async def test_a_start_that_fails_on_the_card_goes_on_on_the_processor() -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        return Behaviour(fails="out of memory", elsewhere=True) if device != "cpu" else Behaviour()

    async with hosted([A], behave, devices=SimulatedDevices(["gpu:0", "gpu:1", "cpu"])) as rig:
        status = await rig.outcome(starting(rig, "a"))
        assert status.device == "cpu"
        assert status.device_reason == (
            "gpu:0 failed (out of memory); gpu:1 failed (out of memory); simulated: 3 devices"
        )
        assert [device for _, device in rig.launcher.launches] == ["gpu:0", "gpu:1", "cpu"]
        assert rig.states["a"] == ["stopped", "starting", "running"]
        assert status.starts == 1


class _BadDevices:
    def __init__(self, what: Any) -> None:
        self.what = what

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        if self.what is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.what, Exception):
            raise self.what
        return cast("Device", self.what)


@pytest.mark.parametrize("what", [None, OSError("no driver"), 3, Device(""), Device(cast("str", None))])
async def test_a_choice_of_devices_that_fails_is_the_processor(what: Any) -> None:
    async with hosted([A], devices=_BadDevices(what)) as rig:
        status = await rig.outcome(starting(rig, "a"), CHOICE_LIMIT + 1.0)
        assert status.device == "cpu"
        assert "chosen" in status.device_reason or "choice" in status.device_reason


async def test_a_stop_during_the_choice_of_a_device() -> None:
    async with hosted([A], devices=_BadDevices(None)) as rig:
        start = starting(rig, "a")
        await rig.settle()
        assert (await rig.outcome(stopping(rig, "a"), 0.0)).state == "stopped"
        assert isinstance(start.exception(), ModelStopped)
        assert not rig.launcher.launches


# Launchers, servers and listeners that do wrong


class _BadLauncher(SimulatedLauncher):
    """Does wrong with model ``bad``, and right with all others."""

    def __init__(self, way: str, **options: Any) -> None:
        super().__init__(**options)
        self.way = way
        self.let_go = asyncio.Event()

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> SimulatedServer:
        if model.name != "bad":
            return await super().launch(model, device, watcher)
        for _ in range(3):
            watcher.spawned(cast("int", "7"))
            watcher.progress(float("nan"))
            watcher.line(cast("str", b"7"))
            watcher.line("x" * 5000 + "\n")
        match self.way:
            case "raises":
                raise ValueError("a bug")
            case "raises nonsense":
                raise StartFailed(Exit(cast("str", 3)))
            case "gives nothing":
                return cast("SimulatedServer", None)
            case "gives nonsense":
                return cast("SimulatedServer", object())
            case "is cancelled":
                raise asyncio.CancelledError
            case "never returns":
                await asyncio.get_running_loop().create_future()
            case "heeds no cancellation":
                while not self.let_go.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await self.let_go.wait()
        return await super().launch(model, device, watcher)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("raises", "its launcher failed: ValueError: a bug"),
        ("raises nonsense", "its launcher does not say how"),
        ("gives nothing", "gave no server but None"),
        ("gives nonsense", "gave no server but <object"),
        ("is cancelled", "its launcher failed: CancelledError"),
        ("never returns", "it was not ready after 3 s (start_timeout)"),
    ],
)
async def test_a_launcher_that_does_wrong_harms_nobody_else(way: str, says: str) -> None:
    bad = HostedModel("bad", start_timeout=3.0, stop_grace=1.0, restart="never")
    async with hosted([bad, A], launcher=_BadLauncher(way)) as rig:
        start = starting(rig, "bad")
        await rig.outcome(starting(rig, "a"))
        await rig.spend(3.0 + 1.0 + START_MARGIN + 1.0)
        assert start.done()
        assert says in str(start.exception())
        status = rig.host.status("bad")
        assert status.state == "crashed"
        assert status.exit is not None
        assert "x" * 1000 in status.exit.lines
        assert rig.state("a") == "running"
        assert (await rig.outcome(stopping(rig, "bad"))).state == "stopped"


async def test_a_launch_that_does_not_end_holds_its_memory_and_hinders_nobody_for_ever() -> None:
    bad = HostedModel("bad", 6, start_timeout=3.0, stop_grace=1.0)
    settings = HostSettings(memory_budget=10)
    launcher = _BadLauncher("heeds no cancellation", budget=10)
    async with hosted([bad, HostedModel("a", 4), HostedModel("b", 6)], launcher=launcher, settings=settings) as rig:
        launcher.clock = rig.clock
        await rig.outcome(starting(rig, "a"))
        start, other = starting(rig, "bad"), starting(rig, "b")
        await rig.spend(3.0 + 1.0 + START_MARGIN + 1.0 + END_MARGIN + 0.5)
        assert "start_timeout" in str(start.exception())
        assert "the process of bad does not end" in str(other.exception())
        assert rig.host.memory().used_bytes == 10
        for call in (starting(rig, "bad"), stopping(rig, "bad")):
            await rig.settle()
            assert "does not end" in str(call.exception())
        launcher.let_go.set()
        await rig.settle()
        assert rig.host.memory().used_bytes == 4
        launcher.way = ""
        assert (await rig.outcome(starting(rig, "bad"))).state == "running"


async def test_a_stop_that_hangs_is_told_and_keeps_its_memory() -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        return Behaviour(stops_after=None) if model.name == "bad" else Behaviour()

    models = [HostedModel("bad", 6, stop_grace=2.0), HostedModel("b", 6, on_demand=True)]
    async with hosted(models, behave, settings=HostSettings(memory_budget=10)) as rig:
        await rig.outcome(starting(rig, "bad"))
        use, stop = Use(rig.host, "b"), stopping(rig, "bad")
        await rig.spend(2.0 + END_MARGIN - 0.5)
        assert not stop.done()
        await rig.spend(1.0)
        assert isinstance(stop.exception(), EngineFailed)
        assert "it does not end, 12 s after it was told to" in str(stop.exception())
        assert isinstance(use.error, EngineFailed)
        assert (rig.state("bad"), rig.host.memory().used_bytes) == ("stopping", 6)
        rig.launcher.servers["bad"].crash()
        await rig.settle()
        assert (rig.state("bad"), rig.host.memory().used_bytes) == ("stopped", 0)
        use = Use(rig.host, "b")
        await rig.settle()
        assert use.server is not None
        use.finish()


async def test_a_stop_that_fails_counts_until_the_server_has_ended() -> None:
    async with hosted([A]) as rig:
        await rig.outcome(starting(rig, "a"))
        server = rig.launcher.servers["a"]

        async def stop() -> None:
            raise PermissionError("not mine")

        server.stop = stop  # type: ignore[method-assign]
        call = stopping(rig, "a")
        await rig.settle()
        assert "not mine" in str(call.exception())
        server.crash()
        await rig.settle()
        assert rig.state("a") == "stopped"


async def test_an_exit_that_is_nonsense_is_an_exit() -> None:
    async with hosted([HostedModel(name, restart="never") for name in "ab"]) as rig:
        for name in "ab":
            await rig.outcome(starting(rig, name))
        rig.launcher.processes.clear()
        rig.launcher.servers["a"].exited.set_result(cast("Exit", "gone"))
        rig.launcher.servers["b"].exited.cancel()
        await rig.settle()
        for name in "ab":
            assert rig.state(name) == "crashed"
            assert "does not say how" in rig.host.status(name).reason


async def test_listeners_are_told_in_order_and_one_that_fails_harms_nobody() -> None:
    async with hosted([A]) as rig:
        told: list[ModelChanged] = []

        def fails(change: ModelChanged) -> None:
            raise ValueError("a bug")

        end_failing, end = rig.host.listen(fails), rig.host.listen(told.append)
        await rig.outcome(starting(rig, "a"))
        states = [change.status.state for change in told if change.previous != change.status.state]
        assert states == ["starting", "running"]
        assert all(change.status.pid for change in told if change.status.state == "running")
        end()
        end()
        end_failing()
        told.clear()
        await rig.host.stop("a")
        assert not told


async def test_progress_is_told() -> None:
    async with hosted([A], Behaviour(2.0)) as rig:
        await rig.outcome(starting(rig, "a"))
        parts = [change.status.progress for change in rig.changes if change.status.state in ("starting", "running")]
        assert [*dict.fromkeys(parts)] == [0.0, 0.5, 1.0]


async def test_someone_who_fails_when_told_is_served_all_the_same() -> None:
    def told(detail: str) -> None:
        raise ValueError("a bug")

    async with hosted([ON_DEMAND], Behaviour(1.0)) as rig:

        async def use() -> int:
            async with rig.host.use("a", told) as server:
                return server.pid

        task = asyncio.ensure_future(use())
        await rig.spend(2.0)
        assert task.result()


# Logs


async def test_logs_are_kept_over_all_lives_and_followed() -> None:
    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        return Behaviour(lines=tuple(f"{number}.{line}" for line in range(3)))

    async with hosted([A], behave, settings=HostSettings(log_lines=5)) as rig:
        await rig.outcome(starting(rig, "a"))
        await rig.host.stop("a")
        follower = rig.host.logs("a", lines=2, follow=True)
        assert [await next_text(follower), await next_text(follower)] == ["1.1", "1.2"]
        following = asyncio.ensure_future(next_text(follower))
        await rig.outcome(starting(rig, "a"))
        assert await following == "2.0"
        assert await texts(rig.host.logs("a")) == ["1.1", "1.2", "2.0", "2.1", "2.2"]
        assert await texts(rig.host.logs("a", lines=1)) == ["2.2"]
        assert await texts(rig.host.logs("a", lines=0)) == []
        await follower.aclose()


async def test_a_slow_reader_of_a_log_is_told_what_it_missed() -> None:
    many = tuple(str(number) for number in range(3000))
    async with hosted([A], Behaviour(lines=many)) as rig, aclosing(rig.host.logs("a", follow=True)) as follower:
        first = asyncio.ensure_future(anext(follower))
        await rig.settle()
        await rig.outcome(starting(rig, "a"))
        assert await first == Missed(2000)
        assert [await next_text(follower) for _ in range(1000)] == list(many[2000:])


async def test_who_follows_a_log_comes_to_its_end_with_the_host_or_the_model() -> None:
    async with hosted([A, HostedModel("b")], Behaviour(lines=("x",))) as rig:
        await rig.outcome(starting(rig, "a"))

        async def follow(name: str) -> list[str]:
            return await texts(rig.host.logs(name, follow=True))

        of_a, of_b = asyncio.ensure_future(follow("a")), asyncio.ensure_future(follow("b"))
        await rig.settle()
        await rig.host.replace([A])
        assert await of_b == []
        assert not of_a.done()
        await rig.host.close()
        assert await of_a == ["x"]


# The end


@pytest.mark.parametrize("ready_after", [None, 0.0])
async def test_closing_stops_everything_and_answers_everybody(ready_after: float | None) -> None:
    behaviour = Behaviour(ready_after, stops_after=0.5, cancels_after=0.5)
    models = [HostedModel(name, 6, on_demand=True) for name in "abc"]
    async with hosted(models, behaviour, settings=HostSettings(memory_budget=12)) as rig:
        uses = [Use(rig.host, name) for name in "aabbcc"]
        starts = [starting(rig, name) for name in "abc"]
        await rig.spend(0.2)
        closings = [asyncio.ensure_future(rig.host.close()) for _ in range(2)]
        late = starting(rig, "a")
        await rig.spend(1.0)
        assert all(closing.done() for closing in closings)
        assert isinstance(late.exception(), ShuttingDown)
        answers = [use.error for use in uses if use.server is None] + [
            start.exception() for start in starts if start.exception() is not None
        ]
        assert answers
        assert {type(answer) for answer in answers} == {ShuttingDown}
        assert not rig.launcher.processes
        for use in uses:
            use.finish()
        await rig.settle()
        assert all(use.task.done() for use in uses)
        assert all(start.done() for start in starts)
        with pytest.raises(ShuttingDown):
            await rig.host.start("a")
        with pytest.raises(ShuttingDown):
            async with rig.host.use("a"):
                pass
        await rig.host.close()
        assert {each.state for each in rig.host.statuses()} == {"stopped"}


async def test_closing_does_not_wait_for_ever_for_what_hangs() -> None:
    async with hosted([HostedModel("a", stop_grace=1.0)], Behaviour(stops_after=None)) as rig:
        await rig.outcome(starting(rig, "a"))
        closing = asyncio.ensure_future(rig.host.close())
        await rig.spend(1.0 + END_MARGIN + 0.5)
        async with asyncio.timeout(20):
            await closing


async def test_a_host_that_has_not_begun_says_so() -> None:
    host = ModelHost(SimulatedLauncher(), SimulatedDevices())
    with pytest.raises(ShuttingDown, match="has not begun"):
        await host.start("a")
    await host.close()
    with pytest.raises(RuntimeError):
        await host.begin([A])


# Any interleaving


SEEDS = range(200 if SOAK else 10)


def _behaviour(rng: random.Random) -> Behaviour:
    return Behaviour(
        ready_after=rng.choice([0.0, 0.1, 0.5, 3.0, None]),
        fails=rng.choice(["", "", "", "it exited with status 1"]),
        elsewhere=rng.random() < 0.5,
        crashes_after=rng.choice([None, None, None, 0.0, 0.3, 2.0]),
        stops_after=rng.choice([0.0, 0.0, 0.2, 1.5, None if rng.random() < 0.05 else 0.1]),
        cancels_after=rng.choice([0.0, 0.0, 0.3]),
        lines=("hello",),
    )


class Storm:
    """Many callers who ask for anything, and some of whom leave; all is decided by the seed."""

    def __init__(self, rig: HostRig, rng: random.Random, models: list[HostedModel]) -> None:
        self.rig, self.rng, self.models = rig, rng, models
        self.calls: dict[asyncio.Task[Any], str] = {}

    def ask(self) -> None:
        host, rng, name = self.rig.host, self.rng, self.rng.choice(self.models).name
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "use": lambda: self._use(name),
            "start": lambda: host.start(name),
            "stop": lambda: host.stop(name),
            "unload": lambda: host.unload(name),
            "pin": lambda: host.pin(name, rng.random() < 0.2),
            "replace": lambda: host.replace(rng.sample(self.models, rng.randint(3, len(self.models)))),
        }
        what = rng.choices([*calls], [60, 12, 8, 8, 4, 2])[0]
        self.calls[asyncio.ensure_future(calls[what]())] = what

    async def _use(self, name: str) -> None:
        async with self.rig.host.use(name) as server:
            over: asyncio.Future[Any] = asyncio.ensure_future(
                pass_time(self.rig.clock, self.rng.choice([0.0, 0.05, 1.0, 5.0]))
            )
            try:
                await asyncio.wait({over, server.exited}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()

    def leave(self) -> None:
        if self.calls:
            self.rng.choice([*self.calls]).cancel()

    def crash(self) -> None:
        running = [each for each in self.rig.launcher.servers.values() if not each.exited.done()]
        if running:
            self.rng.choice(running).crash()


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_interleaving_is_answered_and_leaves_nothing(seed: int) -> None:
    rng = random.Random(seed)
    models = [
        HostedModel(
            name,
            memory_bytes=rng.choice([2, 4, 6]),
            slots=rng.choice([1, 2]),
            autostart=rng.random() < 0.2,
            on_demand=rng.random() < 0.7,
            idle_ttl=rng.choice([0.0, 1.0]),
            pinned=rng.random() < 0.1,
            group=rng.choice(["", "", "x", "y"]),
            max_restarts=rng.choice([0, 3]),
            start_timeout=2.0,
            stop_grace=0.5,
        )
        for name in "abcdef"
    ]
    settings = HostSettings(memory_budget=10, turn=rng.choice([0.0, 0.5]), max_waiting=50)
    devices = SimulatedDevices(["gpu:0", "cpu"])
    async with hosted(models, lambda *_: _behaviour(rng), settings=settings, devices=devices) as rig:
        storm, errors = Storm(rig, rng, models), Counter[str]()
        for _ in range(400):
            steps: list[Callable[[], None]] = [storm.ask, storm.leave, storm.crash]
            rng.choices(steps, [80, 12, 3])[0]()
            if rng.random() < 0.5:
                await rig.spend(rng.choice([0.0, 0.02, 0.2, 1.0]))
        for call in list(storm.calls):
            with contextlib.suppress(AnywireError, asyncio.CancelledError):
                await rig.outcome(call, most=300.0)
            if not call.cancelled() and (error := call.exception()) is not None:
                assert isinstance(error, AnywireError), error
                errors[error.code] += 1
        assert rig.host.memory().used_bytes <= 10
        assert all(status.waiting == 0 for status in rig.host.statuses())
    assert not [name for name in rig.launcher.processes if not _hangs(rig, name)]
    assert errors


def _hangs(rig: HostRig, name: str) -> bool:
    server = rig.launcher.servers.get(name)
    return server is not None and not server.exited.done() and server.stops > 0
