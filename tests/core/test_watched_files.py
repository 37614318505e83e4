"""Files of this user alone, and being told when files change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from tests.patience import PATIENCE

from anywire.errors import ConfigError
from anywire.files import watched_files
from anywire.files.private_files import MAX_BYTES, change_private, read_private
from anywire.files.watched_files import WatchedFiles


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_wider_file_is_refused_with_what_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a key"
    path.write_text("the secret")
    path.chmod(mode)
    for use in (lambda: read_private(path), lambda: change_private(path, lambda _: b"")):
        with pytest.raises(ConfigError, match=r"run `chmod 600 '/.*a key'`") as refused:
            use()
        assert "the secret" not in str(refused.value)
    assert path.read_text() == "the secret"


def test_what_is_no_short_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "long").touch(0o600)
    os.truncate(tmp_path / "long", MAX_BYTES + 1)
    for name, why in (("fifo", "is no file"), ("", "Is a directory"), ("long", "longer")):
        with pytest.raises(ConfigError, match=why):
            read_private(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "missing")


def test_a_change_that_fails_changes_nothing_and_one_through_a_link_changes_the_file(tmp_path: Path) -> None:
    path, link = tmp_path / "made" / "file", tmp_path / "link"
    change_private(path, lambda _: b"old")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ZeroDivisionError):
        change_private(path, lambda _: b"%d" % (1 // 0))
    assert read_private(path) == b"old"
    link.symlink_to(path)
    change_private(link, lambda data: data + b" and new")
    assert link.is_symlink()
    assert read_private(path) == b"old and new"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


class Told:
    """Counts what it is told, and can be waited for."""

    def __init__(self, *paths: Path) -> None:
        self.queue: asyncio.Queue[None] = asyncio.Queue()
        self.watched = WatchedFiles(paths, self.changed)

    def changed(self) -> None:
        self.queue.put_nowait(None)
        raise RuntimeError("is logged, and harms nothing")

    async def once(self) -> None:
        await asyncio.wait_for(self.queue.get(), PATIENCE)
        assert self.queue.empty()


@pytest.mark.parametrize("polling", [False, True], ids=["told", "looked for"])
async def test_every_way_of_changing_a_file_is_told(
    tmp_path: Path, polling: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if polling:
        real = watchfiles.awatch

        def without_notify(*paths: Any, **options: Any) -> Any:
            if not options["force_polling"]:
                raise OSError("no watches are left")
            return real(*paths, **options)

        monkeypatch.setattr(watchfiles, "awatch", without_notify)
    # As Kubernetes mounts secrets: FILE -> ..data/FILE, ..data -> a folder that is replaced.
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    data, path, other = tmp_path / "..data", tmp_path / "file", tmp_path / "other"
    data.symlink_to("first")
    path.symlink_to("..data/file")
    told = Told(path, other)
    other.touch()  # between the first look and the start
    told.watched.start()
    try:
        await told.once()
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").rename(data)
        await told.once()
        (tmp_path / "unrelated").touch()
        other.chmod(0o600)
        await told.once()
        other.unlink()
        await told.once()
    finally:
        await told.watched.close()
        await told.watched.close()
    assert ("looked for" in caplog.text) == polling
    assert caplog.text.count("is not heeded") == 4


async def test_a_folder_that_is_missing_is_looked_for(tmp_path: Path) -> None:
    told = Told(tmp_path / "missing" / "file")
    told.watched.start()
    try:
        await asyncio.to_thread(change_private, tmp_path / "missing" / "file", lambda _: b"")
        await told.once()
    finally:
        await told.watched.close()


async def test_changes_are_told_of_where_links_and_folders_lead_to_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_files, "UNTOLD_MS", 10**7)
    for name in ("first", "second", "third"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "file").write_text(name)
    path, second = tmp_path / "file", tmp_path / "in" / "second"
    path.symlink_to("in/first/file")
    told = Told(path)
    told.watched.start()
    try:
        (tmp_path / "new").symlink_to("in/second/file")
        (tmp_path / "new").rename(path)
        await told.once()
        (second / "file").write_text("changed")
        await told.once()
        second.rename(tmp_path / "in" / "old")
        await told.once()
        (tmp_path / "in" / "third").rename(second)
        await told.once()
        (second / "file").write_text("changed again")
        await told.once()
    finally:
        await told.watched.close()
