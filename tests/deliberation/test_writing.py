"""In which order deliberations are written, and what of it outlives what."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.test_database import opened

from anywire.testing.patience import expect, polled
from anywire_service_deliberation import checkpoints, database
from anywire_service_deliberation.database_form import FILE
from anywire_service_deliberation.tables import Tables
from anywire_service_deliberation.testing.store_kit import NOW, ended, new, with_answers


class Held:
    """Holds the thread that writes in the first write of its kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.written: list[str] = []
        for name in ("add", "keep"):
            monkeypatch.setattr(Tables, name, self._noted(name, getattr(Tables, name)))

    def _noted(self, name: str, write: Any) -> Any:
        def noted(tables: Tables, tenant: str, state: Any) -> Any:
            self.begun.set()
            self.goes_on.wait(60)
            self.written.append(f"{name} {state.question.id}")
            return write(tables, tenant, state)

        return noted


async def test_new_ones_overtake_everything_else_and_hold_it_up_for_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2 * database.MAX_TOGETHER
    async with opened(tmp_path) as kept:
        states = [new(f"q-{number}") for number in range(count)]
        await asyncio.gather(*[kept.add(state) for state in states])
        held = Held(monkeypatch)
        try:
            writing: list[asyncio.Future[Any]] = [asyncio.ensure_future(kept.keep(with_answers(states[0], 1)))]
            await polled(held.begun.is_set, "a write is under way")
            writing += [asyncio.ensure_future(kept.keep(with_answers(state, 1))) for state in states[1:]]
            writing += [asyncio.ensure_future(kept.add(new(f"new-{number}"))) for number in range(count)]
            await asyncio.sleep(0)
        finally:
            held.goes_on.set()
        await expect(asyncio.gather(*writing), "all is written")
    kinds = [text.partition(" ")[0] for text in held.written]
    most = database.MAX_TOGETHER
    assert kinds == ["keep", *["add"] * most, *["keep"] * most, *["add"] * most, *["keep"] * (most - 1)]
    assert held.written[1:3] == ["add new-0", "add new-1"]


async def test_no_write_waits_for_a_sync(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "kept")
    assert tables.open()
    try:
        assert tables._rows("PRAGMA synchronous") == [(1,)]  # NORMAL
        assert tables._rows("PRAGMA journal_mode") == [("wal",)]
    finally:
        tables.close()


async def test_what_was_written_is_in_the_database_itself_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without its write-ahead log is what a loss of power may leave."""
    monkeypatch.setattr(checkpoints, "EACH_S", 0.01)
    async with opened(tmp_path) as kept:
        for number in range(3):
            await kept.add(new(f"q-{number}"))
            await polled(lambda number=number: left_by(tmp_path) == number + 1, "it is there")  # type: ignore[misc]


def left_by(folder: Path) -> int:
    copy = folder / "copy.sqlite3"
    shutil.copy(folder / "kept" / FILE, copy)
    connection = sqlite3.connect(copy)
    try:
        ((count,),) = connection.execute("SELECT COUNT(*) FROM deliberations").fetchall()
    except sqlite3.DatabaseError:  # it has no table yet, or was copied while it was written
        return -1
    finally:
        connection.close()
    return int(count)


async def test_a_killed_process_loses_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is the database with its log, whether or not there was a checkpoint."""
    monkeypatch.setattr(checkpoints, "EACH_S", 3600)
    state = with_answers(new(), 3)
    async with opened(tmp_path) as kept:
        await kept.add(new())
        await kept.keep(state)
        assert left_by(tmp_path) < 1, "it is in the log alone"
        shutil.copytree(tmp_path / "kept", tmp_path / "killed" / "kept")
    async with opened(tmp_path / "killed") as kept:
        assert await kept.get("lab", "q-1") == state


async def test_a_checkpoint_that_fails_is_told_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "EACH_S", 0.01)
    async with opened(tmp_path) as kept:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.Checkpoints, "_make", _full)
            await kept.add(new())
            await polled(lambda: "does not outlive a loss of power" in caplog.text, "it is told")
        with caplog.at_level("INFO"):
            await polled(lambda: "outlives a loss of power again" in caplog.text, "it is told")
        assert left_by(tmp_path) == 1
    assert caplog.text.count("does not outlive") == 1


def _full(*_: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_an_id_whose_deliberation_has_expired_is_free(tmp_path: Path) -> None:
    async with opened(tmp_path) as kept:
        state = ended(with_answers(new(), 2), NOW + 10, NOW + 20)
        await kept.add(new())
        await kept.keep(state)
        assert await kept.add(new(at=NOW + 19)) == state
        again = new(at=NOW + 20)
        assert await kept.add(again) is again
        await kept.keep(newer := with_answers(again, 1))
        assert await kept.get("lab", "q-1") == newer
    rows = sqlite3.connect(tmp_path / "kept" / FILE).execute("SELECT COUNT(*) FROM works").fetchall()
    assert rows == [(1,)]


async def test_a_great_purge_holds_up_no_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 4 * database.REMOVED_TOGETHER
    async with opened(tmp_path) as kept:
        for number in range(count):
            await kept.add(state := new(f"q-{number}"))
            await kept.keep(msgspec.structs.replace(state, status="completed", ended=NOW + 1, expires=NOW + 2))
        removed: list[int] = []
        remove = Tables.remove

        def noted(tables: Tables, numbers: Any) -> None:
            removed.append(len(numbers))
            remove(tables, numbers)

        monkeypatch.setattr(Tables, "remove", noted)
        purging = asyncio.ensure_future(kept.purge(NOW + 3))
        await polled(lambda: removed, "it has begun")
        await kept.add(new("new"))
        assert await expect(purging, "it is through") == count
        assert removed == [database.REMOVED_TOGETHER] * 4
        assert [state.question.id for state in await kept.list("lab", "", "", 100)] == ["new"]


async def test_a_great_list_holds_up_no_other_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in parts, without the texts."""
    count = 4 * database.READ_TOGETHER
    async with opened(tmp_path) as kept:
        for number in range(count):
            await kept.add(state := new(f"q-{number}"))
            await kept.keep(with_answers(state, 2))
        read: list[str] = []
        parts, get = Tables.without_texts, Tables.get

        def noted_part(tables: Tables, numbers: Any) -> Any:
            read.append("part")
            return parts(tables, numbers)

        def noted_get(tables: Tables, *named: Any) -> Any:
            read.append("one")
            return get(tables, *named)

        monkeypatch.setattr(Tables, "without_texts", noted_part)
        monkeypatch.setattr(Tables, "get", noted_get)
        listing = asyncio.ensure_future(kept.list("lab", "", "", count))
        assert await expect(kept.get("lab", "q-1"), "one is read") is not None
        found = await expect(listing, "all are read")
        assert read == ["one", *["part"] * 4]
        assert [state.question.id for state in found] == [f"q-{number}" for number in reversed(range(count))]
        assert {answer.text for state in found for answer in state.answers.values()} == {""}
        assert {len(state.answers) for state in found} == {2}
