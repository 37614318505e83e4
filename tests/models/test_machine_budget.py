"""One machine's memory for models is divided among the programs of one user, whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples
from tests.models.served_models import entry, running, write_registry
from tests.models.sharing_program import Host, shared
from tests.models.simulated_hosts import HostRig, hosted

from anywire.errors import EngineFailed, InvalidRequest
from anywire.testing.patience import PATIENCE, expect
from anywire_engine_models.devices.memory_limit import usable_memory
from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.settings import HostSettings, MemoryBudget
from anywire_engine_models.machine_budget.claims import Claim, fair, grant
from anywire_engine_models.machine_budget.share import LOCK, MemoryShare

ROOT = Path(__file__).parents[2]
TOTAL, POOL = 1000, 800

# The rules


def share(name: str, granted: int = 0, wish: int = POOL) -> Claim:
    return Claim(name, 1, wish, granted)


def test_shares_are_divided_equally_and_bytes_are_given_as_they_are() -> None:
    assert fair(share("a"), []) == 800
    assert fair(share("a"), [share("b"), share("c")]) == 266
    fixed = Claim("d", 1, 200, 200, is_share=False)
    assert fair(share("a"), [share("b"), fixed]) == 300
    assert fair(fixed, [share("a"), share("b")]) == 200
    assert grant(fixed, [share("a", 800)], 0) == 200
    assert fair(share("a"), [Claim("d", 1, 900, 900, is_share=False)]) == 0


def test_one_gets_what_others_have_not_and_the_rest_when_they_give_it_back() -> None:
    assert grant(share("b"), [share("a", 800)], 0) == 0
    assert grant(share("a", 800), [share("b", 0)], 500) == 500, "never less than its models take"
    assert grant(share("b"), [share("a", 500)], 0) == 300
    assert grant(share("a", 500), [share("b", 300)], 100) == 400
    assert grant(share("b", 300), [share("a", 400)], 0) == 400


programs = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["look", "look", "load", "free", "join", "leave"]),
        st.integers(1, 800),
    ),
    max_size=80,
)


@settings(max_examples=examples(150))
@given(programs, st.sampled_from([1, 100, 999, POOL]))
def test_all_together_never_take_more_than_the_largest_share(
    steps: Sequence[tuple[str, str, int]], smaller: int
) -> None:
    """Programs look in any order, load and free in between, come and go. In the end all have the same."""
    claims: dict[str, Claim] = {}
    used: dict[str, int] = {}
    largest = 0

    def look(name: str) -> None:
        others = [each for each in claims.values() if each.id != name]
        claims[name] = msgspec.structs.replace(claims[name], granted=grant(claims[name], others, used[name]))

    for name, what, number in steps:
        if what == "join" and name not in claims:
            claims[name], used[name] = share(name, wish=smaller if name == "d" else POOL), 0
            look(name)
        elif name not in claims:
            continue
        elif what == "look":
            look(name)
        elif what == "load":
            used[name] += min(number, max(0, claims[name].granted - used[name]))
        elif what == "free":
            used[name] = max(0, used[name] - number)
        elif what == "leave":
            del claims[name], used[name]
        largest = max([largest, *[each.wish for each in claims.values()]])
        assert sum(each.granted for each in claims.values()) <= largest
        assert all(used[each] <= claims[each].granted for each in claims)
    used = dict.fromkeys(claims, 0)
    for _ in range(len(claims) + 1):
        for name in claims:
            look(name)
    for name, claim in claims.items():
        assert claim.granted == fair(claim, [each for each in claims.values() if each.id != name])


# A host whose budget changes

M = HostedModel


async def test_a_budget_that_is_less_ends_nothing_that_is_used_and_what_is_idle_leaves() -> None:
    models = [M(name, 4, on_demand=True) for name in "abc"]
    models += [M("kept", 4), M("pinned", 4, on_demand=True, pinned=True)]
    async with hosted(models, settings=HostSettings(memory_budget=20)) as rig:
        for model in models:
            await rig.outcome(asyncio.ensure_future(rig.host.start(model.name)))
            rig.clock.advance(1.0)
        serving = rig.host.use("a")
        await serving.__aenter__()
        rig.host.set_budget(MemoryBudget(12, 12, "2 programs of this machine share 20 B"))
        await rig.settle()
        assert {name: rig.state(name) for name in ("a", "b", "c", "kept", "pinned")} == {
            "a": "running",
            "b": "stopped",
            "c": "stopped",
            "kept": "running",
            "pinned": "running",
        }
        rig.host.set_budget(MemoryBudget(5, 5))
        await rig.settle()
        assert rig.host.memory().used_bytes == 12, "nobody else may leave"
        await serving.__aexit__(None, None, None)
        await rig.settle()
        assert rig.state("a") == "stopped", "once it serves nobody"
        assert "for others on this machine" in rig.host.status("a").reason


async def test_no_more_leave_than_must_the_least_recently_used_first() -> None:
    async with hosted([M(name, 4, on_demand=True) for name in "abc"]) as rig:
        for name in "bca":
            await rig.outcome(asyncio.ensure_future(rig.host.start(name)))
            await rig.spend(1.0)
        rig.host.set_budget(MemoryBudget(8, 8))
        await rig.settle()
        assert [rig.state(name) for name in "abc"] == ["running", "stopped", "running"]


async def test_what_needs_more_than_its_part_is_refused_and_what_needs_more_than_there_is_waits() -> None:
    async with hosted([M("small", 4, on_demand=True), M("big", 8, on_demand=True)]) as rig:
        rig.host.set_budget(MemoryBudget(1, 6, "3 programs of this machine share 18 B"))
        with pytest.raises(InvalidRequest, match=r"the memory budget is 6 B \(3 programs of this machine share 18 B\)"):
            await rig.outcome(asyncio.ensure_future(rig.host.start("big")))
        details: list[str] = []

        async def used() -> None:
            async with rig.host.use("small", details.append):
                pass

        use = asyncio.ensure_future(used())
        await rig.settle()
        assert details == ["waits for memory that others on this machine have"]
        assert rig.state("small") == "stopped"
        rig.host.set_budget(MemoryBudget(6, 6))
        await rig.settle()
        assert use.done()
        assert use.result() is None


@pytest.mark.parametrize("seed", range(examples(10)))
async def test_no_model_ever_starts_beyond_what_there_is_now(seed: int) -> None:
    rng = random.Random(seed)
    models = [M(f"m{number}", rng.randint(1, 6), on_demand=rng.random() < 0.7) for number in range(5)]
    async with hosted(models, settings=HostSettings(memory_budget=12, turn=0.5)) as rig:
        budget = 12
        launched = rig.launcher.launches
        calls: list[asyncio.Future[object]] = []
        for _ in range(60):
            match rng.choice(["start", "use", "budget", "time", "stop"]):
                case "start":
                    calls.append(asyncio.ensure_future(rig.host.start(rng.choice(models).name)))
                case "use":
                    calls.append(asyncio.ensure_future(_use(rig, rng.choice(models).name, rng.uniform(0.0, 1.0))))
                case "stop":
                    calls.append(asyncio.ensure_future(rig.host.stop(rng.choice(models).name)))
                case "budget":
                    budget = rng.randint(1, 12)
                    rig.host.set_budget(MemoryBudget(budget, rng.randint(budget, 12)))
                case "time":
                    await rig.spend(rng.choice([0.1, 1.0, 5.0]))
            before, used = len(launched), rig.launcher.used
            await rig.settle()
            if len(launched) > before:
                assert rig.launcher.used <= max(budget, used), "what has started fits"
        rig.host.set_budget(MemoryBudget(12, 12))
        await rig.spend(60.0)
        for call in calls:
            assert call.done(), "everybody is answered"
            if not call.cancelled() and (error := call.exception()) is not None:
                assert isinstance(error, (InvalidRequest, EngineFailed)) or "stopped" in str(error)


async def _use(rig: HostRig, name: str, seconds: float) -> None:
    done = asyncio.Event()
    async with rig.host.use(name):
        rig.clock.call_later(seconds, done.set)
        await done.wait()


# Programs


@asynccontextmanager
async def taking_part(
    folder: Path, *budgets: int | str, used: int = 0
) -> AsyncIterator[list[tuple[Host, MemoryShare]]]:
    """Hosts of this process on a machine with 1,000 bytes."""
    async with AsyncExitStack() as stack:
        found = []
        for budget in budgets:
            host, part = shared(folder, budget, TOTAL, used)
            stack.push_async_callback(part.close)
            part.begin()
            found.append((host, part))
        yield found


@contextmanager
def program(folder: Path, budget: str = "80%", used: int = 0) -> Iterator[subprocess.Popen[str]]:
    """One in a process of its own, which has told the first line."""
    command = [sys.executable, "-m", "tests.models.sharing_program", str(folder), budget, str(TOTAL), str(used)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert started.stdout is not None
        assert started.stdout.readline().strip()
        yield started
    finally:
        started.kill()
        started.communicate()


async def agreed(host: Host, now: int, most: int) -> None:
    await expect(host.until(now, most), f"it may take {now} of {most} bytes, not {host.budgets}", PATIENCE)


async def test_programs_come_and_go_and_all_have_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with taking_part(tmp_path / "memory", "80%") as [(first, _)]:
        assert (first.budget.now, first.budget.most, first.budget.why) == (800, 800, "")
        async with taking_part(tmp_path / "memory", "80%") as [(second, _)]:
            await agreed(first, 400, 400)
            await agreed(second, 400, 400)
            assert "2 programs of this machine share 800 B" in first.budget.why
            async with taking_part(tmp_path / "memory", "80%", 200) as [(third, _), (fixed, _)]:
                for host in (first, second, third):
                    await agreed(host, 200, 200)
                assert fixed.budget.now == fixed.budget.most == 200
            await agreed(first, 400, 400)
            await agreed(second, 400, 400)
        await agreed(first, 800, 800)
    assert "models may take 400 B of this machine's memory: 2 programs have models here" in caplog.text
    assert "no other program has models here any more" in caplog.text
    assert sorted(each.name for each in (tmp_path / "memory").iterdir()) == [LOCK, "news"]


async def test_what_models_take_is_given_back_when_they_have_stopped(tmp_path: Path) -> None:
    async with taking_part(tmp_path, "80%", used=700) as [(first, _)], taking_part(tmp_path, "80%") as [(second, _)]:
        await agreed(first, 700, 400)
        await agreed(second, 100, 400)
        first.stop_all()
        await agreed(first, 400, 400)
        await agreed(second, 400, 400)


async def test_budgets_that_are_more_than_the_machine_has_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with taking_part(tmp_path, 900, 300, "80%") as found:
        assert [host.budget.now for host, _ in found] == [900, 300, 1]
        assert "may take 1.2 kB together, and it has 1 kB: set memory_budget of each lower" in caplog.text


class Untold:
    """In place of files that are watched: nothing is told of them."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anywire_engine_models.machine_budget.share.WatchedFiles", Untold)


@pytest.mark.usefixtures("untold")
async def test_the_end_of_a_process_is_seen_without_a_word_of_it(tmp_path: Path) -> None:
    with program(tmp_path) as other:
        async with taking_part(tmp_path, "80%") as [(host, _)]:
            assert (host.budget.now, host.budget.most) == (1, 400)
            other.kill()
            await agreed(host, 800, 800)


@pytest.mark.usefixtures("untold")
async def test_memory_that_is_another_ones_is_given_back_as_soon_as_a_model_has_stopped(tmp_path: Path) -> None:
    with program(tmp_path):
        async with taking_part(tmp_path, "80%", used=700) as [(host, _)]:
            assert (host.budget.now, host.budget.most) == (700, 400)
            host.stop_all()
            assert (host.budget.now, host.budget.most) == (1, 400)


@pytest.mark.usefixtures("untold")
async def test_who_leaves_says_so(tmp_path: Path) -> None:
    async with taking_part(tmp_path, "80%"):
        before = (tmp_path / "news").read_text()
    assert (tmp_path / "news").read_text() != before


async def test_a_program_that_is_killed_has_no_part_any_more(tmp_path: Path) -> None:
    async with taking_part(tmp_path, "80%") as [(host, _)]:
        for _ in range(3):
            with program(tmp_path) as other:
                await agreed(host, 400, 400)
                other.kill()
                await agreed(host, 800, 800)


async def test_a_program_that_stands_still_keeps_its_part_and_hinders_nobody(tmp_path: Path) -> None:
    with program(tmp_path, used=500) as other:
        other.send_signal(signal.SIGSTOP)
        async with taking_part(tmp_path, "80%", "80%") as [(one, _), (two, _)]:
            # What it has not been told of it has not given back.
            assert one.budget.now == two.budget.now == 1
            other.send_signal(signal.SIGCONT)
            for host in (one, two):
                await expect(_until_more(host), "it gets what is left", PATIENCE)
            await expect(_until_all(one, two, 300), "all that is left is divided", PATIENCE)


async def _until_more(host: Host) -> None:
    while host.budget.now <= 1:
        host.changed.clear()
        await host.changed.wait()


async def _until_all(one: Host, two: Host, left: int) -> None:
    while one.budget.now + two.budget.now < left:
        one.changed.clear()
        two.changed.clear()
        waits = [asyncio.ensure_future(host.changed.wait()) for host in (one, two)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


@pytest.mark.usefixtures("untold")
async def test_a_lock_that_somebody_holds_delays_and_does_not_stop(tmp_path: Path) -> None:
    with program(tmp_path), program(tmp_path, "lock") as holder:
        async with taking_part(tmp_path, "80%") as [(host, _)]:
            assert host.budget.now == 800, "as its settings say, until it is agreed upon"
            holder.kill()
            await agreed(host, 1, 400)


async def test_a_folder_that_cannot_be_used_is_told_and_the_settings_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "memory").write_text("a file")
    async with taking_part(tmp_path / "memory", "80%") as [(host, _)]:
        assert host.budget.now == 800
    assert "memory for models is not shared with other programs of this machine" in caplog.text


async def test_a_host_without_a_bound_takes_no_part(tmp_path: Path) -> None:
    async with taking_part(tmp_path / "memory", 0):
        assert not (tmp_path / "memory").exists()


async def test_engines_of_one_machine_divide_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    write_registry(tmp_path / "models.json", entry("a", on_demand=True))
    whole = usable_memory() * 80 // 100

    async with running(tmp_path / "models.json", memory_budget="80%") as one:
        first = Given(one.engine.host)
        assert one.engine.host.memory().budget_bytes == whole
        async with running(tmp_path / "models.json", memory_budget="80%") as two:
            second = Given(two.engine.host)
            for given in (first, second):
                await expect(given.until(whole // 2), "they divide it", PATIENCE)
            assert two.engine.status().resources["model_memory_budget_bytes"] == whole // 2
        await expect(first.until(whole), "it is alone again", PATIENCE)
    assert (runtime / "anywire" / "models-memory").is_dir()


class Given:
    """Lets a test wait for the budget that a host is given from now on."""

    def __init__(self, host: ModelHost) -> None:
        self._host, self._set_budget, self._changed = host, host.set_budget, asyncio.Event()
        host.set_budget = self._given  # type: ignore[method-assign]

    def _given(self, budget: MemoryBudget) -> None:
        self._set_budget(budget)
        self._changed.set()

    async def until(self, most: int) -> None:
        while self._host.memory().budget_bytes != most:
            self._changed.clear()
            await self._changed.wait()
