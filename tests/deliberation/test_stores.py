"""Stores of deliberations: found by name, refused with a sentence, and lost to another process."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.deliberation.deliberation_bench import ANN, Council, asked, bench, ended
from tests.deliberation.memory_store import Kept, MemoryStore, kept

from anywire.errors import ConfigError, PluginError, PluginFailed, ShuttingDown
from anywire.testing.patience import polled
from anywire.testing.service_bench import ServiceBench
from anywire_service_deliberation import stores
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.database import Database
from anywire_service_deliberation.store import Place, Store
from anywire_service_deliberation.stores import make_store
from anywire_service_deliberation.testing.store_kit import StoreConformance

__all__ = ["kept"]  # a fixture

THERE = "tests.deliberation.memory_store:MemoryStore"
Installs = Callable[..., None]


class TestMemory(StoreConformance):
    """A store that is as small as the contract allows."""

    places: ClassVar[dict[Path, Kept]] = {}

    def make(self, where: Path, max_kept: int) -> Store:
        return MemoryStore(self.places.setdefault(where, Kept()), max_kept)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> Installs:
    """Makes these the stores that packages bring, as names and values of entry points."""

    def install(*points: tuple[str, str]) -> None:
        made = [EntryPoint(name, value, stores.GROUP) for name, value in points]

        def installed(group: str, name: str = "") -> list[EntryPoint]:
            assert group == stores.GROUP
            return [point for point in made if name in ("", point.name)]

        monkeypatch.setattr(stores, "entry_points", installed)

    return install


def made(name: str, **options: Any) -> Store:
    return make_store(name, options, Place(Path("unused")), "services.deliberation.store")


def refused(name: str, **options: Any) -> str:
    with pytest.raises((ConfigError, PluginError)) as raised:
        made(name, **options)
    return str(raised.value)


# Found by name


def test_sqlite_is_the_default() -> None:
    config = DeliberationConfig()
    assert isinstance(made(config.store.name, **config.store.options), Database)


def test_a_store_is_named_alone_or_with_its_settings(installs: Installs) -> None:
    installs(("memory", THERE))
    for given in ("memory", {"name": "memory"}, {"name": "memory", "size": 5}):
        config = DeliberationConfig.model_validate({"store": given})
        assert isinstance(made(config.store.name, **config.store.options), MemoryStore)


def test_one_that_is_missing_names_the_package_that_brings_it(installs: Installs) -> None:
    installs()
    assert refused("nats").endswith("pip install anywire-service-nats")


def test_one_that_nobody_knows_names_those_that_there_are(installs: Installs) -> None:
    installs(("memory", THERE))
    assert "did you mean 'sqlite'? known: memory, sqlite" in refused("sqlit")


def test_settings_that_do_not_fit_say_where(installs: Installs) -> None:
    installs(("memory", THERE))
    assert "'services.deliberation.store.sice': did you mean 'size'?" in refused("memory", sice=4)
    assert "services.deliberation.store.size" in refused("memory", size="many")
    assert "services.deliberation.store.bucket" in refused("sqlite", bucket="x")


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([("mine", "no_such_module_anywhere:Store")], "does not load"),
        ([("mine", "tests.deliberation.memory_store:Kept")], "is no Store"),
        ([("mine", THERE), ("mine", "other.module:Store")], "uninstall one of them"),
        ([("mine", "tests.deliberation.test_stores:Raising")], "cannot be made: ValueError: no luck"),
    ],
)
def test_one_that_is_broken_is_named(installs: Installs, points: list[tuple[str, str]], words: str) -> None:
    installs(*points)
    told = refused("mine")
    assert "'mine'" in told
    assert words in told


class Raising(MemoryStore):
    @classmethod
    def make(cls, config: Any, place: Place) -> MemoryStore:
        raise ValueError("no luck")


# Lost to another process


async def test_one_that_is_lost_is_left_and_taken_over_again(tmp_path: Path, kept: Kept) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine, store="memory") as (served, offered):
        told: list[str] = []
        offered.listen(lambda state, resumed: told.append(state.status))
        await asked(offered)
        await engine.all_asked("critique", 1)
        owner = kept.owner
        assert owner is not None
        owner.lose()
        with pytest.raises(ShuttingDown, match="another orchestrator"):
            await offered.get("q-1", ANN)
        assert active(served) == 0
        await polled(lambda: not served.orchestrator.tasks(), "nothing of it is under way here")
        assert len(engine.named("cancelled", "critique")) == len(engine.asked("critique"))
        proposals = len(engine.asked("proposal"))
        engine.release("critique")
        kept.owner = None
        await polled(lambda: offered._is_open, "it has taken over")
        assert (await ended(offered)).status == "completed"
        assert len(engine.asked("proposal")) == proposals, "what was answered is not asked again"
        assert offered.runs.ended == {"completed": 1}
        assert told[-1] == "completed", "whoever listens goes on listening"
        assert active(served) == 1


def active(served: ServiceBench) -> float:
    """The metric that says who has the deliberations."""
    (found,) = (each for _, each in served.host.metrics() if each.name == "active")
    return found.value


async def test_one_that_fails_while_it_is_taken_over_is_tried_again(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = True
    unfinished = MemoryStore.unfinished

    async def failing(store: MemoryStore) -> Any:
        if fails:
            raise PluginFailed("the servers are away")
        return await unfinished(store)

    monkeypatch.setattr(MemoryStore, "unfinished", failing)
    async with bench(tmp_path, store="memory") as (_, offered):
        with pytest.raises(ShuttingDown):
            await asked(offered)
        fails = False
        await polled(lambda: offered._is_open, "it has taken over")
        await asked(offered)
        assert (await ended(offered)).status == "completed"
