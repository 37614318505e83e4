"""A service's file: whole after every end, for one process at a time, and left alone where it is not understood."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import ConfigError, PluginFailed
from anywire.files.database_file import LOCK, DatabaseFile, DatabaseForm
from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire.testing.patience import FACTOR, expect

FIRST = ("CREATE TABLE notes (text TEXT NOT NULL UNIQUE)",)
ROOT = Path(__file__).parents[2]
FORM = DatabaseForm("notes.sqlite3", (FIRST,), "notes", "services.notes.folder")


class Notes(DatabaseFile):
    """What a service would write."""

    form = FORM

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        super().__init__(folder, reader=reader)
        self.forgotten = 0

    def add(self, *texts: str) -> int:
        """All of them or none; returns how many there are then."""
        for text in texts:
            self._run("INSERT INTO notes VALUES (?)", text)
        return len(self.all())

    def add_whole(self, *texts: str) -> None:
        with self._transaction():
            self.add(*texts)

    def all(self) -> list[str]:
        return [text for (text,) in self._rows("SELECT text FROM notes ORDER BY rowid")]

    def _forget(self) -> None:
        self.forgotten += 1


class Coloured(Notes):
    """A later version of it."""

    form = FORM._replace(migrations=(FIRST, ("ALTER TABLE notes ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'",)))


class Unlucky(Notes):
    """A version whose change of the file fails halfway."""

    form = FORM._replace(migrations=(FIRST, ("CREATE TABLE more (text TEXT)", "CREATE TABLE notes (text TEXT)")))


@contextmanager
def opened(notes: Notes) -> Iterator[Notes]:
    try:
        assert notes.open(), "nobody else has the folder"
        yield notes
    finally:
        notes.close()


def test_what_was_written_is_there_at_the_next_opening(tmp_path: Path) -> None:
    with opened(Notes(tmp_path / "kept")) as notes:
        notes.add("a")
        notes.add_whole("b", "c")
        with opened(Notes(tmp_path / "kept", reader=True)) as reader, reader.at_one_time():
            notes.add("d")
            assert reader.all() == ["a", "b", "c", "d"], "its time begins with the first that it reads"
            notes.add("e")
            assert reader.all() == ["a", "b", "c", "d"]
    with opened(Notes(tmp_path / "kept")) as notes:
        assert notes.all() == ["a", "b", "c", "d", "e"]


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=12))
def test_each_write_is_whole_or_nothing_whatever_the_others_do(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[str]]
) -> None:
    """Against a set: a write that brings something twice changes nothing and harms no other."""
    with opened(Notes(tmp_path_factory.mktemp("law"))) as notes:
        calls: list[Callable[[], Any]] = [partial(notes.add, *texts) for texts in writes]
        done = notes.together(calls)
        expected: list[str] = []
        for texts, each in zip(writes, done, strict=True):
            fails = len(set(texts)) < len(texts) or bool(set(texts) & set(expected))
            assert isinstance(each, sqlite3.IntegrityError) == fails
            expected += [] if fails else texts
        assert notes.all() == expected
        assert bool(notes.forgotten) == any(isinstance(each, Exception) for each in done)


def test_a_disk_that_fails_between_writes_done_one_by_one_is_told_to_those_after(tmp_path: Path) -> None:
    with opened(Notes(tmp_path / "kept")) as notes:
        turns = iter((False, True))

        def no_room() -> int:
            if next(turns):
                raise sqlite3.OperationalError("database or disk is full")
            return notes.add("c")

        first, twice, third = notes.together([partial(notes.add, "a"), no_room, partial(notes.add, "a")])
        assert first == 1
        assert isinstance(twice, sqlite3.OperationalError)
        assert isinstance(third, sqlite3.IntegrityError)
        assert notes.all() == ["a"]


def test_a_transaction_that_raises_has_changed_nothing(tmp_path: Path) -> None:
    with opened(Notes(tmp_path)) as notes:
        with pytest.raises(sqlite3.IntegrityError):
            notes.add_whole("a", "b", "a")
        assert notes.all() == []
        notes.add_whole("a")
        assert notes.all() == ["a"]


WRITER = """
import sys
from pathlib import Path
from tests.core.test_database_file import Notes

notes = Notes(Path(sys.argv[1]))
assert notes.open()
for number in range(100_000):
    notes.add_whole(f"{number} begun", f"{number} done")
    print(number, flush=True)
"""


def test_a_killed_process_has_kept_what_it_told_and_leaves_the_folder(tmp_path: Path) -> None:
    second = Notes(tmp_path)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "kept")], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert writer.stdout is not None
        with writer, closing(writer.stdout):
            told = [writer.stdout.readline() for _ in range(20)]
            second = Notes(tmp_path / "kept")
            assert not second.open(), "it has the folder"
            writer.kill()
            told += writer.stdout.readlines()
            assert writer.wait(60 * FACTOR) == -signal.SIGKILL
        last = int([line for line in told if line.endswith("\n")][-1])
        with opened(second) as notes:
            found = notes.all()
            assert found[: 2 * last + 2] == [f"{n} {what}" for n in range(last + 1) for what in ("begun", "done")]
            assert len(found) % 2 == 0, "no half of a transaction"
        (tmp_path / "kept" / FORM.file).unlink()


def test_a_folder_is_one_openings_at_a_time(tmp_path: Path) -> None:
    second = Notes(tmp_path)
    with opened(Notes(tmp_path)) as notes:
        assert not second.open()
        assert not second.open()
        notes.add("a")
    with opened(second):
        assert second.all() == ["a"]
    second.close()
    Notes(tmp_path).close()


def test_what_is_not_open_says_so(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="notes is not open"):
        Notes(tmp_path).all()


def test_an_earlier_form_is_changed_once_and_a_later_one_left_alone(tmp_path: Path) -> None:
    with opened(Notes(tmp_path)) as notes:
        notes.add("a")
    for _ in range(2):
        with opened(Coloured(tmp_path)) as later:
            assert later._rows("SELECT text, colour FROM notes") == [("a", "blue")]
    before = (tmp_path / FORM.file).read_bytes()
    with pytest.raises(ConfigError, match=r"later version of this service \(form 2\).*services\.notes\.folder"):
        Notes(tmp_path).open()
    assert (tmp_path / FORM.file).read_bytes() == before
    with opened(Coloured(tmp_path)):
        pass


def test_a_change_of_form_that_fails_has_changed_nothing(tmp_path: Path) -> None:
    with opened(Notes(tmp_path)) as notes:
        notes.add("a")
    with pytest.raises(ConfigError, match=r"notes cannot be kept in .*already exists"):
        Unlucky(tmp_path).open()
    with opened(Notes(tmp_path)) as notes:
        assert notes.all() == ["a"]
        assert notes._rows("SELECT name FROM sqlite_master WHERE type = 'table'") == [("notes",)]


@pytest.mark.parametrize("pages", [0, 1], ids=["all of it", "all but the first page"])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, pages: int, caplog: pytest.LogCaptureFixture) -> None:
    path, aside = tmp_path / FORM.file, tmp_path / f"{FORM.file}.damaged"
    for number in range(2):
        with opened(Notes(tmp_path)) as notes:
            notes.add(*[f"{number} {n} {'x' * 1000}" for n in range(20)])
        data = path.read_bytes()
        path.write_bytes(data[: 4096 * pages] + bytes([7]) * (len(data) - 4096 * pages))
        damaged = path.read_bytes()
        with opened(Notes(tmp_path)) as notes:
            assert notes.all() == []
            notes.add("new")
        assert aside.read_bytes() == damaged, "the newest is kept"
        path.unlink()
    assert caplog.text.count("notes are lost: ") == 2
    assert {each.stat().st_mode & 0o077 for each in tmp_path.iterdir()} == {0}


def test_a_full_disk_is_told_once_nothing_is_lost_and_it_goes_on_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    faults = DiskFaults(FORM.kept)
    with opened(Notes(tmp_path)) as notes:
        notes.add("a" * 50_000)
        with _disk_of(max(each.stat().st_size for each in tmp_path.iterdir()) + 20_000):
            for _ in range(3):
                with pytest.raises(sqlite3.OperationalError) as raised:
                    notes.together([partial(notes.add, letter * 50_000) for letter in "bc"])
                told = faults.failed(raised.value)
                assert str(tmp_path) not in str(told)
                assert notes.all() == ["a" * 50_000]
        assert notes.together([partial(notes.add, letter) for letter in "bc"]) == [2, 3]
        faults.worked()
        faults.worked()
        assert notes.all()[1:] == ["b", "c"]
    assert caplog.text.count("notes cannot be kept or read now") == 1
    assert caplog.text.count("notes can be kept again") == 1


@contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_others_may_read_neither_folder_nor_file(tmp_path: Path) -> None:
    with opened(Notes(tmp_path / "a" / "kept")):
        pass
    folder = tmp_path / "a" / "kept"
    assert {each.stat().st_mode & 0o077 for each in (folder, *folder.iterdir())} == {0}
    for path, mode, mends in ((folder / FORM.file, 0o640, "chmod 600"), (folder, 0o750, "chmod 700")):
        right = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"{mends} {path}"):
            Notes(folder).open()
        path.chmod(right)
    with opened(Notes(folder)):
        pass


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(ConfigError, match=r"notes cannot be kept in .*kept"):
        Notes(tmp_path / "kept").open()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="notes cannot be kept"):
        Notes(tmp_path).open()
    assert not (tmp_path / "elsewhere").exists()


async def test_a_thread_does_one_call_after_the_other_and_tells_failures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thread, notes = DatabaseThread("notes", DiskFaults("notes")), Notes(tmp_path)
    assert await thread.do(notes.open)
    calls = [expect(thread.do(partial(notes.add, str(number))), "it is written") for number in range(50)]
    for number, call in enumerate(calls):
        assert await call == number + 1
    with pytest.raises(PluginFailed, match="notes cannot be kept or read now") as raised:
        await thread.do(partial(notes.add, "7"))
    assert isinstance(raised.value.__cause__, sqlite3.IntegrityError)
    with pytest.raises(ZeroDivisionError):
        await thread.do(lambda: 1 // 0)
    await thread.do(notes.close)
    thread.end()
    thread.end()
    with pytest.raises(RuntimeError):
        await thread.do(notes.all)
    assert "UNIQUE constraint failed" in caplog.text


def test_the_example_of_the_module_works(tmp_path: Path) -> None:
    import anywire.files.database_file as module

    text = (module.__doc__ or "").split("::\n", 1)[1].rsplit("All of it", 1)[0]
    names: dict[str, Any] = {"DatabaseFile": DatabaseFile, "DatabaseForm": DatabaseForm}
    exec(textwrap.dedent(text), names)
    with opened(names["Notes"](tmp_path)) as notes:
        notes.add("a")
        assert notes._rows("SELECT * FROM notes") == [("a",)]
