"""Deliberations on the disk: what is kept is there, whole, for one process at a time."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.caller import Caller
from anywire.errors import ConfigError, PluginFailed
from anywire_service_deliberation.database import Database
from anywire_service_deliberation.database_form import FILE, FORM
from anywire_service_deliberation.record import Answer, Deliberation, Failure
from anywire_service_deliberation.store import Store, tenant_of
from anywire_service_deliberation.tables import Tables
from anywire_service_deliberation.testing.store_kit import NOW, StoreConformance, ended, new, with_answers


class TestSqlite(StoreConformance):
    def make(self, where: Path, max_kept: int) -> Store:
        return Database(where / "kept", max_kept)


@asynccontextmanager
async def opened(folder: Path, most: int = 100) -> AsyncIterator[Database]:
    database = Database(folder / "kept", most)
    try:
        assert await database.open()
        yield database
    finally:
        await database.close()


def test_callers_without_a_tenant_are_apart() -> None:
    callers = [Caller(), Caller("ann"), Caller("bob"), Caller("", "ann"), Caller("ann", "lab")]
    assert len({tenant_of(caller) for caller in callers}) == len(callers)
    assert tenant_of(Caller("ann", "lab")) == tenant_of(Caller("bob", "lab"))


async def test_what_has_expired_goes_and_so_do_the_oldest_of_too_many(tmp_path: Path) -> None:
    async with opened(tmp_path, most=2) as database:
        for number, expires in enumerate((NOW + 50, NOW + 500, NOW + 500, NOW + 500)):
            state = new(f"q-{number}")
            await database.add(state)
            await database.keep(ended(with_answers(state, 2), NOW + number, expires))
        await database.add(new("running"))
        assert await database.purge(NOW + 49) == 2
        assert await database.purge(NOW + 100) == 0
        left = {state.question.id for state in await database.list("lab", "", "", 10)}
        assert left == {"q-2", "q-3", "running"}
        assert await database.purge(NOW + 500) == 2
    rows = sqlite3.connect(tmp_path / "kept" / FILE).execute("SELECT COUNT(*) FROM works").fetchall()
    assert rows == [(0,)]


async def test_a_write_whose_caller_has_gone_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
        writing = asyncio.ensure_future(database.keep(with_answers(new(), 2)))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        await database.delete_council("lab", "none")  # a later write of the same order
        assert await database.get("lab", "q-1") == with_answers(new(), 2)


async def test_a_disk_that_fails_is_told_and_may_work_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
        with monkeypatch.context() as patch:
            patch.setattr(Tables, "keep", _full)
            with pytest.raises(PluginFailed, match="cannot be kept"):
                await database.keep(with_answers(new(), 2))
        assert await database.get("lab", "q-1") == new()
        await database.keep(with_answers(new(), 2))
        assert await database.get("lab", "q-1") == with_answers(new(), 2)


def _full(*_: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
    path = tmp_path / "kept" / FILE
    path.write_bytes(b"no database at all" * 1000)
    async with opened(tmp_path) as database:
        assert await database.unfinished() == []
        await database.add(new())
    assert "was damaged" in caplog.text
    assert path.with_name(f"{FILE}.damaged").read_bytes().startswith(b"no database")


async def test_a_row_that_is_damaged_harms_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as database:
        for name in ("a", "b"):
            await database.add(new(name))
    with sqlite3.connect(tmp_path / "kept" / FILE) as connection:
        connection.execute("UPDATE deliberations SET state = x'7b' WHERE id = 'a'")
    connection.close()
    async with opened(tmp_path) as database:
        assert [state.question.id for state in await database.unfinished()] == ["b"]
    assert "the deliberation a cannot be read" in caplog.text


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "kept" / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match=r"later version .*services\.deliberation\.folder"):
        await Database(tmp_path / "kept").open()


async def test_a_file_of_an_earlier_version_is_changed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
    further = ("ALTER TABLE deliberations ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'",)
    monkeypatch.setattr(Tables, "form", FORM._replace(migrations=(*FORM.migrations, further)))
    for _ in range(2):
        async with opened(tmp_path) as database:
            assert await database.unfinished() == [new()]
    found = sqlite3.connect(tmp_path / "kept" / FILE).execute("SELECT colour FROM deliberations").fetchall()
    assert found == [("blue",)]


async def test_others_may_not_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kept" / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / "kept" / FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        await Database(tmp_path / "kept").open()


texts = st.text(max_size=20)
works = st.sampled_from([f"proposal/0/member-{number}" for number in range(1, 6)])


@st.composite
def growing(draw: st.DrawFn) -> list[Deliberation]:
    """States as they follow each other: what is there is never changed."""
    state, found = new(), []
    for _ in range(draw(st.integers(1, 6))):
        for part in ("answers", "late", "failures"):
            for work in draw(st.lists(works, max_size=2)):
                entry = Failure("late", draw(texts)) if part == "failures" else Answer(draw(texts))
                had = getattr(state, part)
                state = msgspec.structs.replace(state, **{part: {**had, work: had.get(work, entry)}})
        state = msgspec.structs.replace(state, dropped=state.dropped + draw(st.integers(0, 1)), reason=draw(texts))
        found.append(state)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    made = Tables(tmp_path_factory.mktemp("law") / "kept")
    assert made.open()
    yield made
    made.close()


@given(growing(), st.data())
@settings(max_examples=examples(30), deadline=None)
def test_any_growing_state_is_read_as_it_was_written(
    place: Tables, states: list[Deliberation], data: st.DataObject
) -> None:
    tenant = secrets.token_hex(8)
    writes: list[Callable[[], Any]] = [partial(place.add, tenant, new())]
    writes += [partial(place.keep, tenant, state) for state in states[:-1] if data.draw(st.booleans())]
    place.together([*writes, partial(place.keep, tenant, states[-1])])
    found = place.get(tenant, "q-1")
    assert found == states[-1]
    for part in ("answers", "late", "failures"):
        assert list(getattr(found, part)) == list(getattr(states[-1], part))
